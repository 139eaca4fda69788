"""What clients and server each make of plan, roster and request: the terms of one attempt at secure aggregation.

Both sides call the same function on what they themselves hold, never on what the other one says about it.
"""

from __future__ import annotations

from dataclasses import dataclass

from testudo_common.learning.metric_counts import MetricCounts
from testudo_common.plan import FederationPlan
from testudo_common.plan.secure import parameters_for
from testudo_common.roster import Roster
from testudo_common.secagg.terms import Terms


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which attempt at which round of which plan, from which model.

    Attributes:
        plan_digest: SHA-256 of the plan, hex.
        round: 1 and up.
        attempt: 0 and up.
        model_digest: SHA-256 of the model, hex.
    """

    plan_digest: str
    round: int
    attempt: int
    model_digest: str


def metric_counts_of(plan: FederationPlan) -> MetricCounts:
    """How the metric sums of a plan travel; two vectors of them a client, before and after adaptation."""
    assert plan.model.outputs is not None  # a complete plan states it
    return MetricCounts(plan.task.kind, plan.model.outputs, plan.rounds.cohort_size)


def terms_of(plan: FederationPlan, roster: Roster, attempt: Attempt, size: int) -> Terms:
    """The terms of an attempt.

    Args:
        plan: Complete; the one that the attempt names.
        roster: As pinned here.
        attempt: The attempt.
        size: d, shared parameters.

    Raises:
        ProtocolError: The plan's numbers do not fit together.
    """
    bounds: tuple[int, ...] = ()
    if plan.evaluates_in(attempt.round):
        one = tuple(int(bound) for bound in metric_counts_of(plan).bounds)
        bounds = one + one
    parameters = parameters_for(
        plan.secure_aggregation,
        plan.rounds,
        max_norm=plan.outer.max_update_norm,
        values=size,
        count_bounds=bounds,
    )
    parameters.check(plan.rounds.cohort_size)
    return Terms(
        federation=roster.federation,
        roster_digest=roster.digest,
        roster=roster.members,
        plan_digest=bytes.fromhex(attempt.plan_digest),
        round_number=attempt.round,
        attempt=attempt.attempt,
        model_digest=bytes.fromhex(attempt.model_digest),
        parameters=parameters,
    )
