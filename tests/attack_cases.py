"""Cohorts, defences and what an adversary knows of them; for the tests of attacks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from testudo_common.vectors import Vector
from testudo_server.aggregate import chain
from testudo_server.aggregate.base import Floats, Rows
from testudo_simulations.attacks import Knowledge

DEFENCES = [
    ("mean",),
    ("trimmed_mean",),
    ("nnm", "trimmed_mean"),
    ("dedupe", "nnm", "trimmed_mean"),
    ("caf",),
]
NAMED = "+".join  # pytest's id of a chain


def defence_of(names: tuple[str, ...], f: int) -> Callable[[Rows], Vector]:
    """The rule as an adversary asks it."""
    rule = chain(names, f=f)

    def defence(rows: Rows) -> Vector:
        return rule(rows).vector

    return defence


def cohort(h: int, b: int, d: int, seed: int = 0, *, signal: float = 0.25) -> tuple[Rows, Rows]:
    """Updates as those of Reptile are: of length about 1, almost orthogonal, around a mean of length ``signal``.

    Returns:
        The adversary's own, ``float32[b, d]``, and the others', ``float32[h, d]``.
    """
    rng = np.random.default_rng([h, b, d, seed])
    mean = rng.normal(size=d)
    mean *= signal / np.linalg.norm(mean)
    rows = (mean + rng.normal(size=(h + b, d)) / np.sqrt(d)).astype(np.float32)
    return rows[:b], rows[b:]


def knowledge_of(
    own: Rows,
    honest: Rows,
    defence: Callable[[Rows], Vector] | None = None,
    *,
    max_norm: float = np.inf,
    seed: int = 0,
) -> Knowledge:
    """With a generator of the same seed, so that calls can be compared."""
    return Knowledge(own, honest, defence, max_norm, np.random.default_rng(seed))


def cosines(rows: Rows) -> Floats:
    """Of every pair, each once."""
    wide = rows.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return (wide @ wide.T)[np.triu_indices(len(rows), 1)]
