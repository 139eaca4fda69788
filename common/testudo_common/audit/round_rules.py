"""What may stand in a log about a round that goes on. One function a rule; each names what it stops. Knows no index.

That it is closed, and what follows, is closing_rules.py's.

Sources: the attacks on secure aggregation by a server that shows clients different models, cohorts or groups: Pasquini,
Francati, Ateniese 2022 (eprint 2021/1637, model inconsistency).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NoReturn

from testudo_common.audit.entries import (
    GroupsDrawn,
    RoundOpened,
    UpdateReceived,
    UpdatesRejected,
)
from testudo_common.audit.state import History, plan_of
from testudo_common.errors import AuditError, AuditFault


def _fail(fault: AuditFault, problem: str, where: str = "") -> NoReturn:
    raise AuditError(fault, problem, where=where)


# Of round_opened.


def opens_the_next_round(state: History, entry: RoundOpened) -> None:
    """Stops rounds that are skipped, run again after they were closed, or more than the plan has.

    Raises:
        AuditError: ROUND.
    """
    expected = 1 if state.closed is None else state.closed[1].round + 1
    if entry.round != expected:
        _fail(AuditFault.ROUND, f"round {entry.round} is opened where round {expected} is next")
    if entry.round > plan_of(state).rounds.count:
        _fail(AuditFault.ROUND, f"round {entry.round} of {plan_of(state).rounds.count}")


def opens_a_new_attempt(state: History, entry: RoundOpened) -> None:
    """Stops one attempt from being made twice, with other members the second time; and more than the plan allows.

    Raises:
        AuditError: ROUND.
    """
    last = state.last_opened
    if last is not None and last.round == entry.round and entry.attempt <= last.attempt:
        _fail(AuditFault.ROUND, f"attempt {entry.attempt} at round {entry.round} after attempt {last.attempt}")
    most = plan_of(state).secure_aggregation.max_attempts
    if plan_of(state).secure and entry.attempt >= most:
        _fail(AuditFault.ROUND, f"attempt {entry.attempt} at round {entry.round}, where {most} are the most")


def cohort_may_be_asked(state: History, entry: RoundOpened) -> None:
    """Stops invented clients, and the use of owners that have not approved or have withdrawn.

    Raises:
        AuditError: COHORT, ENROLMENT or APPROVAL.
    """
    assert state.roster is not None
    for what, names in (("cohort", entry.cohort), ("list of the barred", entry.barred)):
        if any(one >= other for one, other in pairwise(names)):
            _fail(AuditFault.COHORT, f"the {what} is not sorted, or names a client twice")
    barred = set(entry.barred)
    for client in entry.cohort:
        if client not in state.roster.members:
            _fail(AuditFault.ENROLMENT, "it is asked, and not enrolled", client)
        if client in state.withdrawn:
            _fail(AuditFault.APPROVAL, "it is asked, and has withdrawn", client)
        if client not in state.approved:
            _fail(AuditFault.APPROVAL, "it is asked, and has not approved the plan", client)
        if client in barred:
            _fail(AuditFault.COHORT, "it is asked, and barred", client)


def cohort_is_of_the_plans_size(state: History, entry: RoundOpened) -> None:
    """Stops a cohort so small that its sums hide nobody.

    Raises:
        AuditError: COHORT.
    """
    plan, size = plan_of(state), len(entry.cohort)
    least, most = plan.fewest_asked, plan.rounds.cohort_size
    if not least <= size <= most:
        _fail(AuditFault.COHORT, f"a cohort of {size}, where the plan has {least} to {most}")


def nobody_is_asked_too_often(state: History, entry: RoundOpened) -> None:
    """Stops a client from being used up faster than the plan's epsilon was computed for.

    Raises:
        AuditError: COHORT.
    """
    most = plan_of(state).rounds.max_participations
    if most is None:
        return
    for client in entry.cohort:
        if client not in state.in_round and state.asked.get(client, 0) >= most:
            _fail(AuditFault.COHORT, f"it is asked in more than {most} rounds", client)


def trains_from_the_last_model(state: History, entry: RoundOpened) -> None:
    """Stops a model that no round led to, such as one made to give away its trainers' data.

    Raises:
        AuditError: MODEL.
    """
    expected = state.model_digest or state.first_model
    if expected is not None and entry.model_digest != expected:
        _fail(AuditFault.MODEL, f"round {entry.round} does not begin from the model that came before")


def clips_as_the_plan_says(state: History, entry: RoundOpened) -> None:
    """Stops a clipping norm above the plan's, or one that differs from attempt to attempt.

    Raises:
        AuditError: ROUND.
    """
    plan, last = plan_of(state), state.last_opened
    if (entry.clip is not None) != plan.adapts_clip:
        _fail(AuditFault.ROUND, "a clipping norm" + (" is missing" if plan.adapts_clip else " that the plan fixes"))
    if entry.clip is not None and not 0 < entry.clip <= plan.outer.max_update_norm:
        most = plan.outer.max_update_norm
        _fail(AuditFault.ROUND, f"a clipping norm of {entry.clip:g}, where the plan has {most:g} at the most")
    if last is not None and last.round == entry.round and entry.clip != last.clip:
        _fail(AuditFault.ROUND, f"another clipping norm in the same round {entry.round}")


# Of what follows in an attempt.


def is_of_the_open_attempt(state: History, round_number: int, attempt: int) -> None:
    """Stops an entry about a round that is not going on.

    Raises:
        AuditError: ROUND.
    """
    if state.opened is None:
        _fail(AuditFault.ROUND, f"round {round_number} is not open")
    opened = state.opened[1]
    if (opened.round, opened.attempt) != (round_number, attempt):
        _fail(
            AuditFault.ROUND,
            f"of attempt {attempt} at round {round_number}, where attempt {opened.attempt} at round "
            f"{opened.round} is open",
        )


def groups_are_the_coins(state: History, entry: GroupsDrawn) -> None:
    """Stops groups that the server chose, with one honest client among its own.

    Raises:
        AuditError: GROUPS.
    """
    from testudo_common.secagg.groups import partition  # its cryptography is of no use to plans without groups

    if not plan_of(state).secure:
        _fail(AuditFault.GROUPS, "groups, where the plan has none")
    if state.groups is not None:
        _fail(AuditFault.GROUPS, "groups are drawn a second time in one attempt")
    members, known = _flat(entry.groups), _cohort(state)
    for client in members:
        if client not in known:
            _fail(AuditFault.GROUPS, "it is in a group, and not in the cohort", client)
    if len(set(members)) != len(members):
        _fail(AuditFault.GROUPS, "a client is in two groups")
    size = plan_of(state).secure_aggregation.group_size
    if entry.groups != partition(bytes.fromhex(entry.coin), members, size):
        _fail(AuditFault.GROUPS, "the groups are not those that the coin draws")


def enough_are_grouped(state: History, entry: GroupsDrawn) -> None:
    """Stops a cohort from melting away until one honest client is alone among the server's friends.

    Raises:
        AuditError: COHORT.
    """
    plan, members = plan_of(state), len(_flat(entry.groups))
    least = plan.secure_aggregation.fewest_grouped(plan.rounds.cohort_size)
    if members < least:
        _fail(AuditFault.COHORT, f"{members} clients are grouped, where {least} are the fewest")


def update_was_asked_for(state: History, entry: UpdateReceived) -> None:
    """Stops updates of clients that were not asked, or were asked once and count twice.

    Raises:
        AuditError: CONTRIBUTION.
    """
    client = entry.statement.client
    if client not in state.places:
        what = "is in no group" if plan_of(state).secure else "was not asked"
        _fail(AuditFault.CONTRIBUTION, f"an update of a client that {what}", client)
    if client in state.received:
        _fail(AuditFault.CONTRIBUTION, "a second update in one attempt", client)


def rejected_were_asked(state: History, entry: UpdatesRejected) -> None:
    """Stops rejections of clients that were not there, and a second list of them.

    Raises:
        AuditError: ROUND or COHORT.
    """
    if state.rejected is not None:
        _fail(AuditFault.ROUND, "a second list of rejected updates in one attempt")
    known = _cohort(state)
    for client in entry.clients:
        if client not in known:
            _fail(AuditFault.COHORT, "it is rejected, and was not asked", client)


def rejected_groups_were_drawn(state: History, entry: UpdatesRejected) -> None:
    """Stops rejections of groups that were not there.

    Raises:
        AuditError: GROUPS.
    """
    drawn = {frozenset(group) for group in (state.groups[1].groups if state.groups else ())}
    rejected = [frozenset(group.members) for group in entry.groups]
    if len(set(rejected)) != len(rejected) or not drawn.issuperset(rejected):
        _fail(AuditFault.GROUPS, "a group is rejected that was not drawn, or twice")


def _cohort(state: History) -> frozenset[str]:
    """Of the attempt that is open."""
    return frozenset(() if state.opened is None else state.opened[1].cohort)


def _flat(groups: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(client for group in groups for client in group)
