"""How time grows with clients: seconds = a + b * clients^p, fitted to logarithms, so that every size counts alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_LEAST_SIZES = 4  # three parameters go through three points exactly, and say nothing
_STARTING_EXPONENTS = (0.7, 1.0, 1.5, 2.0)
_LINEAR = 0.1
_NOTHING = 1e-3  # of the time of the smallest size: the fit cannot tell such a fixed part from none


@dataclass(frozen=True, slots=True)
class Growth:
    """A fit.

    Attributes:
        fixed_seconds: a, whatever the clients; 0 where it is below a thousandth of the smallest size's time.
        seconds_each: b, of one client where p is 1.
        exponent: p.
        largest_deviation: Of the fit from a measured size, as a share of what was measured.
    """

    fixed_seconds: float
    seconds_each: float
    exponent: float
    largest_deviation: float

    @property
    def name(self) -> str:
        """In words: an exponent within 0.1 of 1 is linear."""
        if abs(self.exponent - 1.0) <= _LINEAR:
            return "linear"
        return "more than linear" if self.exponent > 1.0 else "less than linear"


def fit_growth(seconds: Mapping[int, float]) -> Growth | None:
    """Least squares on the logarithms.

    Args:
        seconds: Clients -> seconds, both above 0.

    Returns:
        None for fewer than four sizes.
    """
    from scipy.optimize import least_squares

    if len(seconds) < _LEAST_SIZES:
        return None
    clients = np.array(sorted(seconds), dtype=np.float64)
    measured = np.log([seconds[int(count)] for count in clients])

    def fitted(parameters: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        log_fixed, log_each, exponent = parameters
        found: npt.NDArray[np.float64] = np.logaddexp(log_fixed, log_each + exponent * np.log(clients))
        return found

    def off(parameters: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return fitted(parameters) - measured

    starts = [
        (measured[0] - 1.0, measured[-1] - exponent * np.log(clients[-1]), exponent) for exponent in _STARTING_EXPONENTS
    ]
    best = min((least_squares(off, start) for start in starts), key=_cost_of)
    log_fixed, log_each, exponent = map(float, best.x)
    fixed = float(np.exp(log_fixed)) if log_fixed - measured[0] > np.log(_NOTHING) else 0.0
    return Growth(fixed, float(np.exp(log_each)), exponent, float(np.abs(np.expm1(off(best.x))).max()))


def _cost_of(solution: object) -> float:
    return float(solution.cost)  # type: ignore[attr-defined]
