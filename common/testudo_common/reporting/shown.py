"""Numbers and names as a reader sees them: metrics in their own unit, epsilon, bytes, seconds. Pure."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Decimal

from testudo_common.markup import printable

MISSING = "–"
DIVERGED = "diverged"
_PERCENT = frozenset({"accuracy", "balanced_accuracy", "precision", "recall", "f1"})
_UPPER = frozenset({"rmse", "mse", "mae", "ece", "f1", "nll"})


def is_percent(metric: str) -> bool:
    """Whether a metric in 0..1 is shown in percent."""
    return metric in _PERCENT


def metric_name(metric: str) -> str:
    """``balanced_accuracy`` -> ``balanced accuracy``; abbreviations in capitals."""
    if metric == "brier":
        return "Brier score"
    return " ".join(word.upper() if word in _UPPER else word for word in printable(metric).split("_"))


def number(metric: str, value: float) -> str:
    """One value in the metric's own unit, without the unit sign."""
    if not math.isfinite(value):
        return DIVERGED
    if is_percent(metric):
        return f"{100 * value:.1f}"
    return f"{value:.{1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3}f}"


def with_unit(metric: str, value: float) -> str:
    """One value with its percent sign, where it has one."""
    said = number(metric, value)
    return f"{said} %" if is_percent(metric) and said != DIVERGED else said


def metric_title(metric: str) -> str:
    """A metric with its unit, as a column title or an axis label."""
    return f"{metric_name(metric)}, %" if is_percent(metric) else metric_name(metric)


def sentence_case(text: str) -> str:
    """With a capital at the start, the rest as it is."""
    return text[:1].upper() + text[1:]


def epsilon(value: float | None) -> str:
    """Epsilon rounded up at two decimals, so that what is shown never understates what was spent."""
    if value is None or not math.isfinite(value):
        return "without bound"
    rounded = Decimal(repr(value)).quantize(Decimal("0.01"), rounding=ROUND_CEILING)
    return f"{rounded:f}"


def delta(value: float) -> str:
    """``1e-5`` rather than ``1e-05``."""
    return f"{value:g}".replace("e-0", "e-")


def size(count: int) -> str:
    """Bytes in decimal units, three digits."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"


def seconds(value: float) -> str:
    """Seconds; minutes and hours once they read better."""
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"


def moment(time: str) -> str:
    """``2026-06-15 12:00 UTC`` of an ISO 8601 time in UTC."""
    return f"{time[:16].replace('T', ' ')} UTC"
