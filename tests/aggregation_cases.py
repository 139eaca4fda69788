"""Chains, rows, and attacks on them; for the tests of aggregation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from testudo_server.aggregate import PRE_AGGREGATORS, RULES, Aggregated, Settings, Work, chain
from testudo_server.aggregate.base import Rows

SETTINGS = Settings(max_norm=3.0, radius=2.0)
CHAINS = [
    *((rule,) for rule in RULES),
    *((first, "trimmed_mean") for first in PRE_AGGREGATORS),
    ("arc", "mean"),
    ("clip", "arc", "median"),
    ("nnm", "median"),
    ("nnm", "krum"),
    ("nnm", "geometric_median"),
    ("dedupe", "nnm", "trimmed_mean"),
    ("dedupe", "caf"),
    ("arc", "nnm", "trimmed_mean"),
    ("bucketing", "nnm", "multi_krum"),
]
NAMED = "+".join  # pytest's id of a chain
FROM_ZERO = {"clip", "arc", "dedupe", "centred_clipping"}  # they look at norms, and a shift changes those


def rows_of(n: int, d: int, seed: int) -> Rows:
    """``float32[n, d]`` around a mean that is not zero."""
    rng = np.random.default_rng([n, d, seed])
    return (rng.normal(size=(n, d)) + rng.normal(size=d)).astype(np.float32)


def honest_rows_of(names: tuple[str, ...], n: int, d: int, seed: int) -> Rows:
    """The same; but almost orthogonal, as meta-updates are, where dedupe relies on that."""
    if "dedupe" not in names:
        return rows_of(n, d, seed)
    return np.random.default_rng([n, d, seed]).normal(size=(n, 50 * d)).astype(np.float32)


def aggregate(names: tuple[str, ...], rows: Rows, f: int, *, work: Work | None = None) -> Aggregated:
    """With generators of the same seed, so that calls can be compared."""
    return chain(names, f=f, settings=SETTINGS)(rows, rng=np.random.default_rng(7), work=work)


def least_rows(names: tuple[str, ...], f: int) -> int:
    """How many rows the chain needs to withstand f."""
    least = 2 * f + 3 if names[-1] in ("krum", "multi_krum") else 2 * f + 1
    return 2 * least if "bucketing" in names else least


Attack = Callable[[Rows, int, np.random.Generator], Rows]  # honest rows, f -> float32[f, d]


def _huge(honest: Rows, f: int, rng: np.random.Generator) -> Rows:
    return (1e30 * rng.choice([-1.0, 1.0], size=(f, honest.shape[1]))).astype(np.float32)


def _huge_copies(honest: Rows, f: int, rng: np.random.Generator) -> Rows:
    return np.repeat(_huge(honest, 1, rng), f, axis=0)


def _greatest(honest: Rows, f: int, rng: np.random.Generator) -> Rows:
    return np.full((f, honest.shape[1]), np.finfo(np.float32).max)


def _one_entry(honest: Rows, f: int, rng: np.random.Generator) -> Rows:
    rows = honest[:f].copy()
    rows[:, 0] = 1e20
    return rows


def _denormal(honest: Rows, f: int, rng: np.random.Generator) -> Rows:
    return (1e-44 * rng.integers(-3, 4, size=(f, honest.shape[1]))).astype(np.float32)


def _zeros(honest: Rows, f: int, rng: np.random.Generator) -> Rows:
    return np.zeros((f, honest.shape[1]), dtype=np.float32)


def _sign_flip(honest: Rows, f: int, rng: np.random.Generator) -> Rows:
    return -honest[rng.integers(len(honest), size=f)]


def _little_is_enough(honest: Rows, f: int, rng: np.random.Generator) -> Rows:
    return np.repeat((honest.mean(axis=0) - 1.2 * honest.std(axis=0))[np.newaxis], f, axis=0)


def _far_mean(honest: Rows, f: int, rng: np.random.Generator) -> Rows:
    mean = honest.mean(axis=0)
    return np.repeat((mean + 3.0 * np.linalg.norm(honest - mean, axis=1).mean() * mean)[np.newaxis], f, axis=0)


def _scaled_mimic(honest: Rows, f: int, rng: np.random.Generator) -> Rows:
    return honest[:f] * np.float32(1e6)


ATTACKS: dict[str, Attack] = {
    "1e30": _huge,
    "copies of 1e30": _huge_copies,
    "greatest float32": _greatest,
    "one entry of 1e20": _one_entry,
    "denormals": _denormal,
    "zeros": _zeros,
    "sign flip": _sign_flip,
    "a little is enough": _little_is_enough,
    "far along the mean": _far_mean,
    "scaled mimic": _scaled_mimic,
}
