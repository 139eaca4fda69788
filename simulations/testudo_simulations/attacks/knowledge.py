"""What an adversary knows when it makes the bad updates of a round, and what an attack is. No attack is in here.

Its strength is set by what it is given, not by the attack: the updates of others or only its own, the server's rule or
none. That it may know all is the model of the papers (Baruch et al. 2019; Shejwalkar & Houmansadr 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from testudo_common.errors import UsageError
from testudo_common.vectors import Vector
from testudo_server.aggregate.base import Floats, Rows

_WITHIN = 1.0 - 1e-6  # of a norm: what is left of it after rounding to float32 is no longer than it
_GREATEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What the adversary knows when it makes the bad updates of a round.

    Attributes:
        own: ``float32[b, d]``, finite, b >= 1: what its b clients would have sent had they been honest.
        honest: ``float32[h, d]``, finite, h >= 1: the updates of the others; for an adversary that sees only its own
            clients this is ``own``, and it takes n for 2b.
        defence: The server's rule, from all n = h + b rows to ``float32[d]``; None where it is not known. It is asked
            with the honest rows first.
        max_norm: S, L2, positive: an honest client clips to it, and a server that checks refuses longer ones.
        rng: What random attacks draw from.

    Raises:
        UsageError: Rows of other shapes or types, or S not positive.
    """

    own: Rows = field(repr=False, compare=False)
    honest: Rows = field(repr=False, compare=False)
    defence: Callable[[Rows], Vector] | None = field(repr=False, compare=False)
    max_norm: float
    rng: np.random.Generator = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        rows = (self.own, self.honest)
        if any(each.dtype != np.float32 or each.ndim != 2 or 0 in each.shape for each in rows):
            raise UsageError("an adversary's rows are not float32[at least 1, at least 1]", where="attack")
        if self.own.shape[1] != self.honest.shape[1]:
            raise UsageError("an adversary's own rows and the others differ in length", where="attack")
        if not self.max_norm > 0.0:
            raise UsageError(f"max_norm is {self.max_norm}", where="attack", remedy="give a positive norm, or inf")

    @property
    def b(self) -> int:
        """Rows that the adversary sends."""
        return len(self.own)

    @property
    def n(self) -> int:
        """Rows that the server is given."""
        return len(self.own) + len(self.honest)

    def honest_mean(self) -> Floats:
        """``float64[d]``."""
        mean: Floats = self.honest.mean(axis=0, dtype=np.float64)
        return mean

    def honest_std(self) -> Floats:
        """``float64[d]``: of each coordinate, over h and not h - 1 as in the code of Baruch et al.; 0 where h is 1."""
        std: Floats = self.honest.std(axis=0, dtype=np.float64)
        return std

    def honest_norms(self) -> Floats:
        """``float64[h]``, L2."""
        return norms_of(self.honest.astype(np.float64))


Attack: TypeAlias = Callable[[Knowledge], Rows]
"""A round's bad updates, ``float32[b, d]``. It changes nothing of what it is given but the generator's state."""


def norms_of(rows: Floats) -> Floats:
    """L2 norms of ``float64[k, d]``, ``float64[k]``."""
    norms: Floats = np.linalg.norm(rows, axis=1)
    return norms


def sent(vectors: Floats, b: int, *, max_norm: float = np.inf) -> Rows:
    """What b clients send.

    Args:
        vectors: ``float64[d]`` for all of them, or ``float64[b, d]``; finite.
        b: How many they are.
        max_norm: Rows that are longer as float32 are shortened, and then are not.

    Returns:
        ``float32[b, d]`` of its own; what is beyond float32 is its greatest number.
    """
    rows = np.array(np.broadcast_to(vectors, (b, vectors.shape[-1])), order="C")
    short = np.clip(rows, -_GREATEST, _GREATEST).astype(np.float32)
    norms = norms_of(short.astype(np.float64))
    long = norms > max_norm
    short[long] = (short[long] * (max_norm * _WITHIN / norms[long])[:, np.newaxis]).astype(np.float32)
    return short
