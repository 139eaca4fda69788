"""What a round's opened counts say of the model at its clients, before and after adapting it; or to newcomers.

Sees sums over groups, added up; opens none. What is reported of them is testudo_common.learning.released's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from testudo_common.errors import WireError
from testudo_common.learning.calibration import CalibrationPrior
from testudo_common.learning.released import release
from testudo_common.plan import FederationPlan
from testudo_common.roster import Roster
from testudo_common.secure_terms import Attempt, calibration_counts_of, metric_counts_of, terms_of
from testudo_server.exchange import Collected

_NO_ROSTER = Roster("", {})
_NO_MODEL = "0" * 64


@dataclass(frozen=True, slots=True)
class RoundScores:
    """Scores of a round, each field by ``before`` and ``after``; see :class:`testudo_server.store.RoundRecord`.

    Attributes:
        metrics: Metric -> value.
        noise: Metric, or ``examples`` -> standard deviation of the noise in it.
        withheld: ``classes``, ``bins`` or ``metrics`` -> how many are not reported.
    """

    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict, repr=False)
    noise: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    withheld: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def scores_of(plan: FederationPlan, number: int, collected: Collected) -> RoundScores:
    """The scores of round ``number``; none where it has none, or where its counts contradict themselves.

    One client's contradictory counts spoil exact sums, and must not end the run. Under noise they are not noticed.
    """
    if not plan.evaluates_in(number) or not collected.groups:
        return RoundScores()
    counts, noise = metric_counts_of(plan), _noise_of(plan, number, collected)
    halves = {"before": collected.counts[: counts.size], "after": collected.counts[counts.size : 2 * counts.size]}
    try:
        found = {when: release(counts, half, plan.evaluation.min_cell, noise) for when, half in halves.items()}
    except WireError:
        return RoundScores()
    return RoundScores(
        {when: one.metrics for when, one in found.items() if one.metrics},
        {when: one.noise for when, one in found.items() if one.noise},
        {when: one.withheld for when, one in found.items() if one.withheld},
    )


def priors_of(plan: FederationPlan, number: int, collected: Collected) -> tuple[CalibrationPrior, ...]:
    """What newcomers found out in round ``number`` about how sure adapted models may be; none in other rounds."""
    if not plan.calibrates_in(number) or not collected.groups:
        return ()
    counts, multiplier = calibration_counts_of(plan), plan.evaluation.federated_noise_multiplier
    owners = sum(len(group.members) for group in collected.groups)
    noise = None
    if multiplier is not None:
        noise = float(counts.noise(multiplier)[0]) * math.sqrt(_times_of_noise(plan, number, collected))
    return counts.priors(collected.counts[: counts.size], owners, plan.evaluation.min_cell, noise)


def _noise_of(plan: FederationPlan, number: int, collected: Collected) -> npt.NDArray[np.float64] | None:
    """Standard deviation of the noise in all groups' sums together, ``float64[k]``; None without."""
    multiplier = plan.evaluation.federated_noise_multiplier
    if multiplier is None:
        return None
    times = _times_of_noise(plan, number, collected)
    return np.asarray(metric_counts_of(plan).noise(multiplier) * math.sqrt(times), dtype=np.float64)


def _times_of_noise(plan: FederationPlan, number: int, collected: Collected) -> float:
    """How many times the variance of the plan's noise is in all groups' sums together.

    It is more than once: each group's sum carries it by itself, and as if only the fewest honest survivors had added
    theirs.
    """
    parameters = terms_of(plan, _NO_ROSTER, Attempt(plan.digest, number, 0, _NO_MODEL), size=1).parameters
    members = {record.survivors: len(record.members) for record in collected.records}
    times = 0.0
    for group in collected.groups:
        drawn = members.get(group.members, len(group.members))
        times += len(group.members) / parameters.honest_survivors(drawn)
    return times
