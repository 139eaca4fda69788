"""The entries of a log in words, a line each, for a person. Judges nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from testudo_common.audit.entries import (
    Account,
    AnyEntry,
    Charter,
    Enrolment,
    Evaluation,
    GroupsDrawn,
    Incident,
    LeakageDrill,
    ModelReleased,
    OwnerWithdrawn,
    PlanApproved,
    RoundClosed,
    RoundOpened,
    UpdateReceived,
    UpdatesRejected,
)

SHOWN_DIGITS: Final = 16
_FEW: Final = 3


def told(entry: AnyEntry) -> str:
    """What an entry says, without its time and type; one line, whatever it holds."""
    return printable(_told(entry))


def printable(text: str) -> str:
    """The same text, in which nothing can move the cursor, break the line or change a colour."""
    return "".join(character if character.isprintable() else "?" for character in text)


def told_account(account: Account) -> str:
    """An account: its epsilon, and what led to it."""
    epsilon = "no bound" if account.epsilon is None else f"epsilon {account.epsilon:.4g}"
    steps = sum(count for _, _, count in account.events)
    return f"{epsilon} at delta {account.delta:g} after {counted(steps, 'step')}"


def counted(count: int, one: str, more: str = "") -> str:
    """``1 round``, ``2 rounds``; the plural is ``more`` where an s does not make it."""
    return f"{count} {one}" if count == 1 else f"{count} {more or one + 's'}"


def _told(entry: AnyEntry) -> str:
    match entry:
        case Charter():
            place = f"plan {entry.plan.get('name', '')} {entry.plan_digest[:SHOWN_DIGITS]} of {entry.federation}"
            said = f"{place}; {entry.quorum} witnesses have to cosign; code {entry.code[:SHOWN_DIGITS]}"
        case Enrolment():
            members = entry.roster.get("members")
            said = f"{counted(len(members) if isinstance(members, dict) else 0, 'member')} of the federation"
        case PlanApproved(statement=decided):
            said = f"{decided.client} approves the plan (decision {decided.number})"
        case OwnerWithdrawn(statement=decided):
            taken = ", ".join(map(str, entry.rounds)) or "none"
            said = f"{decided.client} takes no further part (decision {decided.number}); updates in rounds: {taken}"
        case Evaluation():
            said = f"round {entry.round}: {_scores(entry)}"
        case LeakageDrill():
            said = f"{'passed' if entry.passed else 'FAILED'}; report {entry.report[:SHOWN_DIGITS]}"
        case ModelReleased():
            said = f"model {entry.model_digest[:SHOWN_DIGITS]} after round {entry.round} to {entry.to}"
        case Incident():
            place = "" if entry.round is None else f" in round {entry.round}"
            said = f"{entry.kind.value}{place}: {entry.note}".removesuffix(": ")
        case _:
            said = _told_of_round(entry)
    return said


def _told_of_round(
    entry: RoundOpened | GroupsDrawn | UpdateReceived | UpdatesRejected | RoundClosed,
) -> str:
    if isinstance(entry, UpdateReceived):
        said = entry.statement
        return f"round {said.round}.{said.attempt}: of {said.client}, commitment {said.commitment[:SHOWN_DIGITS]}"
    place = f"round {entry.round}.{entry.attempt}: "
    match entry:
        case RoundOpened():
            clip = "" if entry.clip is None else f"; clipped to {entry.clip:g}"
            barred = f"; {len(entry.barred)} barred" if entry.barred else ""
            asked = f"{counted(len(entry.cohort), 'client')} asked"
            return f"{place}from model {entry.model_digest[:SHOWN_DIGITS]}, {asked}{barred}{clip}"
        case GroupsDrawn():
            sizes = ", ".join(str(len(group)) for group in entry.groups)
            return f"{place}{counted(len(entry.groups), 'group')} of {sizes}; coin {entry.coin[:SHOWN_DIGITS]}"
        case UpdatesRejected():
            reasons = Counter(reason.value for reason in entry.clients.values())
            why = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
            groups = f"; {counted(len(entry.groups), 'group')} not opened" if entry.groups else ""
            return f"{place}{counted(len(entry.clients), 'client')} not in it{': ' if why else ''}{why}{groups}"
        case RoundClosed():
            clients = sum(len(group) for group in entry.survivors)
            sums = f"{counted(clients, 'update')} in {counted(len(entry.survivors), 'row')} by {' + '.join(entry.rule)}"
            accounts = [(name, account) for name, account in (("example", entry.example), ("client", entry.client))]
            spent = "".join(f"; one {name}: {told_account(account)}" for name, account in accounts if account)
            return f"{place}model {entry.model_digest[:SHOWN_DIGITS]}, {sums}{spent}"


def _scores(entry: Evaluation) -> str:
    before, after = entry.metrics.get("before", {}), entry.metrics.get("after", {})
    names: Sequence[str] = sorted(set(before) & set(after))
    shown = [f"{name} {before[name]:.4g} -> {after[name]:.4g}" for name in names[:_FEW]]
    more = f", and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return f"before and after adaptation: {', '.join(shown)}{more}" if shown else "no scores"
