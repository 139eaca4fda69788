"""A run that is killed goes on where it was, and ends where it would have ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from flwr.clientapp import ClientApp
from safetensors.numpy import load
from small_runs import SMALL_SINE, rounding_of, settings

from testudo_client.app import build_client_app
from testudo_client.ledger import Ledger
from testudo_common.audit.entries import Incident, IncidentKind, decode_entry
from testudo_common.audit.verify import Evidence, verify
from testudo_common.flower_records import TRAIN, from_records
from testudo_common.learning.learner import initial_vector
from testudo_common.plan.load import parse_plan
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.wire import LogUpdate
from testudo_server.app import run_federation
from testudo_server.audit_file import AUDIT_LOG, read_log
from testudo_server.store import RunState, RunStore
from testudo_simulations.federations import load_federation
from testudo_simulations.federations.base import Federation
from testudo_simulations.grid import InProcessGrid
from testudo_simulations.keys import SimulatedKeys
from testudo_simulations.owners import Owners
from testudo_simulations.scenarios import find_plan

Command = Callable[..., subprocess.CompletedProcess[str]]

ROUNDS = 60  # of a plain run, each in a few milliseconds: it is to be killed before the last of them
LONGER = [*SMALL_SINE, f"rounds.count={ROUNDS}", "evaluation.every_rounds=20"]
PLAIN = "secure_aggregation.mode=plain"
PRIVATE = ['privacy.unit="example"', "privacy.epsilon=8", "privacy.accountant=rdp"]


def _arguments(out: str, lines: list[str]) -> list[str]:
    return ["run", "sine", "--out", out, "--no-comparisons", "--json", *settings(lines)]


def _kill_in_the_middle(folder: Path, arguments: list[str]) -> int:
    """Start a run, kill it with SIGKILL once some rounds are kept; returns how many those were."""
    process = subprocess.Popen(
        [sys.executable, "-m", "testudo_simulations.cli", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    kept = folder / "killed" / "rounds.jsonl"
    ends = time.monotonic() + 120
    while time.monotonic() < ends and process.poll() is None:
        if kept.exists() and kept.read_text().count("\n") >= 3:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "the run was over before it could be killed"
    return kept.read_text().count("\n")


def _result(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    return dict(run)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_model(command: Command, tmp_path: Path) -> None:
    lines = [*LONGER, PLAIN]
    whole = _result(command("simulations", *_arguments("whole", lines)))
    kept = _kill_in_the_middle(tmp_path, _arguments("killed", lines))
    assert 3 <= kept < ROUNDS
    resumed = _result(command("simulations", *_arguments("killed", lines), "--resume"))
    assert resumed["model_digest"] == whole["model_digest"]
    assert len(resumed["rounds"]) == ROUNDS  # type: ignore[arg-type]
    assert resumed["curve"] == whole["curve"]


@pytest.mark.slow
def test_a_killed_private_run_spends_no_more_than_planned(command: Command, tmp_path: Path) -> None:
    lines = [*LONGER, *PRIVATE, PLAIN]
    _kill_in_the_middle(tmp_path, _arguments("killed", lines))
    resumed = _result(command("simulations", *_arguments("killed", lines), "--resume"))
    assert resumed["privacy"]["epsilon"] <= 8.0  # type: ignore[index]
    assert all(record["excluded"] == [] for record in resumed["rounds"])  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_killed_run_with_secure_aggregation_goes_on(command: Command, tmp_path: Path) -> None:
    """Not to the same bits: sums are rounded at random, and the round in flight may be trained again."""
    rounds = 20
    lines = [*SMALL_SINE, f"rounds.count={rounds}", "evaluation.every_rounds=20"]
    whole = _result(command("simulations", *_arguments("whole", lines)))
    kept = _kill_in_the_middle(tmp_path, _arguments("killed", lines))
    assert 3 <= kept < rounds
    resumed = _result(command("simulations", *_arguments("killed", lines), "--resume"))
    assert resumed["plan_digest"] == whole["plan_digest"]
    assert [record["round"] for record in resumed["rounds"]] == list(range(1, rounds + 1))  # type: ignore[attr-defined]
    assert [record["cohort"] for record in resumed["rounds"]] == [  # type: ignore[attr-defined]
        record["cohort"]
        for record in whole["rounds"]  # type: ignore[attr-defined]
    ]
    assert all(record["excluded"] == [] for record in resumed["rounds"])  # type: ignore[attr-defined]
    attempts = {
        record.round: {group.attempt for group in record.groups} for record in RunStore(tmp_path / "killed").records()
    }
    assert all(found == {0} for number, found in attempts.items() if number not in (kept, kept + 1))
    assert sum(max(found) for found in attempts.values()) <= 1, "one kill costs one attempt at most"
    models = [load((tmp_path / out / "checkpoint.safetensors").read_bytes())["model"] for out in ("whole", "killed")]
    assert np.linalg.norm(models[0] - models[1]) < 0.02 * np.linalg.norm(models[0])


# --- killed at a chosen message, in this process: folders are all that is left


class KilledError(BaseException):
    """No code of ours catches it, as none catches SIGKILL."""


class DyingGrid(InProcessGrid):
    """Ends the run when it is to send one message of a kind more than ``messages``: the log's, or all others."""

    def __init__(self, app: ClientApp, clients: int, messages: int | None, *, of_the_log: bool) -> None:
        super().__init__(app, clients)
        self._left = messages
        self._of_the_log = of_the_log

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        waiting = list(messages)
        if self._left is not None:
            self._left -= sum(_shows_the_log(message) == self._of_the_log for message in waiting)
            if self._left < 0:
                raise KilledError
        return super().push_messages(waiting)


def _shows_the_log(message: Message) -> bool:
    return message.metadata.message_type == TRAIN and isinstance(from_records(message.content), LogUpdate)


SHORT = [*SMALL_SINE, "rounds.count=6"]
STEPS = 6  # messages to one client in a round: training, and five of the protocol
MASKING = 3  # the step after whose message a client has sent its masked input


def _sine(*lines: str) -> Federation:
    tables, source = find_plan("sine")
    return load_federation(parse_plan(tables, source=source, settings=[*SHORT, *lines]), None)


def _federate(
    federation: Federation,
    folder: Path,
    *,
    messages: int | None = None,
    of_the_log: bool = False,
    resume: bool = False,
) -> RunState:
    """Like the simulation, in ``folder``; killed before message ``messages`` if that is given."""
    keys, clients = SimulatedKeys.of(federation, folder / "keys"), len(federation.training)
    logged = folder / AUDIT_LOG if resume else None
    app = build_client_app(Owners(federation, folder / "clients", keys, logged=logged))
    if messages is not None and not of_the_log:
        messages += clients  # the first ask for names
    grid = DyingGrid(app, clients, messages, of_the_log=of_the_log)
    store = RunStore(folder, durable=False)
    return run_federation(grid, federation.plan, store, clients=clients, keys=lambda: keys.server_keys, resume=resume)


def _killed_and_resumed(federation: Federation, folder: Path, *, finished: int, step: int, clients: int) -> RunState:
    """Killed in the round after ``finished`` ones, when ``clients`` have had the message of ``step``; then resumed."""
    cohort = federation.plan.rounds.cohort_size
    with pytest.raises(KilledError):
        _federate(federation, folder, messages=(finished * STEPS + step) * cohort + clients)
    assert len(RunStore(folder).records()) == finished
    return _federate(federation, folder, resume=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunState:
    """A run that nobody killed."""
    return _federate(_sine(), tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("clients", [0, 2])
@pytest.mark.parametrize("step", range(STEPS))
def test_a_run_killed_at_any_step_of_secure_aggregation_goes_on(
    whole: RunState, tmp_path: Path, step: int, clients: int
) -> None:
    federation = _sine()
    plan = federation.plan
    found = _killed_and_resumed(federation, tmp_path / "killed", finished=3, step=step, clients=clients)
    records = RunStore(tmp_path / "killed").records()
    assert [record.round for record in records] == list(range(1, 7))
    assert all(record.excluded == () for record in records)
    assert [{group.attempt for group in record.groups} for record in records] == [*[{0}] * 3, {1}, *[{0}] * 2]
    assert found.participations == whole.participations
    apart = np.abs(found.model - whole.model).max()
    if (1, 0) <= (step, clients) <= (MASKING, 0):
        # Everybody had trained, and no update had left: all were sent in the next attempt, and only rounding differs.
        assert apart <= rounding_of(plan)
    moved = np.abs(whole.model - initial_vector(plan)).max()
    assert apart < 0.05 * moved


@pytest.mark.parametrize("clients", [0, 2])
def test_a_plain_run_killed_while_a_round_is_trained_ends_with_the_same_model(tmp_path: Path, clients: int) -> None:
    """The round is another attempt for the log, and who had not trained yet trains the same in it."""
    federation = _sine(PLAIN)
    whole = _federate(federation, tmp_path / "whole")
    with pytest.raises(KilledError):
        _federate(federation, tmp_path / "killed", messages=3 * federation.plan.rounds.cohort_size + clients)
    assert len(RunStore(tmp_path / "killed").records()) == 3
    resumed = _federate(federation, tmp_path / "killed", resume=True)
    assert resumed.model.tobytes() == whole.model.tobytes()
    assert resumed.participations == whole.participations


SHOWN = 12 + 4  # messages of the log in a round: to everybody when it is opened, to the cohort once it is grouped


@pytest.mark.parametrize("messages", [0, 5, 12 + 2 * SHOWN, 12 + 2 * SHOWN + 5, 12 + 3 * SHOWN - 2])
def test_a_run_killed_while_the_log_is_shown_goes_on(whole: RunState, tmp_path: Path, messages: int) -> None:
    """Before the first round, before one is opened, in the middle of it, and with groups that some have seen."""
    federation = _sine()
    with pytest.raises(KilledError):
        _federate(federation, tmp_path / "killed", messages=messages, of_the_log=True)
    found = _federate(federation, tmp_path / "killed", resume=True)
    assert found.participations == whole.participations
    records = RunStore(tmp_path / "killed").records()
    assert [record.round for record in records] == list(range(1, 7))
    assert all(record.excluded == () for record in records)
    with read_log(tmp_path / "killed") as log:
        entries = tuple(log.entries())
        *_, last = log.notes()
    evidence = Evidence(
        SimulatedKeys.of(federation, tmp_path / "killed" / "keys").server_keys.federation_key, entries, (last,)
    )
    assert verify(evidence).first_failure is None
    assert any(
        isinstance(entry, Incident) and entry.kind is IncidentKind.RESUMED for entry in map(decode_entry, entries)
    )


def test_a_private_run_killed_after_masking_spends_no_more_than_planned(tmp_path: Path) -> None:
    """Whoever had sent its update trains anew, and is charged anew: in its last round it has nothing left, and says so.

    The plan has room for that: of the six of a round, four are enough.
    """
    lines = ["rounds.count=10", "rounds.cohort_size=6", "secure_aggregation.min_group=3", *PRIVATE]
    federation = _sine(*lines)
    plan = federation.plan
    limit = plan.rounds.max_participations
    assert limit == 5
    _killed_and_resumed(federation, tmp_path, finished=4, step=STEPS - 1, clients=0)
    records = RunStore(tmp_path).records()
    again = set(records[4].cohort)
    refused = [client for record in records for client, _ in record.excluded]
    reasons = {reason for record in records for _, reason in record.excluded}
    assert reasons == {"refused: privacy_spent"}
    assert sorted(refused) == sorted(again), "each once, and nobody else"
    assert all(record.excluded == () for record in records[:8]), "in its last round"
    for owner in (tmp_path / "clients").iterdir():
        events = Ledger(owner / "ledger.db", durable=False).spent("", plan.digest).example
        assert sum(event.steps for event in events) == limit * plan.inner.steps
        assert epsilon_of(events, plan.privacy.delta, "rdp") <= 8.0


def test_resuming_with_another_plan_is_refused(command: Command) -> None:
    assert command("simulations", *_arguments("out", SMALL_SINE)).returncode == 0
    other = command("simulations", *_arguments("out", [*SMALL_SINE, "inner.steps=7"]), "--resume")
    assert other.returncode != 0
    assert "another plan" in other.stderr


def test_a_finished_run_is_not_trained_again(command: Command) -> None:
    first = _result(command("simulations", *_arguments("out", SMALL_SINE)))
    again = _result(command("simulations", *_arguments("out", SMALL_SINE), "--resume"))
    assert again == first
