"""Which of many shares are wrong: decoding of a Reed-Solomon code over F_65537. Pure; proves nothing by itself.

Shares are values of polynomials of degree t - 1, so r of them are a codeword, and up to (r - t) / 2 wrong ones can be
found. The 16 limbs of a share are wrong together, so one random combination of them is decoded. Source: Welch and
Berlekamp, US patent 4,633,470 (1986); in the form of Gemmell and Sudan 1992: find E of degree e, monic, and Q of degree
below t + e with ``Q(x) = y E(x)`` at every share (x, y). Wrong shares are roots of E.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testudo_common.secagg.shamir import PRIME, Field, inverse, uniform


def places_in_error(points: Field, shares: Field, threshold: int) -> npt.NDArray[np.bool_]:
    """Which shares to leave out: those that are wrong, if they are at most half of the spare ones, and maybe others.

    Args:
        points: ``int64[r]``, where the shares were taken.
        shares: ``int64[r, 16]``.
        threshold: t, at most r.

    Returns:
        ``bool[r]``, at most ``(r - t) // 2`` of them true.
    """
    count = len(points)
    errors = (count - threshold) // 2
    weights = uniform((shares.shape[1], 1))[:, 0]
    values = (shares * weights % PRIME).sum(axis=1) % PRIME  # [r]
    powers = np.ones((count, threshold + errors), dtype=np.int64)
    for column in range(1, threshold + errors):
        powers[:, column] = powers[:, column - 1] * points % PRIME
    # unknowns: the coefficients of Q, then those of E below its leading one
    system = np.hstack([powers, -values[:, None] * powers[:, :errors] % PRIME])
    solution = _solve(system, values * powers[:, errors] % PRIME)
    locator = powers[:, errors]
    for power in range(errors):
        locator = (locator + solution[threshold + errors + power] * powers[:, power]) % PRIME
    roots: npt.NDArray[np.bool_] = locator == 0
    return roots


def _solve(matrix: Field, right: Field) -> Field:
    """A solution of a linear system over the field, unknowns that are free at 0; any vector if there is none."""
    system = np.hstack([matrix % PRIME, right[:, None] % PRIME])
    unknowns, row = matrix.shape[1], 0
    pivots: list[int] = []
    for column in range(unknowns):
        candidates = np.flatnonzero(system[row:, column])
        if not candidates.size:
            continue
        chosen = row + int(candidates[0])
        system[[row, chosen]] = system[[chosen, row]]
        system[row] = system[row] * inverse(system[row, column : column + 1]) % PRIME
        others = np.arange(len(system)) != row
        system[others] = (system[others] - system[others, column : column + 1] * system[row]) % PRIME
        pivots.append(column)
        row += 1
        if row == len(system):
            break
    solution = np.zeros(unknowns, dtype=np.int64)
    solution[pivots] = system[: len(pivots), -1]
    return solution
