"""A plan's section on secure aggregation in the protocol's own terms. Knows no roster, no round and no metric."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from testudo_common.plan.sections import RoundsPlan, SecureAggregationPlan
from testudo_common.secagg.groups import largest_group
from testudo_common.secagg.noise import LEAST_DEVIATION, MOST_DEVIATION, SumNoise
from testudo_common.secagg.quantize import Layout, value_bits_for
from testudo_common.secagg.terms import Parameters

_NOISY_VALUE_BITS = 16  # a step is far below any useful noise, and noise of so many steps is cheap to draw
_FEWEST_BITS = 2


@dataclass(frozen=True, slots=True)
class WantedNoise:
    """Noise that an opened sum must carry from honest survivors alone.

    Attributes:
        multiplier: Standard deviation on the updates, over what one client changes in them; 0 for none.
        counts: Standard deviation of each count, in its own unit; 0 for none.
    """

    multiplier: float
    counts: tuple[float, ...] = ()


def parameters_for(
    secure: SecureAggregationPlan,
    rounds: RoundsPlan,
    *,
    max_norm: float,
    values: int,
    count_bounds: tuple[int, ...],
    noise: WantedNoise | None = None,
) -> Parameters:
    """The numbers of the protocol that a plan fixes.

    Args:
        secure: The plan's section.
        rounds: The plan's section; a group has no more members than a cohort.
        max_norm: S, of one update.
        values: d.
        count_bounds: The largest value of each count that a client adds; empty in a round without counts.
        noise: What sums carry; None for none.
    """
    members = largest_group(rounds.cohort_size, secure.group_size)
    bits = secure.value_bits or value_bits_for(members, secure.max_weight)
    parameters = Parameters(
        group_size=secure.group_size,
        min_cohort=secure.fewest_grouped(rounds.cohort_size),
        min_group=secure.min_group,
        corruption=secure.corruption,
        dropout=secure.dropout,
        max_left_out=secure.max_left_out,
        layout=Layout(values, max_norm, bits, secure.max_weight, count_bounds),
    )
    if noise is None:
        return parameters
    steps = tuple(_steps_of(deviation, members) for deviation in noise.counts)
    if secure.value_bits is None and noise.multiplier:
        bits = min(bits, _NOISY_VALUE_BITS)
    while True:
        layout = replace(parameters.layout, value_bits=bits, count_steps=steps)
        counts = tuple(deviation * step for deviation, step in zip(noise.counts, steps, strict=True))
        found = replace(parameters, layout=layout, noise=SumNoise(noise.multiplier * layout.longest, counts))
        if secure.value_bits is not None or bits == _FEWEST_BITS or not _too_wide(found):
            return found
        bits -= 1


def _steps_of(deviation: float, members: int) -> int:
    """Whole numbers that one of a count travels as: enough for a share of its noise, or 1 where it has none."""
    if deviation == 0:
        return 1
    share = deviation / math.sqrt(members)
    return 1 << max(0, math.ceil(math.log2(LEAST_DEVIATION / share)))


def _too_wide(parameters: Parameters) -> bool:
    """Whether a share of the noise on the updates could not be drawn in the smallest group."""
    assert parameters.noise is not None
    honest = parameters.honest_survivors(min(parameters.min_cohort, parameters.group_size))
    return honest >= 1 and parameters.noise.values > MOST_DEVIATION * math.sqrt(honest)
