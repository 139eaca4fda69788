"""A run small enough for a test, as settings of the command line; what two runs may differ by. No tests in here."""

from __future__ import annotations

from testudo_common.plan import FederationPlan
from testudo_common.plan.secure import parameters_for

SMALL_SINE = [
    "data.clients=12",
    "data.unseen_clients=3",
    "rounds.count=6",
    "rounds.cohort_size=4",
    "model.hidden=[8]",
    "evaluation.every_rounds=2",
]


def settings(lines: list[str]) -> list[str]:
    """``--set`` before each."""
    return [part for line in lines for part in ("--set", line)]


def rounding_of(plan: FederationPlan) -> float:
    """How far a coordinate of two models may be apart for the rounding of secure aggregation alone.

    Updates are rounded to whole numbers at random: a mean is off by less than one step of a coordinate, in each round.
    Steps of the outer loop shrink linearly to 0, so that all errors together are half of this; the other half is for
    what training makes of them.
    """
    assert plan.outer.anneal
    parameters = parameters_for(
        plan.secure_aggregation, plan.rounds, max_norm=plan.outer.max_update_norm, values=1, count_bounds=()
    )
    return plan.rounds.count * plan.outer.step_size / parameters.layout.scale
