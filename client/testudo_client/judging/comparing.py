"""Whether a model is better, not worse, or worse than another, on the same rows; and what a shift costs.

Pure functions. One client's rows: Bonett and Price 2012 for the difference of two accuracies (their adjustment keeps a
few equal rows from proving anything), a t-interval of differences for absolute errors. Several clients: a t-interval
over clients of the difference of each one's headline metric. Not worse is shown as in non-inferiority trials: the whole
interval has to be above minus a margin that was fixed before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from testudo_client.judging.answered import Answered, Numbers
from testudo_client.judging.results import Comparison, ModelName, Score
from testudo_client.judging.scoring import CONFIDENCE, HIGHER, client_metrics

MARGIN = 0.02
"""Share by which a model may be worse and still pass: of all rows for shares of right answers, of the error before."""
MIN_ROWS, MIN_CLIENTS = 30, 8


def compare(
    judged: Answered, other: Answered, before: ModelName, *, shots: int | None, headline: str, margin: float = MARGIN
) -> Comparison:
    """The model judged beside another one.

    Args:
        judged: Rows of the model judged.
        other: The same rows, answered by the other.
        before: Which that is.
        shots: Support size of both.
        headline: Compared for several clients; one client's rows are compared by accuracy or mean absolute error.
        margin: 0 or more; see :data:`MARGIN`.
    """
    clients = len(np.unique(judged.clients))
    metric = headline if clients > 1 else "mae" if judged.regression else "accuracy"
    value, value_before, gain = _of_clients(judged, other, metric) if clients > 1 else _of_rows(judged, other)
    allowed = margin if metric in HIGHER else margin * value_before
    enough = clients >= MIN_CLIENTS if clients > 1 else len(judged) >= MIN_ROWS
    return Comparison(
        before=before,
        shots=shots,
        metric=metric,
        value=value,
        value_before=value_before,
        gain=gain,
        margin=allowed,
        rows=len(judged),
        clients=clients,
        verdict=verdict_of(gain, allowed) if enough else "not shown",
    )


def verdict_of(gain: Score, margin: float) -> Literal["better", "not worse", "worse", "not shown"]:
    """What an interval of the gain says."""
    if gain.low is None or gain.high is None:
        return "not shown"
    if gain.low > 0:
        return "better"
    if gain.low > -margin or (gain.low == gain.high == 0):  # to be the same is not to be worse, also at a margin of 0
        return "not worse"
    return "worse" if gain.high < 0 else "not shown"


def change_of(shifted: Sequence[Answered], plain: Answered) -> Score:
    """Of accuracy, or of the mean absolute error: shifted minus plain; the mean over draws of a shift.

    Args:
        shifted: The rows of ``plain`` under each draw; or rows drawn from them, and then there is no interval.
        plain: As they are.
    """
    sign = 1.0 if plain.regression else -1.0
    losses = np.stack([one.losses for one in shifted])
    if not all(np.array_equal(one.targets, plain.targets) for one in shifted):
        return Score(value=sign * float(losses.mean() - plain.losses.mean()))
    differences = sign * (losses.mean(axis=0) - plain.losses)
    clients, places = np.unique(plain.clients, return_inverse=True)
    if len(clients) > 1:
        differences = np.bincount(places, weights=differences) / np.bincount(places)
    return mean_score(differences)


def mean_score(values: Numbers) -> Score:
    """A mean with its t-interval; of one value, no interval."""
    from scipy.stats import t

    mean = float(values.mean())
    if len(values) < 2:
        return Score(value=mean)
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Score(value=mean, low=mean - half, high=mean + half)


def _of_clients(judged: Answered, other: Answered, metric: str) -> tuple[float, float, Score]:
    now, earlier = client_metrics(judged)[1][metric], client_metrics(other)[1][metric]
    sign = 1.0 if metric in HIGHER else -1.0
    return float(now.mean()), float(earlier.mean()), mean_score(sign * (now - earlier))


def _of_rows(judged: Answered, other: Answered) -> tuple[float, float, Score]:
    now, earlier = judged.losses, other.losses
    if judged.regression:
        return float(now.mean()), float(earlier.mean()), mean_score(earlier - now)
    return 1 - float(now.mean()), 1 - float(earlier.mean()), _accuracy_gain(now, earlier)


def _accuracy_gain(now: Numbers, earlier: Numbers) -> Score:
    from scipy.stats import norm

    count = len(now) + 2
    won, lost = (float((earlier > now).sum()) + 1) / count, (float((now > earlier).sum()) + 1) / count
    half = float(norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt((won + lost - (won - lost) ** 2) / count)
    return Score(value=float((earlier - now).mean()), low=won - lost - half, high=won - lost + half)
