"""A plan's section on robust aggregation, and whether what it assumes can be outvoted at all."""

from __future__ import annotations

from testudo_common.errors import PlannerError
from testudo_common.plan.sections import RobustAggregationPlan, RoundsPlan, SecureAggregationPlan
from testudo_common.robustness.names import least_rows
from testudo_common.robustness.planner import RECOMMENDED, Wish, choose
from testudo_common.robustness.shares import count_of_share
from testudo_common.robustness.tails import groups_of
from testudo_common.robustness.withstand import bad_rows


def rule_of(robust: RobustAggregationPlan) -> tuple[str, ...]:
    """What makes one update of many: as the plan states it, or as recommended where it does not."""
    if robust.rule is not None:
        return robust.rule
    if robust.corruption == 0:
        return ("mean",)
    return RECOMMENDED


def rows_of(secure: SecureAggregationPlan, cohort: int) -> int:
    """How many rows a cohort gives the rule: groups, or clients under plain aggregation."""
    return len(groups_of(cohort, secure.group_size)) if secure.mode == "secure" else cohort


def bad_rows_of(
    robust: RobustAggregationPlan, secure: SecureAggregationPlan, *, clients: int, cohort: int, caught: int = 0
) -> int:
    """f: how many of those rows the plan reckons to be bad.

    Args:
        robust: The plan's section.
        secure: The plan's section.
        clients: N, in the federation.
        cohort: Clients asked in this round, of those that were not caught.
        caught: Poisoned clients that are not asked any more.
    """
    group_size = secure.group_size if secure.mode == "secure" else 1
    return bad_rows(clients, cohort, robust.corruption, group_size, robust.max_failure, caught=caught)


def rows_needed(robust: RobustAggregationPlan, names: tuple[str, ...], f: int) -> int:
    """The fewest rows with which a whole rule withstands ``f`` bad ones; buckets leave fewer of them."""
    rows = least_rows(names[-1], f)
    return (rows - 1) * robust.bucket_size + 1 if "bucketing" in names else rows


def check_withstood(
    robust: RobustAggregationPlan,
    secure: SecureAggregationPlan,
    rounds: RoundsPlan,
    *,
    clients: int,
) -> None:
    """Check that a full round has enough rows to outvote those that may be bad.

    Raises:
        PlannerError: It has not; the remedy says which of the plan's numbers to move, and to what.
    """
    if robust.corruption == 0:
        return
    cohort = min(rounds.cohort_size, clients)
    f, count = bad_rows_of(robust, secure, clients=clients, cohort=cohort), rows_of(secure, cohort)
    names = rule_of(robust)
    needed = rows_needed(robust, names, f)
    if count >= needed:
        return
    what = "groups" if secure.mode == "secure" else "updates"
    poisoned = count_of_share(robust.corruption, clients)
    problem = (
        f"with {poisoned} of {clients} clients poisoned, {f} of {count} {what} a round may be bad, and "
        f"{' + '.join(names)} needs {needed} to outvote them"
    )
    choice = choose(  # raises where no group size would do, and says what would
        Wish(
            clients=clients,
            cohort=cohort,
            corruption=robust.corruption,
            dropout=secure.dropout if secure.mode == "secure" else 0.0,
            min_group=secure.min_group if secure.mode == "secure" else 1,
            max_failure=robust.max_failure,
            collusion=secure.corruption if secure.mode == "secure" else 0.0,
        )
    )
    if secure.mode == "secure" and choice.group_size != secure.group_size:
        remedy = f"Write secure_aggregation.group_size = {choice.group_size}"
    else:
        remedy = f"Take another rule, such as {list(choice.rule)}"
    raise PlannerError(problem, where="robust_aggregation.corruption", remedy=remedy)
