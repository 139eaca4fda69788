"""A chain of pre-aggregators and a rule, from their names: ``chain(["dedupe", "nnm", "trimmed_mean"], f=4)``.

Two passes over the rows, chunk by chunk: one for the geometry, where a name needs it, and one for the result. Between
them every pre-aggregator is a matrix of size n, and the matrices are multiplied, not the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from testudo_common.errors import AggregationError
from testudo_server.aggregate.base import Aggregated, Floats, Mix, Rows, check_f, checked_rows
from testudo_server.aggregate.blocks import Work, combine
from testudo_server.aggregate.caf import caf
from testudo_server.aggregate.coordinate import mean_of_ranks, median_ranks, trimmed_ranks
from testudo_server.aggregate.dedupe import LOW_MEDIAN, SIMILAR, dedupe
from testudo_server.aggregate.geometric import centred_clipping, geometric_median
from testudo_server.aggregate.gram import Geometry, measure, measure_norms
from testudo_server.aggregate.influence import influence_of_ranks
from testudo_server.aggregate.mda import NODE_BUDGET, mda
from testudo_server.aggregate.mixing import arc, bucketing, clip, nnm
from testudo_server.aggregate.selection import krum, multi_krum


@dataclass(frozen=True, slots=True)
class Settings:
    """The numbers of those that have any.

    Attributes:
        max_norm: clip: L2 norm; it must be given.
        bucket_size: bucketing: rows a bucket, 1 or more.
        similar: dedupe: cosine over which rows are copies.
        low_median: dedupe: median cosine up to which a copy is odd.
        radius: centred_clipping: L2 norm; the median distance where not given.
        iterations: centred_clipping: 1 or more.
        node_budget: mda: branches of its search.
    """

    max_norm: float | None = None
    bucket_size: int = 2
    similar: float = SIMILAR
    low_median: float = LOW_MEDIAN
    radius: float | None = None
    iterations: int = 20
    node_budget: int = NODE_BUDGET


def _mean(geometry: Geometry, f: int, _settings: Settings) -> Floats:
    del f  # it withstands none; kappa is unbounded
    m = len(geometry.distances)
    return np.full(m, 1.0 / m)


def _krum(geometry: Geometry, f: int, _settings: Settings) -> Floats:
    return krum(geometry, f)


def _multi_krum(geometry: Geometry, f: int, _settings: Settings) -> Floats:
    return multi_krum(geometry, f)


def _geometric_median(geometry: Geometry, f: int, _settings: Settings) -> Floats:
    return geometric_median(geometry, f)


def _centred_clipping(geometry: Geometry, f: int, settings: Settings) -> Floats:
    return centred_clipping(geometry, f, radius=settings.radius, iterations=settings.iterations)


def _mda(geometry: Geometry, f: int, settings: Settings) -> Floats:
    return mda(geometry, f, node_budget=settings.node_budget)


def _caf(geometry: Geometry, f: int, _settings: Settings) -> Floats:
    return caf(geometry, f)


def _clip(geometry: Geometry, f: int, settings: Settings) -> Mix:
    assert settings.max_norm is not None  # chain has seen to it
    return clip(geometry, f, max_norm=settings.max_norm)


def _arc(geometry: Geometry, f: int, _settings: Settings) -> Mix:
    return arc(geometry, f)


def _nnm(geometry: Geometry, f: int, _settings: Settings) -> Mix:
    return nnm(geometry, f)


def _dedupe(geometry: Geometry, f: int, settings: Settings) -> Mix:
    return dedupe(geometry, f, similar=settings.similar, low_median=settings.low_median)


_MIXES: dict[str, Callable[[Geometry, int, Settings], Mix]] = {
    "clip": _clip,
    "arc": _arc,
    "nnm": _nnm,
    "dedupe": _dedupe,
}
_WEIGHTS: dict[str, Callable[[Geometry, int, Settings], Floats]] = {
    "mean": _mean,
    "krum": _krum,
    "multi_krum": _multi_krum,
    "geometric_median": _geometric_median,
    "centred_clipping": _centred_clipping,
    "mda": _mda,
    "caf": _caf,
}
_RANKS: dict[str, Callable[[int, int], range]] = {"median": median_ranks, "trimmed_mean": trimmed_ranks}

PRE_AGGREGATORS = (*_MIXES, "bucketing")
RULES = (*_WEIGHTS, *_RANKS)
_NEED_NOTHING = {"mean", "bucketing", *_RANKS}
_NEED_NORMS = {"mean", "clip", "arc", *_RANKS}


def _measured(names: tuple[str, ...], settings: Settings, rows: Rows, work: Work) -> Geometry:
    """What this chain looks at, in as little time as it takes."""
    if _NEED_NOTHING.issuperset(names):
        unknown = np.full((len(rows), len(rows)), np.nan)
        return Geometry(unknown, unknown)
    one_step = {"centred_clipping"} if settings.iterations == 1 else set()  # from zero: only norms
    return measure_norms(rows, work) if (_NEED_NORMS | one_step).issuperset(names) else measure(rows, work)


@dataclass(frozen=True, slots=True)
class Chain:
    """Pre-aggregators and a rule, ready to be called; a pure function. Made by :func:`chain`."""

    names: tuple[str, ...]
    f: int
    settings: Settings

    def __call__(self, rows: Rows, *, rng: np.random.Generator | None = None, work: Work | None = None) -> Aggregated:
        """Aggregate.

        Args:
            rows: ``float32[n, d]``, finite; read only.
            rng: What bucketing draws from; nothing else draws.
            work: How columns are cut; changes no bit of the result.

        Raises:
            AggregationError: Rows that are not finite, by their numbers; more bad ones than the rule withstands; a
                search that took too long.
        """
        work = Work() if work is None else work
        rows = checked_rows(rows)
        check_f(self.names[0], len(rows), self.f)
        geometry = _measured(self.names, self.settings, rows, work)
        matrix: Floats | None = None
        f = self.f
        merged: tuple[tuple[int, ...], ...] = ()
        for name in self.names[:-1]:
            mix = self._mix(name, geometry, f, rng)
            geometry, f = geometry.mixed(mix.matrix), mix.f
            merged += _members(mix.merged, matrix)
            matrix = mix.matrix if matrix is None else mix.matrix @ matrix
        rule, m = self.names[-1], len(geometry.distances)
        check_f(rule, m, f)
        if rule in _RANKS:
            ranks = _RANKS[rule](m, f)
            vector = mean_of_ranks(rows, ranks, work, matrix)
            return Aggregated(vector, influence_of_ranks(rows, ranks, matrix), f, merged)
        weights = _WEIGHTS[rule](geometry, f, self.settings)
        influence = weights if matrix is None else weights @ matrix  # [n]
        return Aggregated(combine(influence, rows, work), influence, f, merged)

    def _mix(self, name: str, geometry: Geometry, f: int, rng: np.random.Generator | None) -> Mix:
        if name != "bucketing":
            return _MIXES[name](geometry, f, self.settings)
        if rng is None:
            raise AggregationError("bucketing draws, and has no generator", where="aggregation", remedy="give it rng")
        return bucketing(len(geometry.distances), f, size=self.settings.bucket_size, rng=rng)


def chain(names: Sequence[str], *, f: int, settings: Settings | None = None) -> Chain:
    """A chain from names, in the order in which they act.

    Args:
        names: Any of ``PRE_AGGREGATORS``, then one of ``RULES``.
        f: How many of the rows may be bad; of groups, ``min(f, groups)``.
        settings: The numbers of those that have any.

    Raises:
        AggregationError: There is no such chain.
    """
    settings = Settings() if settings is None else settings
    check_names(names)
    if "clip" in names and settings.max_norm is None:
        raise AggregationError("clip has no max_norm", where="aggregation", remedy="give the norm")
    if settings.bucket_size < 1 or settings.iterations < 1:
        raise AggregationError(
            "bucket_size or iterations is under 1", where="aggregation", remedy="take whole numbers from 1"
        )
    return Chain(tuple(names), f, settings)


def check_names(names: Sequence[str]) -> None:
    """Refuse what is no chain.

    Raises:
        AggregationError: A name is unknown, or not in its place.
    """
    unknown = [name for name in names[:-1] if name not in PRE_AGGREGATORS]
    if not names or names[-1] not in RULES or unknown:
        raise AggregationError(
            f"{list(names)} is no chain",
            where="aggregation",
            remedy=f"take any of {', '.join(PRE_AGGREGATORS)}, and then one of {', '.join(RULES)}",
        )


def _members(merged: tuple[tuple[int, ...], ...], matrix: Floats | None) -> tuple[tuple[int, ...], ...]:
    """Rows behind merged points; points are rows where nothing came before."""
    if matrix is None:
        return merged
    return tuple(tuple(int(row) for row in np.flatnonzero(matrix[list(points)].any(axis=0))) for points in merged)
