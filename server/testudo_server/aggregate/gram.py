"""The geometry of n rows in one pass: Gram matrix and squared distances, float64[n, n]. All rules but the coordinate
ones need no more of the rows than this, and linear pre-aggregators act on it directly.

Products are float32 and accumulated in float64. Two things go wrong in that, and are put right: rows so long or so
short that their squares leave float32, which an attacker may send, are scaled by powers of two; and distances that are
small beside the rows, as of weights instead of updates, are taken from direct differences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from testudo_server.aggregate.base import Floats, Rows, refuse_nonfinite
from testudo_server.aggregate.blocks import BLOCK, Work, blocks_of, over_chunks

_SHORTEST_SQUARED, _LONGEST_SQUARED = 1e-18, 1e30  # between them no product that matters leaves float32
_ROUNDING = 2.0**-23  # of a product in float32
_CANCELLED = 1e-3  # a distance of less than so much of both squared norms has lost too many digits


@dataclass(frozen=True, slots=True)
class Geometry:
    """Of m points.

    Attributes:
        gram: ``float64[m, m]``, inner products.
        distances: ``float64[m, m]``, squared, symmetric, at least 0, and 0 on the diagonal.
    """

    gram: Floats
    distances: Floats

    @property
    def norms(self) -> Floats:
        """``float64[m]``."""
        norms: Floats = np.sqrt(np.maximum(self.gram.diagonal(), 0.0))
        return norms

    def mixed(self, matrix: Floats) -> Geometry:
        """Of the points ``matrix @ points``: ``matrix`` is ``float64[k, m]``.

        Where its rows sum to 1 the distances come from distances, which a shift of all points leaves alone. A mixed
        point counts as so far off as its sum, in float32, may be: two bad rows of 1e30 and -1e30 in one bucket cancel
        here, and would be chosen, but what is left of them in the result is 1e22.
        """
        gram = matrix @ self.gram @ matrix.T  # [k, k]
        affine = np.allclose(matrix.sum(axis=1), 1.0, rtol=0.0, atol=1e-9)
        form = -0.5 * (matrix @ self.distances @ matrix.T) if affine else gram
        distances = _distances_of(form)
        rounding = np.where((matrix != 0.0).sum(axis=1) > 1, _ROUNDING * (matrix @ self.norms), 0.0) ** 2  # [k]
        distances += rounding + rounding[:, None]
        np.fill_diagonal(distances, 0.0)
        return Geometry(gram + np.diag(rounding), distances)

    def around(self, base: int) -> Floats:
        """``float64[m, m]``: inner products of the differences to point ``base``.

        Either of two formulas, whichever rounds less for the pair: from inner products where one point is very far
        away, from distances where all are far from the origin.
        """
        gram, distances, norms = self.gram, self.distances, self.norms
        by_products = gram - gram[base] - gram[:, base, None] + gram[base, base]
        error = np.outer(norms + norms[base], norms + norms[base])
        from_base = distances[base]
        sums = from_base + from_base[:, None]
        by_distances = (sums - distances) / 2.0
        chosen: Floats = np.where(sums + distances < error, by_distances, by_products)
        np.fill_diagonal(chosen, from_base)
        return chosen


def measure(rows: Rows, work: Work) -> Geometry:
    """The geometry of ``float32[n, d]``.

    Raises:
        AggregationError: A row is not finite.
    """
    gram, exponents = _products(rows, _every_pair, work)  # [n, n]
    gram = np.ldexp(gram, exponents[:, None] + exponents)
    distances = _distances_of(gram)
    squares = gram.diagonal()
    _recompute(distances, distances < _CANCELLED * (squares + squares[:, None]), rows, work)
    return Geometry(gram, distances)


def measure_norms(rows: Rows, work: Work) -> Geometry:
    """The same in a tenth of the time for whom norms are enough: inner products of two rows are 0, distances NaN.

    Raises:
        AggregationError: A row is not finite.
    """
    squares, exponents = _products(rows, _each_with_itself, work)  # [n]
    return Geometry(np.diag(np.ldexp(squares, 2 * exponents)), np.full((len(rows), len(rows)), np.nan))


_Product = Callable[[Rows], list[Rows]]


def _every_pair(rows: Rows) -> list[Rows]:
    """``float32[n, n]`` for every block of the rows' columns."""
    return [rows[:, block] @ rows[:, block].T for block in blocks_of(range(rows.shape[1]))]


def _each_with_itself(rows: Rows) -> list[Rows]:
    """``float32[n]`` for every block: row by row, since memory is read fastest in order."""
    n, width = rows.shape
    whole = width - width % BLOCK
    parts = [rows[:, :whole].reshape(n, -1, BLOCK)] if whole else []  # [n, blocks, columns], not a copy
    if whole < width:
        parts.append(rows[:, np.newaxis, whole:])
    squares = [(part[..., np.newaxis, :] @ part[..., np.newaxis])[..., 0, 0] for part in parts]  # [n, blocks]
    return [of_block for part in squares for of_block in part.T]


def _products(rows: Rows, product: _Product, work: Work) -> tuple[Floats, np.ndarray]:
    """Summed products of the rows, each divided by 2 to an exponent that keeps them in float32; and the exponents, [n].

    Raises:
        AggregationError: A row is not finite.
    """
    exponents = np.zeros(len(rows), dtype=np.int32)
    total = _summed(rows, None, product, work)
    squares = total.diagonal() if total.ndim == 2 else total
    if not (np.isfinite(total).all() and squares.min() > _SHORTEST_SQUARED and squares.max() < _LONGEST_SQUARED):
        refuse_nonfinite(rows)
        exponents = np.frexp(_peaks(rows, work))[1]
        total = _summed(rows, exponents, product, work)
    return total, exponents


def _summed(rows: Rows, exponents: np.ndarray | None, product: _Product, work: Work) -> Floats:
    """Products of all blocks, in float64; of the rows divided by 2 to their exponents, where those are given."""

    def do(columns: range) -> list[Rows]:
        with np.errstate(all="ignore"):
            if exponents is None:
                return product(rows[:, columns.start : columns.stop])
            blocks = (np.ldexp(rows[:, block], -exponents[:, None]) for block in blocks_of(columns))
            return [part for block in blocks for part in product(block)]

    parts = (part for products in over_chunks(rows.shape[1], work, do) for part in products)
    total = next(parts).astype(np.float64)
    for part in parts:
        total += part
    return total


def _peaks(rows: Rows, work: Work) -> Rows:
    """``float32[n]``: each row's greatest absolute value."""

    def do(columns: range) -> Rows:
        parts = [np.abs(rows[:, block]).max(axis=1) for block in blocks_of(columns)]
        peaks: Rows = np.max(parts, axis=0)
        return peaks

    peaks: Rows = np.max(list(over_chunks(rows.shape[1], work, do)), axis=0)
    return peaks


def _distances_of(form: Floats) -> Floats:
    """``form[i, i] + form[j, j] - 2 form[i, j]``, clipped at 0."""
    squares = form.diagonal()
    distances = np.maximum(squares + squares[:, None] - (form + form.T), 0.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def _recompute(distances: Floats, wrong: np.ndarray, rows: Rows, work: Work) -> None:
    """Put direct differences in the place of those distances that are ``wrong``, ``bool[n, n]``."""
    pairs = np.triu(wrong, 1)
    firsts = np.flatnonzero(pairs.any(axis=1))
    if not len(firsts):
        return

    def do(columns: range) -> list[Floats]:
        found = []
        for block in blocks_of(columns):
            part = np.zeros_like(distances)
            for first in firsts:
                others = np.flatnonzero(pairs[first])
                difference = rows[others, block].astype(np.float64) - rows[first, block]
                part[first, others] = np.einsum("ij,ij->i", difference, difference)
            found.append(part)
        return found

    total = np.zeros_like(distances)
    for parts in over_chunks(rows.shape[1], work, do):
        for part in parts:
            total += part
    distances[pairs] = total[pairs]
    distances.T[pairs] = total[pairs]
