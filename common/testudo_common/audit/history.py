"""The replay of a log: a fold of its entries into what they establish, by the rules. Reads no file, verifies no note.

    history = begin_history(federation_key, plan.digest)
    history = extend(history, entries)      # AuditError names the first entry that breaks a rule

Whoever follows a log runs this on every entry: each owner before it cosigns, and the server before it goes on. Whoever
reads an exported log wants to know of all that is wrong with it, and runs :func:`replay`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from testudo_common.audit import closing_rules, price_rules, round_rules, rules
from testudo_common.audit.checkpoints import watch_of
from testudo_common.audit.entries import (
    AnyEntry,
    Charter,
    Enrolment,
    Evaluation,
    GroupsDrawn,
    ModelReleased,
    OwnerWithdrawn,
    PlanApproved,
    RoundClosed,
    RoundOpened,
    UpdateReceived,
    UpdatesRejected,
    decode_entry,
)
from testudo_common.audit.merkle import leaf_hash
from testudo_common.audit.state import History
from testudo_common.errors import AuditError
from testudo_common.roster import Roster

__all__ = ["History", "Replay", "begin_history", "extend", "replay"]

Rule = Callable[[History, Any], None]
Judge = Callable[[Rule, History, Any], None]
"""Applies a rule, whose breach does not keep the entry from meaning what it says."""

_OF_CHARTER: Final[tuple[Rule, ...]] = (
    rules.window_is_the_plans,
    price_rules.example_price_is_the_plans,
    price_rules.client_price_is_the_plans,
)
_OF_OPENING: Final[tuple[Rule, ...]] = (
    round_rules.cohort_may_be_asked,
    round_rules.cohort_is_of_the_plans_size,
    round_rules.nobody_is_asked_too_often,
    round_rules.trains_from_the_last_model,
    round_rules.clips_as_the_plan_says,
)
_OF_GROUPS: Final[tuple[Rule, ...]] = (round_rules.groups_are_the_coins, round_rules.enough_are_grouped)
_OF_CLOSING: Final[tuple[Rule, ...]] = (
    closing_rules.survivors_are_those_grouped,
    closing_rules.survivors_sent_updates,
    closing_rules.enough_replied,
    closing_rules.rule_is_the_plans,
    closing_rules.accounts_are_as_recomputed,
    closing_rules.nobody_asked_is_forgotten,
)


def begin_history(federation_key: bytes, plan_digest: str) -> History:
    """The history of a log without entries.

    Args:
        federation_key: Ed25519, 32 bytes, as pinned.
        plan_digest: SHA-256, hex: of the plan that the log must be of.
    """
    return History(federation_key, plan_digest)


@lru_cache(maxsize=64)
def extend(history: History, entries: tuple[bytes, ...]) -> History:
    """The history with further entries. Remembered, since in a simulation every client reads the same ones.

    Args:
        history: Stays as it is.
        entries: In canonical form.

    Raises:
        AuditError: An entry breaks a rule; with its index.
    """
    grown = history.to_be_extended()
    for data in entries:
        try:
            _take(grown, decode_entry(data), _apply)
        except AuditError as error:
            raise _at(grown.size, error) from error
        _count(grown, data)
    grown.root = grown.frontier.root()
    return grown


@dataclass(frozen=True, slots=True)
class Replay:
    """What a whole log establishes, and what is wrong with it.

    Attributes:
        history: Of all entries that could be replayed.
        faults: The first breach of each kind, with its entry's index; in the order of the entries.
        stopped: Index of an entry after which nothing can be known, since it is unreadable or out of turn; None: none.
    """

    history: History
    faults: tuple[AuditError, ...]
    stopped: int | None


_LATER_ONES_STAND: Final = (
    PlanApproved, OwnerWithdrawn, UpdateReceived, UpdatesRejected, Evaluation, ModelReleased,
)  # fmt: skip
"""Without one of these, the entries that follow can still be judged; they may then lack what it said."""


def replay(history: History, entries: Iterable[bytes], observe: Callable[[int, AnyEntry], None]) -> Replay:
    """All that is wrong with a log, as far as it can be known after its first fault.

    Args:
        history: Before the first of the entries.
        entries: In canonical form.
        observe: Told of each entry that can be read, and of its index, before it is judged.
    """
    grown, faults, stopped = history.to_be_extended(), dict[str, AuditError](), None

    def note(error: AuditError) -> None:
        faults.setdefault(error.fault, _at(grown.size, error))

    def judge(rule: Rule, state: History, entry: Any) -> None:
        try:
            rule(state, entry)
        except AuditError as error:
            note(error)

    for data in entries:
        entry = None
        try:
            entry = decode_entry(data)
            observe(grown.size, entry)
            _take(grown, entry, judge)
        except AuditError as error:
            note(error)
            if not isinstance(entry, _LATER_ONES_STAND):
                stopped = grown.size
                break
        _count(grown, data)
    grown.root = grown.frontier.root()
    return Replay(grown, tuple(faults.values()), stopped)


def _apply(rule: Rule, state: History, entry: Any) -> None:
    rule(state, entry)


def _count(state: History, data: bytes) -> None:
    state.frontier.append(leaf_hash(data))
    state.size += 1


def _at(index: int, error: AuditError) -> AuditError:
    return AuditError(error.fault, error.problem, index=index, where=error.where, remedy=error.remedy)


def _take(state: History, entry: AnyEntry, judge: Judge) -> None:
    """One entry, checked, into ``state``.

    Raises:
        AuditError: It breaks a rule without which it means nothing.
    """
    index = state.size
    rules.begins_with_charter_and_enrolment(state, entry)
    match entry:
        case Charter():
            _charter(state, entry, judge)
        case Enrolment():
            _enrolment(state, entry)
        case PlanApproved() | OwnerWithdrawn():
            _decision(state, entry)
        case RoundOpened():
            _opened(state, index, entry, judge)
        case GroupsDrawn():
            round_rules.is_of_the_open_attempt(state, entry.round, entry.attempt)
            for rule in _OF_GROUPS:
                judge(rule, state, entry)
            state.groups = index, entry
            state.places = {client: place for place, group in enumerate(entry.groups) for client in group}
        case UpdateReceived():
            _received(state, index, entry)
        case UpdatesRejected():
            round_rules.is_of_the_open_attempt(state, entry.round, entry.attempt)
            round_rules.rejected_were_asked(state, entry)
            round_rules.rejected_groups_were_drawn(state, entry)
            state.rejected = frozenset(entry.clients)
        case RoundClosed():
            _closed(state, index, entry, judge)
        case Evaluation():
            closing_rules.scores_are_of_the_last_round(state, entry)
            state.evaluated = entry.round
        case ModelReleased():
            closing_rules.released_is_the_last_model(state, entry)
            state.released += (index,)
        case _:
            pass  # drills and incidents may stand anywhere


def _charter(state: History, entry: Charter, judge: Judge) -> None:
    state.plan = rules.plan_is_the_one_approved(state, entry)
    state.charter = entry
    for rule in _OF_CHARTER:
        judge(rule, state, entry)


def _enrolment(state: History, entry: Enrolment) -> None:
    assert state.charter is not None
    roster = rules.roster_is_the_federations(state, entry)
    rules.roster_is_of_this_log(state, roster)
    quorum = rules.quorum_of(state, roster)
    state.watch = watch_of(roster, state.plan_digest)
    state.roster, state.quorum, state.window = roster, quorum, state.charter.window
    _recount_decisions(state, roster)


def _recount_decisions(state: History, roster: Roster) -> None:
    """What is decided was decided with a key; under another one, the owner has to decide again."""
    last = {
        client: state.last_decision[client, key]
        for client, key in roster.members.items()
        if (client, key) in state.last_decision
    }
    state.decisions = {client: number for client, (number, _) in last.items()}
    state.approved = {client for client, (_, approves) in last.items() if approves} - state.withdrawn


def _decision(state: History, entry: PlanApproved | OwnerWithdrawn) -> None:
    statement, approves = entry.statement, isinstance(entry, PlanApproved)
    rules.is_signed(state, statement)
    rules.is_a_later_decision(state, entry)
    if isinstance(entry, OwnerWithdrawn):
        rules.names_the_rounds_it_is_in(state, entry)
    assert state.roster is not None
    client = statement.client
    state.last_decision[client, state.roster.members[client]] = statement.number, approves
    state.decisions[client] = statement.number
    to, fro = (state.approved, state.withdrawn) if approves else (state.withdrawn, state.approved)
    to.add(client)
    fro.discard(client)


def _opened(state: History, index: int, entry: RoundOpened, judge: Judge) -> None:
    round_rules.opens_the_next_round(state, entry)
    round_rules.opens_a_new_attempt(state, entry)
    for rule in _OF_OPENING:
        judge(rule, state, entry)
    assert state.plan is not None
    for client in entry.cohort:
        if client not in state.in_round:
            state.asked[client] = state.asked.get(client, 0) + 1
        state.trained[client] = trained = state.trained.get(client, 0) + 1
        state.most_trained = max(state.most_trained, trained)
        if state.plan.scores_in(entry.round):
            state.scored[client] = scored = state.scored.get(client, 0) + 1
            state.most_scored = max(state.most_scored, scored)
    state.in_round |= set(entry.cohort)
    state.opened, state.last_opened = (index, entry), entry
    state.first_model = state.first_model or entry.model_digest
    state.groups = state.rejected = None
    state.places = {} if state.plan.secure else {client: place for place, client in enumerate(entry.cohort)}
    state.received = {}


def _received(state: History, index: int, entry: UpdateReceived) -> None:
    statement = entry.statement
    round_rules.is_of_the_open_attempt(state, statement.round, statement.attempt)
    round_rules.update_was_asked_for(state, entry)
    rules.is_signed(state, statement)
    state.received[statement.client] = index
    state.contributions[statement.client] = (*state.contributions.get(statement.client, ()), (index, statement))


def _closed(state: History, index: int, entry: RoundClosed, judge: Judge) -> None:
    round_rules.is_of_the_open_attempt(state, entry.round, entry.attempt)
    for rule in _OF_CLOSING:
        judge(rule, state, entry)
    for survivors in entry.survivors:
        for client in survivors:
            state.survived[client] = (*state.survived.get(client, ()), entry.round)
    state.closed, state.model_digest = (index, entry), entry.model_digest
    state.opened = state.groups = state.rejected = None
    state.received, state.places, state.in_round = {}, {}, frozenset()
