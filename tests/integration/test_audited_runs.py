"""Simulated runs keep an audit log: what the report says of it, what is left in the folder, and how it is checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context
from small_runs import SMALL_SINE
from typer.testing import CliRunner

from testudo_client.app import build_client_app
from testudo_client.cli import app as client_app
from testudo_client.participant import Participant
from testudo_common.audit.entries import Incident, IncidentKind, decode_entry
from testudo_common.audit.extension import decode_extension
from testudo_common.audit.statements import Contribution
from testudo_common.errors import RoundError, UsageError
from testudo_common.plan.load import parse_plan
from testudo_server import secure_exchange
from testudo_server.app import GridTransport, run_federation
from testudo_server.audit_file import read_log
from testudo_server.log_journal import LogJournal
from testudo_server.store import RunState, RunStore
from testudo_simulations.federations import load_federation
from testudo_simulations.grid import InProcessGrid
from testudo_simulations.inline_backend import federate_in_process
from testudo_simulations.keys import SimulatedKeys
from testudo_simulations.owners import Owners
from testudo_simulations.results import RunResult
from testudo_simulations.run import RunRequest, run
from testudo_simulations.scenarios import find_plan
from testudo_simulations.split_views import absent_allowed

PLAIN = 'secure_aggregation.mode="plain"'
BOTH_UNITS = (
    'privacy.unit="example"',
    "privacy.noise_multiplier=1.0",
    'privacy.accountant="rdp"',
    "client_privacy.noise_multiplier=2.0",
    "client_privacy.delta=1e-4",
)


def request(folder: Path, *lines: str, **more: object) -> RunRequest:
    tables, source = find_plan("sine")
    plan = parse_plan(tables, source=source, settings=[*SMALL_SINE, *lines])
    found = RunRequest(plan, None, folder, backend="inline", comparisons=False)
    return replace(found, **more)  # type: ignore[arg-type]


def verified(folder: Path, *more: str) -> dict[str, object]:
    """What ``testudo-client audit verify`` says of a run's folder."""
    arguments = ["audit", "verify", "audit.tlog", "--federation-key", "keys/federation.pub", *more, "--json"]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        done = CliRunner().invoke(client_app, arguments)
    found = json.loads(done.stdout)
    assert (done.exit_code == 0) == found["holds"]
    return dict(found)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, Path]:
    """A run with both units of privacy, and its folder."""
    folder = tmp_path_factory.mktemp("run")
    return run(request(folder, *BOTH_UNITS)), folder


def test_report_says_what_the_log_holds(audited: tuple[RunResult, Path]) -> None:
    result, folder = audited
    audit = result.audit
    assert audit is not None
    with read_log(folder) as log:
        entries = list(map(decode_entry, log.entries()))
    assert audit.entries == len(entries) == 2 + 12 + 6 * (1 + 1 + 4 + 1), "charter, enrolment, approvals; rounds"
    assert (audit.rounds, audit.witnesses, audit.quorum, audit.window) == (6, 12, 9, 1)
    assert len(audit.cosigners) == 6
    assert all(9 <= count <= 12 for count in audit.cosigners)
    assert audit.incidents == []
    assert audit.verified
    assert not any(line.startswith("FAILED") for line in audit.checks)
    assert audit.origin == f"testudo/sine/{result.plan_digest[:16]}"


def test_log_states_the_epsilon_of_the_report(audited: tuple[RunResult, Path]) -> None:
    result, _ = audited
    assert result.audit is not None
    assert result.privacy.client is not None
    assert result.audit.epsilon == pytest.approx(result.privacy.epsilon, rel=1e-9)
    assert result.audit.client_epsilon == pytest.approx(result.privacy.client.epsilon, rel=1e-9)


def test_cost_of_the_log_was_measured(audited: tuple[RunResult, Path]) -> None:
    result, folder = audited
    audit = result.audit
    assert audit is not None
    assert audit.log_bytes == (folder / "audit.tlog").stat().st_size
    assert audit.client_cpu_seconds is not None
    assert audit.server_cpu_seconds is not None
    assert 0 < audit.client_cpu_seconds < 0.5
    assert 0 < audit.server_cpu_seconds < 5
    logged = [record.log for record in RunStore(folder).records()]
    assert audit.bytes_down == sum(one.bytes_down for one in logged if one is not None) > 12 * 1000
    assert audit.bytes_up > 12 * 6 * 100


def test_anybody_can_check_the_folder_that_is_left(audited: tuple[RunResult, Path], tmp_path: Path) -> None:
    result, folder = audited
    assert result.audit is not None
    receipts = result.audit.receipts
    assert [one.verified for one in receipts] == [True] * len(receipts)
    assert len(receipts) >= 2, "of the client that was asked most often"
    assert verified(folder)["holds"]
    found = verified(folder, *(part for one in receipts for part in ("--receipt", one.file)))
    assert found["holds"]

    # One round's model, changed in the file: who checks it finds the entry.
    changed = tmp_path / "audit.tlog"
    extension = decode_extension((folder / "audit.tlog").read_bytes())
    closed = [index for index, data in enumerate(extension.entries) if b'"type":"round_closed"' in data]
    lines = (folder / "audit.tlog").read_bytes().split(b"\n")
    lines[closed[2]] = lines[closed[2]].replace(b'"withstood":0', b'"withstood":1')
    changed.write_bytes(b"\n".join(lines))
    (tmp_path / "keys").symlink_to(folder / "keys")
    log = verified(tmp_path)["logs"][0]  # type: ignore[index]
    assert not log["holds"]
    assert log["first_failure"] == "signature and quorum"
    assert closed[2] in [check["entry"] for check in log["checks"]]


def test_resumed_run_goes_on_with_its_log(audited: tuple[RunResult, Path], tmp_path: Path) -> None:
    class StoppedError(Exception):
        """The run ends here."""

    def stop(_what: str, done: int, _total: int) -> None:
        if done == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(request(tmp_path, PLAIN), stop)
    result = run(request(tmp_path, PLAIN, resume=True))
    audit = result.audit
    assert audit is not None
    assert audit.verified
    assert audit.rounds == 6
    assert [(kind, note) for _, kind, note in audit.incidents] == [("resumed", "")]
    assert audit.client_cpu_seconds is None, "of the first part it is not known"


def test_groups_that_go_one_after_the_other_are_logged_before_they_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an owner that drops out of one of them, and a run that is stopped and resumed."""
    received: list[int] = []
    deliver, receive = GridTransport.deliver, LogJournal.receive

    def losing(transport: GridTransport, requests: Any, **more: Any) -> Iterator[tuple[str, Any]]:
        for client, reply in deliver(transport, requests, **more):
            if client != "wave-000002" or getattr(reply, "masked", None) is None:
                yield client, reply

    def noted(journal: LogJournal, statements: Iterable[Contribution]) -> None:
        kept = list(statements)
        received.append(len(kept))
        receive(journal, kept)

    def stop(_what: str, done: int, _total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(GridTransport, "deliver", losing)
    monkeypatch.setattr(LogJournal, "receive", noted)
    monkeypatch.setattr(secure_exchange, "MOST_SUM_BYTES", 1)
    monkeypatch.setattr(secure_exchange, "LEAST_AT_ONCE", 1)
    lines = (
        "rounds.count=2",
        "rounds.cohort_size=12",
        "secure_aggregation.group_size=4",
        "secure_aggregation.min_group=3",
    )
    with pytest.raises(KeyboardInterrupt):
        run(request(tmp_path, *lines), stop)
    result = run(request(tmp_path, *lines, resume=True))
    assert len(received) == 2 * 3, "once for each group of a round"
    assert [sorted(received[:3]), sorted(received[3:])] == [[3, 4, 4]] * 2
    assert result.audit is not None and result.audit.verified
    assert [round_.excluded for round_ in result.rounds] == [[("wave-000002", "no reply before the deadline")]] * 2
    assert [kind for _, kind, _ in result.audit.incidents] == ["resumed"]
    assert verified(tmp_path)["holds"]


def test_mask_free_run_is_logged_like_any_other(audited: tuple[RunResult, Path], tmp_path: Path) -> None:
    audit = run(request(tmp_path, backend="mask-free")).audit
    assert audit is not None
    assert audit.verified
    assert (audit.rounds, audit.entries) == (6, 2 + 12 + 6 * (1 + 1 + 4 + 1))
    assert verified(tmp_path)["holds"]


@pytest.mark.parametrize("lines", [(PLAIN,), ()], ids=["plain", "secure"])
def test_run_without_a_log_leaves_none(tmp_path: Path, lines: tuple[str, ...]) -> None:
    result = run(request(tmp_path, *lines, "audit.mode=off", "rounds.count=2"))
    assert result.audit is None
    assert not [path for path in tmp_path.iterdir() if "audit" in path.name or path.name == "receipts"]


def test_witnesses_in_memory_share_what_they_have_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand clients hold one history, and not a thousand."""
    from testudo_simulations.witnesses import SimulatedWitness

    made: list[SimulatedWitness] = []
    begin = SimulatedWitness.__init__

    def note(witness: SimulatedWitness, *given: object, **more: object) -> None:
        begin(witness, *given, **more)  # type: ignore[arg-type]
        made.append(witness)

    monkeypatch.setattr(SimulatedWitness, "__init__", note)
    federation = load_federation(request(tmp_path, PLAIN, "rounds.count=2").plan, None)
    federate_in_process(federation, RunStore(tmp_path, durable=False), None)
    assert len(made) == 12
    assert len({id(witness._mirror.state.history) for witness in made}) == 1
    entries = [list(witness._mirror.log.entries()) for witness in made]
    assert all(one is other for mine in entries for one, other in zip(mine, entries[0], strict=True))


@pytest.mark.parametrize("absent", [0, 3, 4])
def test_as_many_may_be_absent_as_the_quorum_leaves(tmp_path: Path, absent: int) -> None:
    """Of twelve owners nine have to cosign; whoever is not there has approved nothing, and is not asked."""
    federation = load_federation(request(tmp_path, PLAIN, "rounds.count=2").plan, None)
    keys = SimulatedKeys.of(federation, None)
    owners = Owners(federation, None, keys)

    def owner_of(context: Context) -> Participant:
        if int(context.node_config["partition-id"]) < absent:
            raise UsageError("it is not there")
        return owners(context)

    def federate() -> RunState:
        grid = InProcessGrid(build_client_app(owner_of), 12)
        store = RunStore(tmp_path, durable=False)
        return run_federation(grid, federation.plan, store, clients=12, keys=lambda: keys.server_keys)

    assert absent_allowed(12, 9) == 3
    if absent <= 3:
        state = federate()
        assert state.round == 2
        away = sorted(federation.training)[:absent]
        assert not [client for client in away if state.participations.get(client)]
        return
    with pytest.raises(RoundError, match="8 of 12 owners have cosigned the log for round 1, and 9 have to") as caught:
        federate()
    assert "wave-000000: not connected" in str(caught.value)
    with read_log(tmp_path) as log:
        *_, last = map(decode_entry, log.entries())
    assert isinstance(last, Incident)
    assert (last.kind, last.round) == (IncidentKind.NO_QUORUM, 1)
