"""A plan's section on secure aggregation in the protocol's own terms. Knows no roster, no round and no metric."""

from __future__ import annotations

from testudo_common.plan.sections import RoundsPlan, SecureAggregationPlan
from testudo_common.secagg.groups import largest_group
from testudo_common.secagg.quantize import Layout, value_bits_for
from testudo_common.secagg.terms import Parameters


def parameters_for(
    secure: SecureAggregationPlan, rounds: RoundsPlan, *, max_norm: float, values: int, count_bounds: tuple[int, ...]
) -> Parameters:
    """The numbers of the protocol that a plan fixes.

    Args:
        secure: The plan's section.
        rounds: The plan's section; a group has no more members than a cohort.
        max_norm: S, of one update.
        values: d.
        count_bounds: The largest value of each count that a client adds; empty in a round without counts.
    """
    members = largest_group(rounds.cohort_size, secure.group_size)
    bits = secure.value_bits or value_bits_for(members, secure.max_weight)
    return Parameters(
        group_size=secure.group_size,
        min_cohort=secure.min_cohort or max(secure.min_group, -(-rounds.cohort_size // 2)),
        min_group=secure.min_group,
        corruption=secure.corruption,
        dropout=secure.dropout,
        max_left_out=secure.max_left_out,
        layout=Layout(values, max_norm, bits, secure.max_weight, count_bounds),
    )
