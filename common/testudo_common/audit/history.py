"""The replay of a log: a fold of its entries into what they establish, by the rules. Reads no file, verifies no note.

    history = begin_history(federation_key, plan.digest)
    history = extend(history, entries)      # AuditError names the first entry that breaks a rule

Whoever follows a log runs this on every entry: each owner before it cosigns, the server before it goes on, and whoever
reads an exported log.
"""

from __future__ import annotations

from functools import lru_cache

from testudo_common.audit import price_rules, round_rules, rules
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

__all__ = ["History", "begin_history", "extend"]


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
        index = grown.size
        try:
            _take(grown, index, decode_entry(data))
        except AuditError as error:
            raise AuditError(error.fault, error.problem, index=index, where=error.where, remedy=error.remedy) from error
        grown.frontier.append(leaf_hash(data))
        grown.size += 1
    grown.root = grown.frontier.root()
    return grown


def _take(state: History, index: int, entry: AnyEntry) -> None:
    """One entry, checked, into ``state``."""
    rules.begins_with_charter_and_enrolment(state, entry)
    match entry:
        case Charter():
            _charter(state, entry)
        case Enrolment():
            _enrolment(state, entry)
        case PlanApproved() | OwnerWithdrawn():
            _decision(state, entry)
        case RoundOpened():
            _opened(state, index, entry)
        case GroupsDrawn():
            opened = round_rules.is_of_the_open_attempt(state, entry.round, entry.attempt)
            round_rules.groups_are_the_coins(state, opened, entry)
            round_rules.enough_are_grouped(state, entry)
            state.groups = index, entry
            state.places = {client: place for place, group in enumerate(entry.groups) for client in group}
        case UpdateReceived():
            _received(state, index, entry)
        case UpdatesRejected():
            opened = round_rules.is_of_the_open_attempt(state, entry.round, entry.attempt)
            round_rules.rejected_were_asked(state, opened, entry)
            round_rules.rejected_groups_were_drawn(state, entry)
            state.rejected = frozenset(entry.clients)
        case RoundClosed():
            _closed(state, index, entry)
        case Evaluation():
            round_rules.scores_are_of_the_last_round(state, entry)
            state.evaluated = entry.round
        case ModelReleased():
            round_rules.released_is_the_last_model(state, entry)
            state.released += (index,)
        case _:
            pass  # drills and incidents may stand anywhere


def _charter(state: History, entry: Charter) -> None:
    plan = rules.plan_is_the_one_approved(state, entry)
    rules.window_is_the_plans(plan, entry)
    price_rules.example_price_is_the_plans(plan, entry)
    price_rules.client_price_is_the_plans(plan, entry)
    state.charter, state.plan = entry, plan


def _enrolment(state: History, entry: Enrolment) -> None:
    assert state.charter is not None and state.plan is not None
    roster = rules.roster_is_the_federations(state, entry)
    rules.roster_is_of_this_log(state, roster)
    quorum = rules.quorum_of(state, state.plan, roster)
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


def _opened(state: History, index: int, entry: RoundOpened) -> None:
    round_rules.opens_the_next_round(state, entry)
    round_rules.opens_a_new_attempt(state, entry)
    round_rules.cohort_may_be_asked(state, entry)
    round_rules.cohort_is_of_the_plans_size(state, entry)
    round_rules.nobody_is_asked_too_often(state, entry)
    round_rules.trains_from_the_last_model(state, entry)
    round_rules.clips_as_the_plan_says(state, entry)
    assert state.plan is not None
    for client in entry.cohort:
        if client not in state.in_round:
            state.asked[client] = state.asked.get(client, 0) + 1
        state.trained[client] = trained = state.trained.get(client, 0) + 1
        state.most_trained = max(state.most_trained, trained)
        if state.plan.evaluates_in(entry.round):
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


def _closed(state: History, index: int, entry: RoundClosed) -> None:
    round_rules.is_of_the_open_attempt(state, entry.round, entry.attempt)
    round_rules.survivors_are_those_grouped(state, entry)
    round_rules.survivors_sent_updates(state, entry)
    round_rules.enough_replied(state, entry)
    round_rules.rule_is_the_plans(state, entry)
    round_rules.accounts_are_as_recomputed(state, entry)
    for survivors in entry.survivors:
        for client in survivors:
            state.survived[client] = (*state.survived.get(client, ()), entry.round)
    state.closed, state.model_digest = (index, entry), entry.model_digest
    state.opened = state.groups = state.rejected = None
    state.received, state.places, state.in_round = {}, {}, frozenset()
