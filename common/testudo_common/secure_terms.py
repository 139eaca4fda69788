"""What clients and server each make of plan, roster and request: the terms of one attempt at secure aggregation.

Both sides call the same function on what they themselves hold, never on what the other one says about it.
"""

from __future__ import annotations

from dataclasses import dataclass

from testudo_common.learning.calibration_counts import CalibrationCounts
from testudo_common.learning.metric_counts import MetricCounts
from testudo_common.plan import FederationPlan
from testudo_common.plan.secure import WantedNoise, parameters_for
from testudo_common.privacy.planned import update_noise_multiplier
from testudo_common.roster import Roster
from testudo_common.secagg.terms import Terms
from testudo_common.wire import TrainRequest


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which attempt at which round of which plan, from which model.

    Attributes:
        plan_digest: SHA-256 of the plan, hex.
        round: 1 and up.
        attempt: 0 and up.
        model_digest: SHA-256 of the model, hex.
        clip: S of this round, where the plan adapts it; None: the plan's own.
    """

    plan_digest: str
    round: int
    attempt: int
    model_digest: str
    clip: float | None = None


UNCLIPPED, CLIPPED = 2, 0
"""What a client adds to the last count under adaptive clipping. Nobody there counts 1: half a vote for either, so that
leaving a client out changes the sum by 1 at the most."""


def attempt_of(request: TrainRequest) -> Attempt:
    """The attempt that a request begins."""
    return Attempt(request.plan_digest, request.round, request.attempt, request.model_digest, request.clip)


def metric_counts_of(plan: FederationPlan) -> MetricCounts:
    """How the metric sums of a plan travel; two vectors of them a client, before and after adaptation."""
    assert plan.model.outputs is not None  # a complete plan states it
    noisy = plan.evaluation.federated_noise_multiplier is not None
    return MetricCounts(plan.task.kind, plan.model.outputs, plan.rounds.cohort_size, noisy)


def calibration_counts_of(plan: FederationPlan) -> CalibrationCounts:
    """How the scores of newcomers travel, in the round that calibrates.

    Without privacy for each support size that the plan evaluates; under privacy for half of the examples alone, since
    each adaptation would have to be paid for.
    """
    sizes = (None,) if plan.private else tuple(shots for shots in plan.evaluation.shots if shots)
    return CalibrationCounts("regression" if plan.task.kind == "regression" else "classification", sizes or (None,))


def unclipped_share(plan: FederationPlan, total: int, clients: int) -> float | None:
    """The share of ``clients`` whose updates were not clipped, from the last count of their sums.

    None where the plan counts no such thing. Noise may take it out of [0, 1]; taking it back would bias S.
    """
    return total / (UNCLIPPED * clients) if plan.adapts_clip else None


def wanted_noise(plan: FederationPlan, round_number: int) -> WantedNoise | None:
    """The noise on each opened sum of a round; None where there is none.

    Raises:
        PrivacyError: No noise is enough for the plan's epsilon, or it is not known how often a client takes part.
    """
    counts = _noise_of_scores(plan, round_number)
    if plan.adapts_clip:
        counts += (2 * plan.client_privacy.count_noise,)  # a count of 2 is one unclipped update
    multiplier = update_noise_multiplier(plan) or 0.0
    return WantedNoise(multiplier, counts) if multiplier or any(counts) else None


def _noise_of_scores(plan: FederationPlan, round_number: int) -> tuple[float, ...]:
    """Standard deviations on the counts of scores in a round: before adaptation and after it, or of newcomers."""
    multiplier = plan.evaluation.federated_noise_multiplier
    if multiplier is None:
        return (0.0,) * len(_bounds_of_scores(plan, round_number))
    if plan.calibrates_in(round_number):
        return tuple(float(deviation) for deviation in calibration_counts_of(plan).noise(multiplier))
    if not plan.evaluates_in(round_number):
        return ()
    return 2 * tuple(float(deviation) for deviation in metric_counts_of(plan).noise(multiplier))


def _bounds_of_scores(plan: FederationPlan, round_number: int) -> tuple[int, ...]:
    """The largest value of each of these counts that one client adds."""
    if plan.calibrates_in(round_number):
        return calibration_counts_of(plan).bounds
    if not plan.evaluates_in(round_number):
        return ()
    return 2 * tuple(int(bound) for bound in metric_counts_of(plan).bounds)


def terms_of(plan: FederationPlan, roster: Roster, attempt: Attempt, size: int) -> Terms:
    """The terms of an attempt.

    Args:
        plan: Complete; the one that the attempt names.
        roster: As pinned here.
        attempt: The attempt.
        size: d, shared parameters.

    Raises:
        ProtocolError: The plan's numbers do not fit together.
        PrivacyError: See :func:`wanted_noise`.
    """
    bounds = _bounds_of_scores(plan, attempt.round)
    if plan.adapts_clip:
        bounds += (UNCLIPPED,)
    parameters = parameters_for(
        plan.secure_aggregation,
        plan.rounds,
        max_norm=attempt.clip or plan.outer.max_update_norm,
        values=size,
        count_bounds=bounds,
        noise=wanted_noise(plan, attempt.round),
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
        clip=attempt.clip,
    )
