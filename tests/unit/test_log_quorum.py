"""Who has to have seen the log before a round begins, and who may be asked in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from audit_logs import audited_plan
from testudo_common.audit.entries import (
    Incident,
    IncidentKind,
    OwnerWithdrawn,
    PlanApproved,
    RoundClosed,
    RoundOpened,
)
from testudo_common.audit.extension import decode_testimony
from testudo_common.audit.statements import Approval, Withdrawal
from testudo_common.errors import RoundError
from testudo_common.wire import LogUpdate, Message, TrainRequest, Witnessed
from watched_groups import TEN
from watched_run import FIVE, MODEL, Answer, WatchedRun, absent, honest


def test_without_a_quorum_no_round_begins(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path, meddle=absent("owner-1", "owner-3"))
    with pytest.raises(RoundError) as caught:
        run.begin()
    assert "3 of 5 owners have cosigned the log for round 1, and 4 have to" in str(caught.value)
    assert "owner-1: no reply before the deadline; owner-3: no reply before the deadline" in str(caught.value)
    assert caught.value.where == "audit.quorum"
    assert "--resume" in caught.value.remedy
    assert run.types[-1] == "incident"
    assert run.entries(Incident)[0].kind is IncidentKind.NO_QUORUM
    assert run.owners.sent(TrainRequest) == []
    assert run.store.exists, "it is begun, and goes on when they are back"
    run.owners.meddle = honest
    final = run.go_on()
    assert final.round == 4
    assert [entry.kind for entry in run.entries(Incident)] == [IncidentKind.NO_QUORUM, IncidentKind.RESUMED]
    assert {entry.attempt for entry in run.entries(RoundOpened)} == {0}, "no attempt was lost"


def test_quorum_that_is_lost_on_the_way_stops_the_round_before_training(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path)
    state = run.coordinator.run_round(run.begin())
    run.owners.meddle, run.owners.log = absent("owner-1", "owner-3"), []
    with pytest.raises(RoundError, match=r"3 of 5 owners have cosigned the log for round 2, and 4 have to"):
        run.coordinator.run_round(state)
    assert run.owners.sent(TrainRequest) == []
    assert run.types[-2:] == ["round_opened", "incident"]
    run.owners.meddle = honest
    final = run.go_on()
    assert final.round == 4
    opened = [(entry.round, entry.attempt) for entry in run.entries(RoundOpened)]
    assert opened == [(1, 0), (2, 0), (2, 1), (3, 0), (4, 0)]


def test_error_names_five_at_most(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path, clients=TEN, there=TEN[:2])
    with pytest.raises(RoundError, match=r"2 of 10 .*owner-02: not connected;.*owner-06: not connected; and 3 more"):
        run.begin()


def test_dropout_within_the_quorum_stops_nothing(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path, meddle=absent("owner-2"))
    assert run.run().round == 4
    assert all("owner-2" not in entry.cohort for entry in run.entries(RoundOpened)), "it never approved"


def test_window_lets_a_cosignature_count_for_some_rounds(tmp_path: Path) -> None:
    """Three are there in the second round, and two more cosigned the first: with a window of two, that is enough."""
    for window, enough in ((2, True), (1, False)):
        run = WatchedRun(tmp_path / str(window), audited_plan(f"audit.window={window}", "rounds.min_replies=1"))
        state = run.coordinator.run_round(run.begin())
        cosigned = [client for client, message, reply in run.owners.log if isinstance(reply, Witnessed)]
        assert set(cosigned) == set(FIVE)
        run.owners.meddle = absent("owner-0", "owner-1")
        if not enough:
            with pytest.raises(RoundError, match="3 of 5 owners"):
                run.coordinator.run_round(state)
            continue
        second = run.coordinator.run_round(state)
        assert second.round == 2
        with pytest.raises(RoundError, match="3 of 5 owners have cosigned the log for round 3"):
            run.coordinator.run_round(second)


def test_each_attempt_needs_a_quorum_of_its_own(tmp_path: Path) -> None:
    """What was cosigned before the second attempt says nothing of how it was opened."""
    for window, enough in ((2, True), (1, False)):
        run = WatchedRun(tmp_path / str(window), audited_plan(f"audit.window={window}"))
        run.begin()
        request = TrainRequest(run.plan.digest, 1, 0, "ab" * 32, MODEL)
        run.journal.open_round(request, ("owner-3", "owner-4"), ())
        run.owners.meddle = absent("owner-0", "owner-1")
        again = replace(request, attempt=1)
        if enough:
            run.journal.open_round(again, ("owner-3", "owner-4"), ())
        else:
            with pytest.raises(RoundError, match="3 of 5 owners have cosigned the log for round 1"):
                run.journal.open_round(again, ("owner-3", "owner-4"), ())


@pytest.mark.parametrize("late", FIVE)
def test_the_cohort_is_waited_for_and_others_are_not(tmp_path: Path, late: str) -> None:
    run = WatchedRun(tmp_path, audited_plan("audit.quorum=2"))
    state = run.begin()
    run.owners.late = frozenset({late})
    run.coordinator.run_round(state)
    (record,) = run.store.records()
    assert record.log is not None
    assert record.log.cosigners == (5 if late in record.cohort else 4)


def test_only_whoever_approved_is_asked(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path)
    run.owners.watchers["owner-4"].wants = None
    run.run()
    assert all("owner-4" not in entry.cohort for entry in run.entries(RoundOpened))
    assert {entry.statement.client for entry in run.entries(PlanApproved)} == set(FIVE[:4])
    assert run.store.load(run.plan.digest).participations["owner-4"] == 0


def test_approval_that_comes_later_counts_from_then_on(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path)
    late = run.owners.watchers["owner-4"]
    late.wants = None
    state = run.coordinator.run_round(run.begin())
    late.wants = Approval
    while state.round < 4:
        state = run.coordinator.run_round(state)
    assert any("owner-4" in entry.cohort for entry in run.entries(RoundOpened))


def test_too_few_approvals_are_named_with_their_reasons(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path, audited_plan("rounds.min_replies=2"))
    for client in FIVE[:3]:
        run.owners.watchers[client].wants = None

    def forge(client: str, message: Message, answer: Answer) -> Message | str:
        reply = answer()
        if client == "owner-3" and isinstance(reply, Witnessed):
            said = decode_testimony(reply.body)
            forged = tuple(one.model_copy(update={"number": 7}) for one in said.statements)
            return replace(reply, body=said.model_copy(update={"statements": forged}).encode())
        return reply

    run.owners.meddle = forge
    with pytest.raises(RoundError) as caught:
        run.run()
    assert "round 1 needs 2 clients, and 1 may still take part" in str(caught.value)
    assert "owner-0: it has not approved the plan" in str(caught.value)
    assert "owner-3: the approval of owner-3 is not signed with its key" in str(caught.value)
    assert run.entries(Incident)[0].kind is IncidentKind.ROUND_FAILED


def test_withdrawal_on_the_way_counts_from_the_next_round_on(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path, audited_plan("rounds.count=6"))
    state = run.coordinator.run_round(run.begin())
    leaver = run.entries(RoundOpened)[0].cohort[0]
    run.owners.watchers[leaver].wants = Withdrawal
    run.coordinator.run(state)
    (tombstone,) = run.entries(OwnerWithdrawn)
    index = run.all_entries.index(tombstone)
    survived = [
        entry.round
        for entry in run.all_entries[:index]
        if isinstance(entry, RoundClosed) and (leaver,) in entry.survivors
    ]
    assert tombstone.statement.client == leaver
    assert list(tombstone.rounds) == survived == [1]
    after = [entry for entry in run.all_entries[index:] if isinstance(entry, RoundOpened)]
    assert len(after) >= 4
    assert all(leaver not in entry.cohort for entry in after)
    assert leaver in {client for client, _ in run.owners.sent(LogUpdate)}, "it still watches"
    assert len(run.owners.watchers[leaver].entries) == run.log.size
    assert run.journal.not_asked([leaver]) == {leaver: "it has withdrawn"}
