"""Attacks from the mean, the spread and the main direction of honest updates: ALIE, IPM, mimic.

ALIE and IPM take their strength as an argument, or search it where the defence is known. Their rows are equal, and
shortened to ``max_norm``.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from testudo_server.aggregate.base import Rows
from testudo_simulations.attacks.damage import strongest
from testudo_simulations.attacks.knowledge import Attack, Knowledge, sent

STRENGTHS = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 100.0)  # of z and of epsilon; the last fills max_norm
LEAST_Z = 0.1
EPSILON = 0.5


def alie_z(n: int, b: int) -> float:
    """z of "A Little Is Enough": ``Phi^-1((n - b - s) / (n - b))`` with ``s = floor(n / 2 + 1) - b`` supporters to win.

    Where b is so small that no z over 0 would win them it is ``LEAST_Z``, and where b is most of n, so that none is
    needed, the quantile is ``h / (h + 1)`` of the h = n - b honest ones, since 1 has none.

    Args:
        n: All rows.
        b: Bad ones among them, 1 to n - 1.

    Source: Baruch, Baruch & Goldberg 2019 (arXiv 1902.06156), Algorithm 3.
    """
    honest = n - b
    supporters = n // 2 + 1 - b
    share = min((honest - supporters) / honest, honest / (honest + 1))
    return max(LEAST_Z, NormalDist().inv_cdf(share)) if share > 0.0 else LEAST_Z


def alie(z: float | None = None) -> Attack:
    """A Little Is Enough: all send ``mean - z * std`` of the honest updates, coordinate by coordinate.

    Args:
        z: Standard deviations. Where not given it is :func:`alie_z`; or, if the defence is known, the one of that and
            of ``STRENGTHS`` which moves the aggregate furthest from the honest mean.

    Sources: Baruch et al. 2019; the search, Allouah et al. 2023 and ByzFL, which adds ``tau * std`` instead, with
    h - 1 in the standard deviation.
    """

    def attack(knowledge: Knowledge) -> Rows:
        mean, std = knowledge.honest_mean(), knowledge.honest_std()

        def at(strength: float) -> Rows:
            return sent(mean - strength * std, knowledge.b, max_norm=knowledge.max_norm)

        if z is not None:
            return at(z)
        published = alie_z(knowledge.n, knowledge.b)
        if knowledge.defence is None:
            return at(published)
        return strongest(knowledge, map(at, (published, *STRENGTHS)))

    return attack


def ipm(epsilon: float | None = None) -> Attack:
    """Inner product manipulation: all send ``-epsilon`` times the mean of the honest updates.

    Args:
        epsilon: Under 1 hides among short rows; over ``h / b`` turns the plain mean round. Where not given it is
            ``EPSILON``; or, if the defence is known, the one of that, ``h / b`` and ``STRENGTHS`` which moves the
            aggregate furthest from the honest mean.

    Source: Xie, Koyejo & Gupta 2020, "Fall of Empires" (arXiv 1903.03936).
    """

    def attack(knowledge: Knowledge) -> Rows:
        mean = knowledge.honest_mean()

        def at(strength: float) -> Rows:
            return sent(-strength * mean, knowledge.b, max_norm=knowledge.max_norm)

        if epsilon is not None:
            return at(epsilon)
        if knowledge.defence is None:
            return at(EPSILON)
        return strongest(knowledge, map(at, (len(knowledge.honest) / knowledge.b, *STRENGTHS)))

    return attack


def mimic_target(honest: Rows) -> int:
    """The row with the greatest absolute projection on the direction in which honest rows vary most.

    Args:
        honest: ``float32[h, d]``.

    The direction is the top eigenvector of the covariance, by way of the Gram matrix of size h; the row itself is
    projected, not its difference from the mean, as in the paper. The first of equals; row 0 where none varies.
    """
    rows = honest.astype(np.float64)
    centred = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    if values[-1] <= 0.0:
        return 0
    direction = vectors[:, -1] @ centred  # [d]
    return int(np.argmax(np.abs(rows @ direction)))


def mimic(target: int | None = None) -> Attack:
    """All copy one honest client, so that it has the weight of many and others lose theirs; no row is out of place.

    Args:
        target: Which row of ``honest``. Where not given, :func:`mimic_target` of this round's rows. In the paper the
            client is fixed after some rounds: to do so, give it.

    Source: Karimireddy, He & Jaggi 2022, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing".
    """

    def attack(knowledge: Knowledge) -> Rows:
        chosen = mimic_target(knowledge.honest) if target is None else target
        return np.repeat(knowledge.honest[[chosen]], knowledge.b, axis=0)

    return attack
