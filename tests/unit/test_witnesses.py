"""What the server makes of its witnesses' answers: late, missing, forged or lying ones cost nobody but their sender."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audit_logs import audited_plan
from testudo_common.audit.checkpoints import cosigners_of, open_checkpoint, watch_of
from testudo_common.audit.entries import OwnerWithdrawn, PlanApproved
from testudo_common.audit.extension import Decision, Testimony, decode_extension, decode_testimony
from testudo_common.audit.notes import Signer
from testudo_common.audit.statements import Approval, Withdrawal
from testudo_common.wire import LogUpdate, Message, Refusal, RefusalReason, TrainReply, Witnessed, encode
from testudo_server.exchange import NO_REPLY
from testudo_server.witnesses import MOST_ASKED, Answers, Witnesses
from watched_run import FIVE, MODEL, NOON, Answer, WatchedRun, Watcher, honest

ADA = FIVE[0]


class Shown:
    """A log of charter, enrolment and approvals, shown to five owners; what one of them answers is meddled with."""

    def __init__(self, folder: Path, change: Callable[[Witnessed, WatchedRun], Message | str | None]) -> None:
        self.run = WatchedRun(folder)
        self.run.begin()
        self.run.owners.log.clear()
        self.run.owners.meddle = self._meddle
        self._change = change
        self.public = self.run.journal._log
        self.watch = watch_of(self.run.keys.roster, self.run.plan.digest)

    def _meddle(self, client: str, message: Message, answer: Answer) -> Message | str | None:
        reply = answer()
        assert isinstance(reply, Witnessed)
        return self._change(reply, self.run) if client == ADA else reply

    def show(self, **more: Any) -> Answers:
        """What the owners answer."""
        showing = self.public._signed(0, 0)
        return self.public.witnesses.show(showing, self.watch, deadline_seconds=3.0, **more)


def with_testimony(change: Callable[[Testimony, WatchedRun], Testimony]) -> Callable[[Witnessed, WatchedRun], Message]:
    """An answer whose testimony is another one."""

    def changed(reply: Witnessed, run: WatchedRun) -> Message:
        return replace(reply, body=change(decode_testimony(reply.body), run).encode())

    return changed


def cosigned(line: Callable[[str, WatchedRun], str]) -> Callable[[Witnessed, WatchedRun], Message]:
    return with_testimony(lambda said, run: said.model_copy(update={"cosignature": line(said.cosignature, run)}))


def of_another_text(_line: str, run: WatchedRun) -> str:
    return run.owners.watchers[ADA].signer.sign("testudo/shops\n1\nAAAA\n", int(NOON.timestamp())).line()


def by_another_owner(_line: str, run: WatchedRun) -> str:
    signer = run.owners.watchers[FIVE[1]].signer
    latest = run.log.latest_note()
    assert latest is not None
    return signer.sign(latest.decode().split("\n\n")[0] + "\n", int(NOON.timestamp())).line()


def under_its_name_by_another_key(_line: str, run: WatchedRun) -> str:
    other = Signer(ADA, run.owners.watchers[FIVE[1]]._membership.key, cosigner=True)
    return other.sign("testudo/shops\n1\nAAAA\n", int(NOON.timestamp())).line()


def one_bit(line: str, _run: WatchedRun) -> str:
    end = line.rstrip("\n")
    return end[:-2] + ("A" if end[-2] != "A" else "B") + end[-1] + "\n"


FAULTS: dict[str, tuple[Callable[[Witnessed, WatchedRun], Message | str | None], str]] = {
    "silent": (lambda reply, run: None, NO_REPLY),
    "failed on the way": (lambda reply, run: "Flower error 2", "Flower error 2"),
    "refuses": (
        lambda reply, run: Refusal(reply.plan_digest, 0, 0, RefusalReason.LOG_NOT_TRUSTED),
        "refused: log_not_trusted",
    ),
    "another kind of message": (
        lambda reply, run: TrainReply(reply.plan_digest, 0, 0, "0" * 64, MODEL),
        "not the answer of a witness",
    ),
    "of another plan": (lambda reply, run: replace(reply, plan_digest="0" * 64), "answered another checkpoint"),
    "of another round": (lambda reply, run: replace(reply, round=7), "answered another checkpoint"),
    "of another attempt": (lambda reply, run: replace(reply, attempt=1), "answered another checkpoint"),
    "a mirror that is longer than the log": (
        lambda reply, run: replace(reply, size=run.log.size + 1, body=b""),
        "its mirror holds 8 entries, and the log 7",
    ),
    "a size that is not the checkpoint's": (
        lambda reply, run: replace(reply, size=reply.size - 1),
        "its mirror does not hold what it was sent",
    ),
    "not a testimony": (lambda reply, run: replace(reply, body=b"{}"[:1]), "not the answer of a witness"),
    "no cosignature": (cosigned(lambda line, run: ""), "it does not cosign"),
    "not a line": (cosigned(lambda line, run: "hello"), "not"),
    "a cosignature of another text": (cosigned(of_another_text), "does not hold"),
    "another owner's cosignature": (cosigned(by_another_owner), "its cosignature is another's"),
    "another key under its name": (cosigned(under_its_name_by_another_key), "its cosignature is another's"),
    "a cosignature with another bit": (cosigned(one_bit), ""),
}


@pytest.mark.parametrize(("change", "fault"), FAULTS.values(), ids=FAULTS)
def test_fault_sets_only_its_sender_aside(
    tmp_path: Path, change: Callable[[Witnessed, WatchedRun], Message | str | None], fault: str
) -> None:
    shown = Shown(tmp_path, change)
    answers = shown.show()
    assert set(answers.cosignatures) == set(FIVE[1:])
    assert list(answers.faults) == [ADA]
    assert fault in answers.faults[ADA]
    for client, line in answers.cosignatures.items():
        line.verify(shown.watch.witnesses[client], shown.public._signed(0, 0).note.text)


def test_proper_answers_cosign(tmp_path: Path) -> None:
    """So that the cases above fail for their fault alone."""
    answers = Shown(tmp_path, lambda reply, run: reply).show()
    assert (set(answers.cosignatures), answers.faults) == (set(FIVE), {})


def test_second_answer_of_a_witness_is_not_looked_at(tmp_path: Path) -> None:
    shown = Shown(tmp_path, lambda reply, run: reply)
    deliver = shown.run.owners.deliver

    def twice(requests: Mapping[str, Message], **more: Any) -> Iterator[tuple[str, Message | str]]:
        for client, reply in deliver(requests, **more):
            yield client, reply
            yield client, "Flower error 2"

    shown.run.owners.deliver = twice  # type: ignore[method-assign]
    answers = shown.show()
    assert (set(answers.cosignatures), answers.faults) == (set(FIVE), {})


def test_answer_of_nobody_that_was_asked_is_not_looked_at(tmp_path: Path) -> None:
    shown = Shown(tmp_path, lambda reply, run: reply)
    deliver = shown.run.owners.deliver

    def with_eve(requests: Mapping[str, Message], **more: Any) -> Iterator[tuple[str, Message | str]]:
        yield "eve", "Flower error 2"
        yield from deliver(requests, **more)

    shown.run.owners.deliver = with_eve  # type: ignore[method-assign]
    answers = shown.show(to=FIVE[:2])
    assert (set(answers.cosignatures), answers.faults) == (set(FIVE[:2]), {})


# --- who lacks entries


def test_witness_that_lags_is_sent_what_it_lacks(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path)
    run.begin()
    watcher = run.owners.watchers[ADA]
    whole = len(watcher.entries)
    run.owners.watchers[ADA] = watcher = Watcher(ADA, run.keys, run.plan)
    run.owners.log.clear()
    run.journal._log.publish()
    firsts = [update.first for client, update in run.owners.sent(LogUpdate) if client == ADA]
    assert firsts == [whole, 0], "first nothing, since it had all of it; then all of it"
    assert len(watcher.entries) == run.log.size
    assert [update.first for client, update in run.owners.sent(LogUpdate) if client == FIVE[1]] == [2]


def test_witness_that_missed_an_answer_is_sent_what_it_may_have(tmp_path: Path) -> None:
    """Its answer was lost, so the server thinks that it has less than it has; what overlaps is no harm."""
    run = WatchedRun(tmp_path)

    def lose(client: str, message: Message, answer: Answer) -> Message | str | None:
        reply = answer()
        return None if client == ADA and isinstance(message, LogUpdate) and message.round == 1 else reply

    run.owners.meddle = lose
    state = run.coordinator.run_round(run.begin())
    run.owners.meddle, run.owners.log = honest, []
    run.coordinator.run_round(state)
    ((_, update),) = [each for each in run.owners.sent(LogUpdate) if each[0] == ADA]
    assert update.first == 2
    assert len(run.owners.watchers[ADA].entries) == update.first + len(decode_extension(update.body).entries)


@pytest.mark.parametrize("sizes", [[0, 0, 0], [0, 1, 2], [3, 2, 1, 0], [1, 0, 1, 0, 1, 0]], ids=str)
def test_witness_that_lies_about_its_size_cannot_keep_the_server_busy(tmp_path: Path, sizes: list[int]) -> None:
    shown = Shown(tmp_path, lambda reply, run: replace(reply, size=sizes.pop(0), body=b""))
    answers = shown.show()
    asked = [client for client, _ in shown.run.owners.sent(LogUpdate)]
    assert asked.count(ADA) <= MOST_ASKED
    assert answers.faults == {ADA: "it asked for entries that it was sent"}
    assert set(answers.cosignatures) == set(FIVE[1:])


@pytest.mark.parametrize(("least", "late"), [(3, ()), (3, FIVE[3:]), (4, FIVE[4:]), (2, (FIVE[0], FIVE[4]))], ids=str)
def test_whoever_is_late_is_waited_for_only_as_long_as_needed(
    tmp_path: Path, least: int, late: tuple[str, ...]
) -> None:
    """What has arrived counts all the same."""
    shown = Shown(tmp_path, lambda reply, run: reply)
    shown.run.owners.late = frozenset(late)
    answers = shown.show(enough=lambda answered, cosigners: len(cosigners) >= least and FIVE[1] in answered)
    assert set(answers.cosignatures) == set(FIVE) - set(late)
    assert answers.faults == dict.fromkeys(late, NO_REPLY)


def test_whoever_is_needed_is_waited_for(tmp_path: Path) -> None:
    shown = Shown(tmp_path, lambda reply, run: reply)
    shown.run.owners.late = frozenset({FIVE[1]})
    answers = shown.show(enough=lambda answered, cosigners: FIVE[1] in answered)
    assert set(answers.cosignatures) == set(FIVE)


def test_bytes_are_those_of_every_message(tmp_path: Path) -> None:
    shown = Shown(tmp_path, lambda reply, run: reply)
    witnesses = shown.public.witnesses
    before = witnesses.bytes_down, witnesses.bytes_up
    shown.show()
    log = shown.run.owners.log
    assert witnesses.bytes_down - before[0] == sum(encode(message).size_bytes for _, message, _ in log)
    assert witnesses.bytes_up - before[1] == sum(
        encode(reply).size_bytes for *_, reply in log if isinstance(reply, Witnessed)
    )


# --- decisions


def saying(*decisions: Callable[[WatchedRun], Decision]) -> Callable[[Witnessed, WatchedRun], Message]:
    """An answer with these decisions."""
    return with_testimony(
        lambda said, run: said.model_copy(update={"statements": tuple(decision(run) for decision in decisions)})
    )


def by(client: str, kind: type[Approval] | type[Withdrawal], number: int) -> Callable[[WatchedRun], Decision]:
    return lambda run: run.owners.watchers[client].decide(kind, number)


def forged(run: WatchedRun) -> Decision:
    return by(ADA, Withdrawal, 1)(run).model_copy(update={"number": 2})


def signed_by_another(run: WatchedRun) -> Decision:
    return by(FIVE[1], Withdrawal, 1)(run).model_copy(update={"client": ADA})


REFUSED = {
    "another owner's": (by(FIVE[1], Withdrawal, 1), "it sent another's decision"),
    "changed": (forged, "is not signed with its key"),
    "signed by another": (signed_by_another, "is not signed with its key"),
}


@pytest.mark.parametrize(("decision", "fault"), REFUSED.values(), ids=REFUSED)
def test_decision_that_is_not_the_owners_is_refused(
    tmp_path: Path, decision: Callable[[WatchedRun], Decision], fault: str
) -> None:
    answers = Shown(tmp_path, saying(decision)).show()
    assert answers.decisions == ()
    assert fault in answers.refused[ADA]
    assert set(answers.cosignatures) == set(FIVE), "what it cosigned counts all the same"


def test_of_many_decisions_the_one_that_counts_is_taken(tmp_path: Path) -> None:
    shown = Shown(tmp_path, saying(by(ADA, Withdrawal, 1), by(ADA, Approval, 9), by(ADA, Withdrawal, 4)))
    (decision,) = shown.show().decisions
    assert (decision.client, decision.number, type(decision)) == (ADA, 9, Approval)


def test_old_approval_does_not_undo_a_withdrawal(tmp_path: Path) -> None:
    """Attack: an approval from before is sent again. The server does not log it, so that no owner stops over it."""
    shown = Shown(tmp_path, saying(by(ADA, Withdrawal, 1)))
    public = shown.public
    public.publish()
    assert shown.run.entries(OwnerWithdrawn)[-1].rounds == ()
    shown._change = saying(by(ADA, Approval, 0))
    before = shown.run.log.size
    public.publish()
    assert shown.run.log.size == before
    assert public.faults[ADA] == "its decision is older than one that the log holds"
    assert ADA in public.history.withdrawn
    shown._change = saying(by(ADA, Approval, 2))
    public.publish()
    assert shown.run.entries(PlanApproved)[-1].statement.number == 2
    assert ADA in public.history.approved


# --- what is kept and passed on


def test_all_cosignatures_are_kept_and_the_quorums_are_passed_on(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path, audited_plan("audit.quorum=3"))
    run.begin()
    public = run.journal._log
    shown = public.publish()
    watch = watch_of(run.keys.roster, run.plan.digest)
    kept = run.log.latest_note()
    assert kept is not None
    assert cosigners_of(open_checkpoint(kept, watch)[1], watch) == set(FIVE)
    passed = public.act_on(shown)
    assert cosigners_of(open_checkpoint(passed, watch)[1], watch) == set(FIVE[:3])
    run.owners.log.clear()
    public.publish()
    assert {decode_extension(update.body).cosigned for _, update in run.owners.sent(LogUpdate)} == {passed}


def test_whoever_is_not_on_the_roster_is_not_shown_the_log(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path, there=(*FIVE, "eve"))
    run.begin()
    assert {client for client, _ in run.owners.sent(LogUpdate)} == set(FIVE)
    assert isinstance(run.journal._log.witnesses, Witnesses)
    assert run.journal.not_asked(["eve", ADA]) == {"eve": "it is not on the roster"}
