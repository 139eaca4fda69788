"""The checks of a log, one function each: gives back a sentence with figures, or raises what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from testudo_common.audit.checkpoints import colluders_found, open_checkpoint
from testudo_common.audit.evidence import Case, NotMade
from testudo_common.audit.receipts import decode_receipt, verify_receipt
from testudo_common.audit.wording import SHOWN_DIGITS, counted, told_account
from testudo_common.errors import AuditError, AuditFault


def signature_and_quorum(case: Case) -> str:
    """The log signed all of it, and enough witnesses have seen it."""
    watch, notes = case.watch, case.evidence.notes
    if not notes:
        raise AuditError(AuditFault.SIGNATURE, "the log is under no checkpoint", where=watch.origin)
    last, _ = case.over_these(notes[-1])
    if last.size < len(case.tree):
        raise AuditError(AuditFault.SIGNATURE, "from here on, the log is under no checkpoint", index=last.size)
    case.raise_faults(AuditFault.QUORUM)
    most = 0
    for data in reversed(notes):
        checkpoint, cosigners = case.over_these(data)
        most = max(most, len(cosigners))
        if len(cosigners) < case.quorum:
            continue
        unseen = [index for index in case.counts.closed if index >= checkpoint.size]
        if len(unseen) > case.evidence.unseen_rounds:
            raise AuditError(
                AuditFault.QUORUM,
                f"only the first {checkpoint.size} entries were cosigned by a quorum, and this round closed after them",
                index=unseen[0],
            )
        tail = last.size - checkpoint.size
        alone = f"; the last {counted(tail, 'entry', 'entries')} by the log alone" if tail else ""
        found = max(0, colluders_found(len(watch.witnesses), case.quorum))
        return (
            f"{counted(checkpoint.size, 'entry', 'entries')} cosigned by {len(cosigners)} of {len(watch.witnesses)} "
            f"witnesses, {case.quorum} have to{alone}; two histories would need {found + 1} witnesses that sign both"
        )
    raise AuditError(
        AuditFault.QUORUM, f"{most} of {len(watch.witnesses)} witnesses cosigned, and {case.quorum} have to"
    )


def kept_checkpoint(case: Case) -> str:
    """The log is the one of which a checkpoint was kept, and has only grown."""
    kept = [*case.evidence.kept, *(("an earlier checkpoint", note) for note in case.evidence.notes[:-1])]
    if not kept:
        raise NotMade("no earlier checkpoint is there to compare with")
    sizes = []
    for source, data in kept:
        try:
            checkpoint, _ = open_checkpoint(data, case.watch)
            if checkpoint.size > len(case.tree):
                raise AuditError(
                    AuditFault.TRUNCATED, f"the log has {len(case.tree)} entries, and had {checkpoint.size} before"
                )
            if case.tree.root(checkpoint.size) != checkpoint.root:
                raise AuditError(
                    AuditFault.REWRITTEN, f"the first {checkpoint.size} entries are others than they were before"
                )
        except AuditError as error:
            raise _from(source, error) from error
        sizes.append(checkpoint.size)
    earliest = f"the first {counted(min(sizes), 'entry', 'entries')}"
    return f"the log extends {counted(len(sizes), 'earlier checkpoint')}, from {earliest} on"


def receipts(case: Case) -> str:
    """Every receipt is of an entry of this log."""
    if not case.evidence.receipts:
        raise NotMade("no receipt was given")
    fewest = len(case.watch.witnesses)
    for source, data in case.evidence.receipts:
        try:
            receipt = decode_receipt(data)
            _, cosigners = verify_receipt(receipt, case.watch, case.quorum)
            case.over_these(receipt.note)
        except AuditError as error:
            raise _from(source, error) from error
        fewest = min(fewest, len(cosigners))
    return f"{counted(len(case.evidence.receipts), 'receipt')} of entries of this log, each seen by {fewest} or more"


def order_of_entries(case: Case) -> str:
    """The log is of one plan, and each entry may follow the one before."""
    if not case.evidence.entries:
        raise AuditError(AuditFault.FORMAT, "the log has no entries")
    charter = case.counts.charter
    if charter is not None and not charter.plan_digest.startswith(case.evidence.plan):
        raise AuditError(AuditFault.PLAN, "the log is of another plan than its place says", index=0)
    case.judged(AuditFault.FORMAT, AuditFault.PLAN, AuditFault.ROUND)
    closed, attempts = len(case.counts.closed), len(case.counts.opened)
    opened = case.replay.history.opened
    more = "" if opened is None else f", round {opened[1].round} is open"
    return f"{counted(closed, 'round')} closed of {case.plan.rounds.count}, in {counted(attempts, 'attempt')}{more}"


def model_chain(case: Case) -> str:
    """Each round trained from the model that the one before led to."""
    case.judged(AuditFault.MODEL)
    history = case.replay.history
    if history.model_digest is None or history.first_model is None:
        raise NotMade("no round is closed")
    first, last = history.first_model[:SHOWN_DIGITS], history.model_digest[:SHOWN_DIGITS]
    return f"unbroken from {first} to {last}, over {counted(len(case.counts.closed), 'round')}"


def models_sent(case: Case) -> str:
    """The models that the owner was sent are those of the log."""
    sent = case.own.sent
    if not sent:
        raise NotMade("you sent no update")
    for (number, attempt), digest in sorted(sent.items()):
        if (number, attempt) not in case.counts.opened:
            case.judged()
            raise AuditError(AuditFault.MODEL, f"you trained in round {number}.{attempt}, which the log does not hold")
        index, opened = case.counts.opened[number, attempt]
        if opened.model_digest != digest:
            raise AuditError(
                AuditFault.MODEL, f"you were sent another model in round {number}.{attempt} than the log's", index=index
            )
    return f"{counted(len(sent), 'model')} that you trained from, each the log's"


def epsilon(case: Case) -> str:
    """What the log says was spent is what its rounds come to."""
    case.judged(AuditFault.EPSILON)
    plan = case.plan
    if not plan.private and not plan.client_private:
        raise NotMade("the plan has no privacy to account for")
    if case.replay.history.closed is None:
        raise NotMade("no round is closed")
    last = case.replay.history.closed[1]
    accounts = [(unit, account) for unit, account in (("example", last.example), ("client", last.client)) if account]
    said = "; ".join(f"one {unit}: {told_account(account)}" for unit, account in accounts)
    rounds = counted(len(case.counts.closed), "round")
    by_prv = plan.private and plan.privacy.epsilon is not None and plan.privacy.accountant == "prv"
    ceiling = f"; the plan's {plan.privacy.epsilon:g} is by PRV, which is tighter" if by_prv else ""
    return f"by RDP, of the client asked most often, recomputed for {rounds}: {said}{ceiling}"


def approvals(case: Case) -> str:
    """Nobody was asked that had not approved the plan."""
    case.judged(AuditFault.APPROVAL)
    withdrawn = len(case.replay.history.withdrawn)
    gone = f", {withdrawn} withdrew" if withdrawn else ""
    return f"{counted(len(case.counts.approvals), 'owner')} approved{gone}; nobody else was asked"


def cohorts(case: Case) -> str:
    """Nobody was asked, grouped or summed among fewer than the plan says."""
    case.judged(AuditFault.COHORT, AuditFault.GROUPS)
    if not case.counts.cohorts:
        raise NotMade("no round was opened")
    smallest = f"the smallest cohort had {counted(min(case.counts.cohorts), 'client')}"
    if not case.plan.secure:
        return f"{smallest}; the server saw each update"
    sums = f", the smallest sum {min(case.counts.sums)}" if case.counts.sums else ""
    return f"{smallest}{sums}; groups as the coins draw them"


def enrolled_keys(case: Case) -> str:
    """Only keys that the federation enrolled signed anything."""
    case.judged(AuditFault.ENROLMENT, AuditFault.SIGNATURE)
    members = len(case.watch.witnesses)
    updates = sum(len(each) for each in case.replay.history.contributions.values())
    return f"{counted(members, 'member')} enrolled; {counted(updates, 'update')} signed, each by its owner"


def contributions(case: Case) -> str:
    """Every update in a round was sent by its owner, once, and withdrawals name the rounds they are in."""
    case.judged(AuditFault.CONTRIBUTION)
    rounds = case.replay.history.survived.values()
    return f"{counted(sum(len(each) for each in rounds), 'update')} in rounds, each signed for"


def my_part(case: Case) -> str:
    """What the log has in the owner's name is what the owner signed, with a ledger that it still has."""
    own, history = case.own, case.replay.history
    if own.broken:
        raise AuditError(AuditFault.STORAGE, own.broken)
    if own.client in history.approved | history.withdrawn and not own.decided:
        raise AuditError(
            AuditFault.APPROVAL, f"the log has a decision of {own.client} on this plan, and your ledger has none"
        )
    mine = history.contributions.get(own.client, ())
    lost = 0
    for index, statement in mine:
        if statement not in own.signed:
            raise AuditError(AuditFault.CONTRIBUTION, "an update in your name that you did not sign for", index=index)
        if own.ledger is not None and statement.ledger not in own.ledger:
            if not own.adopted:
                raise AuditError(
                    AuditFault.CONTRIBUTION,
                    "you signed this with an entry of the ledger that is not there: an old copy was put back",
                    index=index,
                )
            lost += 1
    if not mine:
        raise NotMade(f"the log has no update of {own.client}")
    rounds = len(history.survived.get(own.client, ()))
    gone = f"; {lost} with an entry of the ledger from before you adopted it" if lost else ""
    return f"{counted(len(mine), 'update')} of {own.client}, each signed by you; {rounds} in closed rounds{gone}"


def witness_goes_on(case: Case) -> str:
    """The owner's own witness has not stopped."""
    if case.own.halted:
        raise AuditError(AuditFault.HALTED, case.own.halted)
    return "your witness has found nothing wrong"


CHECKS: Final[tuple[tuple[str, Callable[[Case], str]], ...]] = (
    ("signature and quorum", signature_and_quorum),
    ("earlier checkpoints", kept_checkpoint),
    ("receipts", receipts),
    ("order of entries", order_of_entries),
    ("chain of models", model_chain),
    ("models sent to me", models_sent),
    ("epsilon", epsilon),
    ("approvals", approvals),
    ("smallest cohorts", cohorts),
    ("enrolled keys", enrolled_keys),
    ("contributions", contributions),
    ("my part", my_part),
    ("my witness", witness_goes_on),
)
OF_AN_OWNER: Final = frozenset({models_sent, my_part, witness_goes_on})
"""Those that need what an owner knows."""


def _from(source: str, error: AuditError) -> AuditError:
    """The same fault, with where it was found."""
    return AuditError(error.fault, error.problem, index=error.index, where=source, remedy=error.remedy)
