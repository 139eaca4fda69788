"""What may be said of opened metric sums: metrics, how uncertain noise makes them, and nothing of small cells.

Opens nothing and adds no noise. All of it is computed from what was opened, so it costs no privacy.
Sources: the spread of a ratio by the delta method; two counts of the same examples are weighed by the inverse of their
variances; a small cell is left out as in statistical disclosure control (Hundepool et al. 2012, section 5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from testudo_common.learning.metric_counts import MetricCounts

_CLEAR = 2  # standard deviations of noise that a cell must stand out by, or what is divided by it is noise
_DROWNED = 0.25  # of noise, on a metric in 0..1: it says nothing any more
_DROWNED_ECE = 0.05  # noise makes gaps between confidence and accuracy and never closes any

Numbers = npt.NDArray[np.float64]
Fields = Mapping[str, Numbers]


@dataclass(frozen=True, slots=True)
class Released:
    """The scores of one half, before or after adapting, of all clients of a round together.

    Attributes:
        metrics: Metric -> value; empty where there are too few examples in all.
        noise: Metric -> standard deviation that noise gives it, in its own unit; for ``ece`` how large noise alone
            makes it; for ``examples`` that of their number. Empty for exact sums.
        withheld: ``classes``, ``bins`` and ``metrics`` -> how many are not reported: classes and bins of too few
            examples, metrics that are mostly noise, or all for too few examples. Only what is not 0.
    """

    metrics: Mapping[str, float] = field(default_factory=dict, repr=False)
    noise: Mapping[str, float] = field(default_factory=dict)
    withheld: Mapping[str, int] = field(default_factory=dict)


def release(
    counts: MetricCounts, total: npt.NDArray[np.int64], min_cell: int, noise: Numbers | None = None
) -> Released:
    """The metrics of a sum over clients.

    Averages over classes are over the classes that are reported, each against all predictions; the calibration error is
    over the bins that are. Under noise a class or bin must also stand out from it, by two standard deviations.

    Args:
        counts: How the sums were written.
        total: ``int64[k]``, opened.
        min_cell: 1 or more: classes and bins of fewer examples are not reported, nor is anything about fewer in all.
        noise: ``float64[k]``: standard deviation of the noise in ``total``, in integer steps; None: it is exact.

    Raises:
        WireError: See :meth:`MetricCounts.decode` for exact sums, and :meth:`MetricCounts.read` for noisy ones.
    """
    if noise is None:
        counts.decode(total)  # refuses what contradicts itself
        noise = np.zeros(counts.size)
    values, noises = counts.read(total), counts.fields_of(noise / counts.scales)
    spread = {name: float(each.flat[0]) for name, each in noises.items()}  # one a field: its coordinates are alike
    if counts.kind == "regression":
        return _regression(values, spread, min_cell)
    return _classification(values, spread, min_cell)


def _regression(values: Fields, spread: Mapping[str, float], min_cell: int) -> Released:
    n, of_n = float(values["n"]), spread["n"]
    if n < max(min_cell, _CLEAR * of_n):
        return Released(withheld={"metrics": 3})
    mse, mae = float(values["squared_error_sum"]) / n, float(values["absolute_error_sum"]) / n
    of_mse = math.hypot(spread["squared_error_sum"], mse * of_n) / n
    of_mae = math.hypot(spread["absolute_error_sum"], mae * of_n) / n
    metrics, noise = {"mae": mae, "mse": mse}, {"mae": of_mae, "mse": of_mse}
    if mse > 0:
        metrics, noise = {"rmse": math.sqrt(mse), **metrics}, {"rmse": of_mse / (2 * math.sqrt(mse)), **noise}
    drowned = {name for name, value in metrics.items() if value < _CLEAR * noise[name]}
    if "mse" in drowned or mse < 0:
        drowned |= {"rmse", "mse"}
    return _kept(metrics, noise, drowned, of_n, {})


def _classification(values: Fields, spread: Mapping[str, float], min_cell: int) -> Released:
    counted = _Counted.of(values, spread)
    if counted.n < max(min_cell, _CLEAR * counted.of_n):
        return Released(withheld={"metrics": 7})
    rows, classes = values["confusion"].sum(axis=1), len(values["confusion"])
    shown = np.flatnonzero(rows >= max(min_cell, _CLEAR * spread["confusion"] * math.sqrt(classes)))
    bins = np.flatnonzero(values["bin_count"] >= max(min_cell, _CLEAR * spread["bin_count"]))
    found = {
        "accuracy": counted.accuracy(),
        **_class_averages(values["confusion"], shown, spread["confusion"]),
        **_calibration(values, bins, spread),
        "brier": counted.brier(float(values["brier_sum"]), spread["brier_sum"]),
    }
    most = {"brier": 2.0}
    metrics = {name: float(np.clip(value, 0.0, most.get(name, 1.0))) for name, (value, _) in found.items()}
    noise = {name: of_it for name, (_, of_it) in found.items()}
    drowned = {name for name in found if noise[name] > (_DROWNED_ECE if name == "ece" else _DROWNED)}
    cells = {"classes": classes - len(shown), "bins": len(values["bin_count"]) - len(bins)}
    return _kept(metrics, noise, drowned, counted.of_n, cells)


def _kept(
    metrics: Mapping[str, float], noise: Mapping[str, float], drowned: set[str], of_n: float, cells: Mapping[str, int]
) -> Released:
    clear = {name: value for name, value in metrics.items() if name not in drowned}
    withheld = {**cells, "metrics": len(drowned)}
    return Released(
        clear,
        {**{name: noise[name] for name in clear}, "examples": of_n} if of_n else {},
        {name: count for name, count in withheld.items() if count},
    )


@dataclass(frozen=True, slots=True)
class _Counted:
    """How many examples, and how many of them correct: each is in the sums twice, with noise of its own.

    Attributes:
        n: Examples.
        of_n: Standard deviation of noise in it.
        hits: Correct predictions.
        from_rows: Weight, in ``n``, of the confusion matrix; the bins have the rest.
        from_diagonal: The same in ``hits``.
        classes: C.
        bins: B.
        of_cell: Standard deviation of noise in a cell of the confusion matrix.
        of_bin: In each of bin_count.
        of_correct: In each of bin_correct.
    """

    n: float
    of_n: float
    hits: float
    from_rows: float
    from_diagonal: float
    classes: int
    bins: int
    of_cell: float
    of_bin: float
    of_correct: float

    @classmethod
    def of(cls, values: Fields, spread: Mapping[str, float]) -> _Counted:
        confusion, bins = values["confusion"], len(values["bin_count"])
        classes = len(confusion)
        of_cell, of_bin, of_correct = spread["confusion"], spread["bin_count"], spread["bin_correct"]
        from_rows = _weight(classes**2 * of_cell**2, bins * of_bin**2)
        from_diagonal = _weight(classes * of_cell**2, bins * of_correct**2)
        n = from_rows * confusion.sum() + (1 - from_rows) * values["bin_count"].sum()
        hits = from_diagonal * np.trace(confusion) + (1 - from_diagonal) * values["bin_correct"].sum()
        of_n = math.sqrt((from_rows * classes * of_cell) ** 2 + (1 - from_rows) ** 2 * bins * of_bin**2)
        return cls(
            float(n), of_n, float(hits), from_rows, from_diagonal, classes, bins, of_cell, of_bin, of_correct
        )  # fmt: skip

    def accuracy(self) -> tuple[float, float]:
        """It, and the noise in it: by the gradient of ``hits / n`` in each cell."""
        accuracy = self.hits / self.n
        off = -accuracy * self.from_rows  # a cell off the diagonal counts in n only
        cells = self.classes * (self.from_diagonal + off) ** 2 + self.classes * (self.classes - 1) * off**2
        in_bins = self.bins * (accuracy * (1 - self.from_rows) * self.of_bin) ** 2
        in_correct = self.bins * ((1 - self.from_diagonal) * self.of_correct) ** 2
        return accuracy, math.sqrt(cells * self.of_cell**2 + in_bins + in_correct) / self.n

    def brier(self, total: float, of_total: float) -> tuple[float, float]:
        """The score and the noise in it."""
        return total / self.n, math.hypot(of_total, total / self.n * self.of_n) / self.n


def _weight(variance: float, other: float) -> float:
    """Of the first of two estimates of one number, so that both together have the least variance."""
    return 1.0 if variance + other == 0 else other / (variance + other)


def _class_averages(confusion: Numbers, shown: npt.NDArray[np.intp], of_cell: float) -> dict[str, tuple[float, float]]:
    """Averages over the classes ``shown``, each with the noise in it; none without such classes."""
    if len(shown) == 0:
        return {}
    hits = np.diag(confusion)
    true, predicted = (np.maximum(confusion.sum(axis=axis), 1.0) for axis in (1, 0))  # without hits, 0 of them is 0
    both = true + predicted
    recall = _average(hits / true, 1 / true, -hits / true**2, np.zeros(len(hits)), shown, of_cell)
    precision = _average(hits / predicted, 1 / predicted, np.zeros(len(hits)), -hits / predicted**2, shown, of_cell)
    f1 = _average(2 * hits / both, 2 / both, -2 * hits / both**2, -2 * hits / both**2, shown, of_cell)
    return {"balanced_accuracy": recall, "precision": precision, "recall": recall, "f1": f1}


def _average(
    scores: Numbers,
    by_hit: Numbers,
    by_row: Numbers,
    by_column: Numbers,
    shown: npt.NDArray[np.intp],
    of_cell: float,
) -> tuple[float, float]:
    """The mean of ``scores[shown]``, and the noise in it.

    Args:
        scores: ``float64[C]``.
        by_hit: ``float64[C]``: derivative of each score in its cell of the diagonal, beyond its row and column.
        by_row: In each cell of its row.
        by_column: In each cell of its column.
        shown: Classes.
        of_cell: Noise of each cell.
    """
    picked = np.zeros(len(scores))
    picked[shown] = 1 / len(shown)
    gradient = (picked * by_row)[:, None] + (picked * by_column)[None, :] + np.diag(picked * by_hit)  # [C, C]
    return float(scores[shown].mean()), of_cell * float(np.linalg.norm(gradient))


def _calibration(
    values: Fields, bins: npt.NDArray[np.intp], spread: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """The expected calibration error over ``bins``, and what noise alone makes of it; none without bins."""
    if len(bins) == 0:
        return {}
    n = float(values["bin_count"][bins].sum())
    gaps = np.abs(values["bin_correct"] - values["bin_confidence"])[bins]
    one = math.sqrt(2 / math.pi) * math.hypot(spread["bin_correct"], spread["bin_confidence"])  # of |N(0, s)|
    return {"ece": (float(gaps.sum()) / n, len(bins) * one / n)}
