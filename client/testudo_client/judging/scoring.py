"""Metrics with intervals: of one client's rows, or as means over clients.

Pure functions; the generator is an argument. Sources: Wilson 1927 (proportions); Efron 1979 (bootstrap), of rows for
one client and of whole clients for several, its percentiles moved by the bias that it shows (the calibration error of a
resample is larger than that of the rows) and spread as Student's t is for so few: Hesterberg 2015, arXiv:1411.5279.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from testudo_client.judging.answered import Answered, Numbers, Parts
from testudo_client.judging.results import Arm, Score, ScoreTable

CONFIDENCE = 0.95
RESAMPLES = 1000
_MAX_DRAWS = 8_000_000  # row numbers held at once
POOLED = ("ece", "coverage")
"""Over all rows together, also of several clients: of a client's few rows each bin would hold one or none."""
HIGHER = ("accuracy", "balanced_accuracy", "precision", "recall", "f1")
"""Metrics that are better when they are higher; of the others, all but coverage are better when they are lower."""
_PROPORTIONS = ("accuracy", "coverage")
_MOST = {**dict.fromkeys((*HIGHER, "coverage", "ece", "ece_raw"), 1.0), "brier": 2.0}


def scores_of(judged: Answered, rng: np.random.Generator) -> dict[str, Score]:
    """Metric -> score.

    Args:
        judged: One or more rows.
        rng: Of the bootstrap; seeded, so that the same rows have the same interval.

    Raises:
        DataError: Targets and answers do not fit together.
        ModelError: An answer is not finite.
    """
    parts = Parts.of(judged)
    clients, places = np.unique(judged.clients, return_inverse=True)
    if len(clients) == 1:
        return _of_rows(parts, rng)
    by_client = _membership(places, len(clients)) @ parts.rows
    return _of_clients(parts, np.asarray(by_client.todense()), rng)


def score_table(
    judged: Answered,
    arm: Arm,
    shots: int | None,
    *,
    seed: int,
    headline: str = "",
    start: Answered | None = None,
    diverged: int = 0,
    raw: Answered | None = None,
) -> ScoreTable:
    """A row of the evaluation.

    Args:
        judged: Of one client or several.
        arm: What answered.
        shots: Support size.
        seed: Of the bootstrap.
        headline: For several clients: the metric whose spread over them is told.
        start: The same rows before adaptation, of the same clients, to tell whom that hurt; none: not told.
        diverged: Clients that are not among the rows, since their training diverged.
        raw: The same before calibration, for ``ece_raw``; none: not told.
    """
    clients = len(np.unique(judged.clients))
    own = client_metrics(judged)[1].get(headline) if clients > 1 else None
    hurt = None
    if own is not None and start is not None:
        first = client_metrics(start)[1][headline]
        hurt = float((np.sum(own < first if headline in HIGHER else own > first) + diverged) / (clients + diverged))
    metrics = scores_of(judged, np.random.default_rng(seed))
    if raw is not None:
        metrics["ece_raw"] = scores_of(raw, np.random.default_rng(seed))["ece"]
    return ScoreTable(
        arm=arm,
        shots=shots,
        rows=len(judged),
        clients=clients,
        metrics=metrics,
        percentiles=() if own is None else tuple(np.percentile(own, [10, 50, 90]).tolist()),
        hurt=hurt,
        diverged=diverged,
    )


def point_metrics(judged: Answered) -> dict[str, float | None]:
    """Metric -> its value alone, as in :func:`scores_of`; None where it is not finite."""
    parts = Parts.of(judged)
    together = parts.metrics(np.asarray(parts.rows.sum(axis=0)).reshape(1, -1))
    _, own = client_metrics(judged)
    values = {name: float((together if name in POOLED else own)[name].mean()) for name in own}
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def client_metrics(judged: Answered) -> tuple[npt.NDArray[Any], dict[str, Numbers]]:
    """The clients that have rows, ascending, and metric -> ``float64[m]`` of each."""
    parts = Parts.of(judged)
    clients, places = np.unique(judged.clients, return_inverse=True)
    sums = np.asarray((_membership(places, len(clients)) @ parts.rows).todense())
    return clients, parts.metrics(sums)


def _membership(places: npt.NDArray[Any], count: int) -> sparse.csr_matrix:
    rows = np.arange(len(places))
    return sparse.csr_matrix((np.ones(len(places)), (places, rows)), shape=(count, len(places)))


def _of_rows(parts: Parts, rng: np.random.Generator) -> dict[str, Score]:
    count = parts.rows.shape[0]
    total = np.asarray(parts.rows.sum(axis=0)).reshape(1, -1)
    found = {name: float(value[0]) for name, value in parts.metrics(total).items()}
    at_once = max(1, _MAX_DRAWS // count)
    drawn: list[dict[str, Numbers]] = []
    for first in range(0, RESAMPLES, at_once):
        weights = _resampled(count, min(at_once, RESAMPLES - first), rng)
        drawn.append(parts.metrics(np.asarray((parts.rows.T @ weights.T).T)))
    return {
        name: _wilson(value, count)
        if name in _PROPORTIONS
        else _score(name, value, np.concatenate([d[name] for d in drawn]), count)
        for name, value in found.items()
    }


def _of_clients(parts: Parts, sums: Numbers, rng: np.random.Generator) -> dict[str, Score]:
    """Of ``float64[m, f]`` sums, a client each."""
    own, count = parts.metrics(sums), len(sums)
    weights = _resampled(count, RESAMPLES, rng)
    together = parts.metrics(sums.sum(axis=0, keepdims=True))
    pooled = parts.metrics(weights @ sums)
    return {
        name: _score(name, float(together[name][0]), pooled[name], count)
        if name in POOLED
        else _score(name, float(own[name].mean()), weights @ own[name] / count, count)
        for name in own
    }


def _resampled(count: int, times: int, rng: np.random.Generator) -> Numbers:
    """``float64[times, count]``: how often each of ``count`` was drawn, with replacement, in each resample."""
    drawn = rng.integers(count, size=(times, count)) + np.arange(times)[:, None] * count
    return np.bincount(drawn.ravel(), minlength=times * count).reshape(times, count).astype(np.float64)


def _score(name: str, value: float, drawn: Numbers, count: int) -> Score:
    """From the metric of each resample of ``count`` rows or clients; no end lies where the metric cannot."""
    from scipy.stats import norm, t

    usable = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or count < 2 or len(usable) < len(drawn) // 2:
        return Score(value=value if np.isfinite(value) else None)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.percentile(usable, [100 * tail, 100 - 100 * tail]) - usable.mean()
    wider = math.sqrt(count / (count - 1)) * float(t.ppf(1 - tail, count - 1) / norm.ppf(1 - tail))
    most = _MOST.get(name, math.inf)
    return Score(value=value, low=max(0.0, value + wider * float(low)), high=min(most, value + wider * float(high)))


def _wilson(share: float, count: int) -> Score:
    from scipy.stats import binomtest

    found = binomtest(round(share * count), count).proportion_ci(CONFIDENCE, method="wilson")
    return Score(value=share, low=float(found.low), high=float(found.high))
