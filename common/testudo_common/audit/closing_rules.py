"""What may stand in a log about a finished round. One function a rule; each names what it stops. Knows no index."""

from __future__ import annotations

from typing import NoReturn

from testudo_common.audit.accounts import same_account
from testudo_common.audit.entries import Account, Evaluation, ModelReleased, RoundClosed
from testudo_common.audit.state import History, plan_of
from testudo_common.errors import AuditError, AuditFault


def _fail(fault: AuditFault, problem: str, where: str = "") -> NoReturn:
    raise AuditError(fault, problem, where=where)


def survivors_are_those_grouped(state: History, entry: RoundClosed) -> None:
    """Stops a sum over so few that it hides nobody, and sums whose difference is one client's update.

    Raises:
        AuditError: GROUPS.
    """
    plan = plan_of(state)
    least = plan.secure_aggregation.min_group if plan.secure else 1
    summed: set[int] = set()
    for survivors in entry.survivors:
        places = {state.places.get(client, -1) for client in survivors}
        if len(places) != 1 or -1 in places or len(set(survivors)) != len(survivors):
            _fail(AuditFault.GROUPS, "survivors that are not of one group" if plan.secure else "not one client a row")
        if places & summed:
            _fail(AuditFault.GROUPS, "one group is summed twice" if plan.secure else "one client counts twice")
        summed |= places
        if len(survivors) < least:
            _fail(AuditFault.GROUPS, f"a sum over {len(survivors)}, where {least} are the fewest")


def survivors_sent_updates(state: History, entry: RoundClosed) -> None:
    """Stops a round from being said to hold an owner's update that the owner never signed for, or that was rejected.

    Raises:
        AuditError: CONTRIBUTION.
    """
    for client in _clients_in(entry):
        if client not in state.received:
            _fail(AuditFault.CONTRIBUTION, "it is said to be in the round, and sent no update", client)
        if client in (state.rejected or ()):
            _fail(AuditFault.CONTRIBUTION, "it is said to be in the round, and was rejected", client)


def nobody_asked_is_forgotten(state: History, entry: RoundClosed) -> None:
    """Stops an owner's update from being left out of a round without a word that it is.

    Raises:
        AuditError: CONTRIBUTION.
    """
    assert state.opened is not None  # a rule before this one
    told = {*_clients_in(entry), *(state.rejected or ())}
    for client in state.opened[1].cohort:
        if client not in told:
            _fail(AuditFault.CONTRIBUTION, "it was asked, and is neither in the round nor among the rejected", client)


def enough_replied(state: History, entry: RoundClosed) -> None:
    """Stops a round that so few made that it is theirs alone.

    Raises:
        AuditError: COHORT.
    """
    count, least = len(_clients_in(entry)), plan_of(state).rounds.min_replies
    if count < least:
        _fail(AuditFault.COHORT, f"round {entry.round} closes with {count} updates and needs {least}")


def rule_is_the_plans(state: History, entry: RoundClosed) -> None:
    """Stops a weaker aggregation rule than the one agreed on.

    Raises:
        AuditError: ROUND.
    """
    plan = plan_of(state)
    if entry.rule != plan.robust_rule:
        _fail(AuditFault.ROUND, "another aggregation rule than the plan's")
    if entry.withstood and plan.robust_aggregation.corruption == 0:
        _fail(AuditFault.ROUND, "bad updates are reckoned with, where the plan assumes none")


def accounts_are_as_recomputed(state: History, entry: RoundClosed) -> None:
    """Stops an epsilon that is told smaller than what was spent.

    Raises:
        AuditError: EPSILON.
    """
    expected = state.next_accounts()
    for unit, said, due in zip(("example", "client"), (entry.example, entry.client), expected, strict=True):
        if not same_account(said, due):
            _fail(
                AuditFault.EPSILON,
                f"the account of {'an example' if unit == 'example' else 'a client'} after round {entry.round} says "
                f"{_told(said)}, and comes to {_told(due)}",
            )


def scores_are_of_the_last_round(state: History, entry: Evaluation) -> None:
    """Stops scores of a round that made none, or a second, better set of them.

    Raises:
        AuditError: ROUND.
    """
    if state.closed is None or state.opened is not None or entry.round != state.closed[1].round:
        _fail(AuditFault.ROUND, f"scores of round {entry.round}, which was not the last to close")
    if not plan_of(state).evaluates_in(entry.round):
        _fail(AuditFault.ROUND, f"scores of round {entry.round}, in which the plan asks for none")
    if state.evaluated == entry.round:
        _fail(AuditFault.ROUND, f"scores of round {entry.round} a second time")


def released_is_the_last_model(state: History, entry: ModelReleased) -> None:
    """Stops the release of a model that this log did not lead to.

    Raises:
        AuditError: MODEL.
    """
    if state.closed is None or (entry.round, entry.model_digest) != (state.closed[1].round, state.model_digest):
        _fail(AuditFault.MODEL, f"the model released is not the one after round {entry.round}")


def _clients_in(entry: RoundClosed) -> tuple[str, ...]:
    return tuple(client for group in entry.survivors for client in group)


def _told(account: Account | None) -> str:
    if account is None:
        return "nothing"
    epsilon = "no bound" if account.epsilon is None else f"epsilon {account.epsilon:.6g}"
    return f"{epsilon} at delta {account.delta:g} after {sum(steps for _, _, steps in account.events)} steps"
