"""A run that was stopped goes on with its log, or says in what way log and checkpoint do not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from audit_logs import audited_plan
from testudo_common.audit.checkpoints import watch_of
from testudo_common.audit.entries import (
    Enrolment,
    Incident,
    IncidentKind,
    RoundClosed,
    RoundOpened,
)
from testudo_common.audit.log import AuditLog
from testudo_common.errors import AuditError, CheckpointError
from testudo_common.vectors import vector_digest
from testudo_common.wire import Message, TrainRequest
from testudo_server import log_journal
from testudo_server.store import RunState, RunStore
from testudo_simulations.keys import SimulatedKeys
from watched_groups import secure_run
from watched_run import FIVE, Answer, WatchedRun, Watcher, absent, honest


def test_log_is_not_begun_over_another_one(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path)
    run.run()
    before, kept = list(run.log.entries()), (tmp_path / "checkpoint.safetensors").read_bytes()
    run.start()
    with pytest.raises(CheckpointError, match=r"an audit log here already, of 23 entries"):
        run.begin()
    assert list(run.log.entries()) == before
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == kept, "the run is as it was, too"


class HaltedError(BaseException):
    """As a kill: nobody catches it."""


def halted(run: WatchedRun, where: str) -> None:
    """Run until the first round, and stop where it says."""
    state = run.begin()
    journal = run.journal
    if where == "training":

        def meddle(client: str, message: Message, answer: Answer) -> Message | str:
            if isinstance(message, TrainRequest):
                raise HaltedError
            return answer()

        run.owners.meddle = meddle
    elif where == "before it is kept":
        run.store.save = _halt  # type: ignore[method-assign]
    elif where == "after it is kept":
        journal.close_round = _halt  # type: ignore[method-assign]
    with pytest.raises(HaltedError):
        run.coordinator.run_round(state)
    run.owners.meddle = honest
    run.store = RunStore(run.store.folder, durable=False)


def _halt(*_given: object) -> None:
    raise HaltedError


@pytest.mark.parametrize("where", ["training", "before it is kept", "after it is kept"])
def test_run_that_was_halted_goes_on(tmp_path: Path, where: str) -> None:
    run = WatchedRun(tmp_path)
    halted(run, where)
    final = run.go_on()
    assert final.round == 4
    opened = [(entry.round, entry.attempt) for entry in run.entries(RoundOpened)]
    again = [] if where == "after it is kept" else [(1, 1)]
    assert opened == [(1, 0), *again, (2, 0), (3, 0), (4, 0)]
    assert [entry.round for entry in run.entries(RoundClosed)] == [1, 2, 3, 4]
    assert [entry.kind for entry in run.entries(Incident)] == [IncidentKind.RESUMED]
    assert run.history.model_digest == vector_digest(final.model)
    for record in run.store.records():
        assert record.log is not None
        assert run.all_entries[record.log.closed].model_digest == record.model_digest  # type: ignore[union-attr]
    digests = [record.model_digest for record in run.store.records()]
    assert digests == [entry.model_digest for entry in run.entries(RoundClosed)]


def test_round_that_the_log_lacks_is_made_up_for_from_its_record(tmp_path: Path) -> None:
    """Of secure aggregation: groups that failed, attempts before, scores."""
    whole, other = secure_run(tmp_path / "whole", silent=(2, 0)), secure_run(tmp_path / "other", silent=(2, 0))
    whole.coordinator.run_round(whole.begin())
    halted(other, "after it is kept")
    assert other.types == whole.types[: len(other.types)]
    assert len(other.types) < len(whole.types)
    other.resume()
    assert list(other.log.entries())[: whole.log.size] == list(whole.log.entries())


def restored(run: WatchedRun, state: bytes | None = None, entries: Sequence[bytes] | None = None) -> WatchedRun:
    if state is not None:
        (run.store.folder / "checkpoint.safetensors").write_bytes(state)
    if entries is not None:
        run.log = AuditLog(None)
        run.log.append(entries)
    return run


@pytest.fixture
def two_rounds(tmp_path: Path) -> tuple[WatchedRun, Mapping[int, tuple[bytes, tuple[bytes, ...]]]]:
    """A run after two rounds; checkpoint and log after none, one and two."""
    run = WatchedRun(tmp_path)
    kept = {}
    state = run.begin()
    for number in range(3):
        kept[number] = (tmp_path / "checkpoint.safetensors").read_bytes(), tuple(run.log.entries())
        state = run.coordinator.run_round(state) if number < 2 else state
    return run, kept


TwoRounds = tuple[WatchedRun, Mapping[int, tuple[bytes, tuple[bytes, ...]]]]


def test_older_checkpoint_is_named(two_rounds: TwoRounds) -> None:
    run, kept = two_rounds
    for state in (0, 1):
        with pytest.raises(CheckpointError, match=rf"round 2 and the checkpoint with round {state}: the check"):
            restored(run, kept[state][0]).resume()


def test_older_log_is_named(two_rounds: TwoRounds) -> None:
    run, kept = two_rounds
    for log in (0, 1):
        with pytest.raises(CheckpointError, match=rf"ends with round {log} and the checkpoint with round 2: the log"):
            restored(run, entries=kept[log][1]).resume()
    with pytest.raises(CheckpointError, match="ends with round 0 and the checkpoint with round 2: the log"):
        restored(run, entries=()).resume()


def test_log_without_its_last_updates_is_an_older_copy(two_rounds: TwoRounds) -> None:
    """Restored from within the round: the run has finished it, and the log does not hold what went into it."""
    run, kept = two_rounds
    opened = max(index for index, kind in enumerate(run.types) if kind == "round_opened")
    with pytest.raises(CheckpointError, match="round 2 of the checkpoint does not follow from the audit log"):
        restored(run, entries=kept[2][1][: opened + 1]).resume()


def test_another_model_than_the_logs_is_named(two_rounds: TwoRounds) -> None:
    run, _ = two_rounds
    state = run.store.load(run.plan.digest)
    records = run.store.records()
    other = RunState(state.plan_digest, 2, state.model + 1, state.outer, state.participations, state.clip)
    run.store.save(other, records[-1])
    with pytest.raises(CheckpointError, match="its model after round 2 is not the one that the audit log names"):
        run.resume()


def test_log_of_another_plan_is_named(two_rounds: TwoRounds, tmp_path: Path) -> None:
    run, _ = two_rounds
    other = WatchedRun(tmp_path / "other", audited_plan("seed=9"))
    other.log = run.log
    with pytest.raises(AuditError, match="the charter is of another plan"):
        other.start()


def test_roster_that_grew_is_enrolled_when_the_run_goes_on(two_rounds: TwoRounds) -> None:
    run, _ = two_rounds
    six = (*FIVE, "owner-5")
    keys = SimulatedKeys("shops", six, b"k" * 32)
    run.keys, run.there = keys, six
    run.owners.watchers["owner-5"] = Watcher("owner-5", keys, run.plan)
    for watcher in run.owners.watchers.values():
        watcher._watch = watch_of(keys.roster, run.plan.digest)
    state = run.resume()
    assert len(run.entries(Enrolment)) == 2
    assert run.history.roster == keys.roster
    assert run.types[-2:] == ["incident", "plan_approved"]
    state = run.coordinator.run(state)
    assert any("owner-5" in entry.cohort for entry in run.entries(RoundOpened))


def test_other_code_than_the_charters_is_told(two_rounds: TwoRounds, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = two_rounds
    run.resume()
    assert run.entries(Incident)[-1].note == ""
    monkeypatch.setattr(log_journal, "code_digest", lambda: "cd" * 32)
    run.resume()
    assert run.entries(Incident)[-1].note == f"with other code than the charter's: {'cd' * 32}"


def test_finished_run_can_be_resumed_without_a_quorum(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path)
    final = run.run()
    run.owners.meddle = absent(*FIVE)
    again = run.go_on()
    assert again.round == final.round == 4
    assert run.types[-1] == "incident"


def test_client_of_an_attempt_that_came_to_nothing_was_asked_as_well(tmp_path: Path) -> None:
    """It has seen a model in that round, and the owners' replay counts it: asked once too often, the run would stop."""
    plan = audited_plan("rounds.count=2", "rounds.max_participations=1", "rounds.min_replies=1")
    run = WatchedRun(tmp_path, plan, clients=FIVE[:4])
    halted(run, "training")
    first, _ = run.entries(RoundOpened)[0].cohort
    state = run.resume()
    journal = run.journal
    may_not = journal.not_asked
    journal.not_asked = lambda clients: {first: "it is away today"}  # type: ignore[method-assign]
    state = run.coordinator.run_round(state)
    journal.not_asked = may_not  # type: ignore[method-assign]
    run.coordinator.run(state)
    again, second = run.entries(RoundOpened)[1:]
    assert first not in again.cohort and len(again.cohort) == 2
    assert first not in second.cohort and len(second.cohort) == 1
