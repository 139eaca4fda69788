"""Attacks that hide from a search for near-copies: each bad row has noise of its own, at right angles to the others'.

Not from the literature on gradients, where honest rows are alike and copies go unseen: honest meta-updates are almost
orthogonal, so a server merges rows that are not (dedupe). Rows that share a part u and differ in orthogonal noise have
pairwise cosine ``share``: the squared part of their length that is along u. What is left in common is all that averages
to anything, and it is what these attacks push along.
"""

from __future__ import annotations

import numpy as np

from testudo_server.aggregate.base import Floats, Rows
from testudo_server.aggregate.dedupe import SIMILAR
from testudo_simulations.attacks.damage import strongest
from testudo_simulations.attacks.envelope import Direction, direction_of, max_gamma, squared_distances
from testudo_simulations.attacks.knowledge import Attack, Knowledge, norms_of, sent
from testudo_simulations.attacks.statistical import alie_z

SHARE = 0.9 * SIMILAR
HIDDEN_Z = (0.5, 1.5, 5.0)


def own_noise(knowledge: Knowledge, away_from: Floats) -> Floats:
    """``float64[b, d]`` of length 1: drawn with the spread of honest coordinates, orthogonal to ``away_from`` and to
    one another; where d has no room for that, only drawn.

    Args:
        knowledge: Its generator is drawn from.
        away_from: ``float64[k, d]``.
    """
    spread = knowledge.honest_std()
    if not spread.any():
        spread = np.ones_like(spread)
    noise = knowledge.rng.normal(size=knowledge.own.shape) * spread
    k = len(away_from)
    if k + knowledge.b <= noise.shape[1]:
        basis: Floats = np.linalg.qr(np.concatenate([away_from, noise]).T)[0]  # [d, k + b]
        return basis[:, k:].T
    lengths = norms_of(noise)[:, np.newaxis]
    return np.divide(noise, lengths, out=np.zeros_like(noise), where=lengths > 0.0)


def decorrelated(knowledge: Knowledge, vector: Floats, *, share: float = SHARE) -> Rows:
    """Rows along ``vector``, with noise of their own and no longer than an honest row of median length.

    Args:
        knowledge: Of the round.
        vector: ``float64[d]``: what they have in common.
        share: Their pairwise cosine, over 0 and up to 1, where d > b; 1 gives copies.

    Returns:
        ``float32[b, d]``.
    """
    length = float(np.linalg.norm(vector)) * np.sqrt(1.0 / share - 1.0)
    rows = vector + length * own_noise(knowledge, vector[np.newaxis])
    limit = min(float(np.median(knowledge.honest_norms())), knowledge.max_norm)
    return sent(rows, knowledge.b, max_norm=limit)


def adaptive_alie(z: float | None = None, share: float = SHARE) -> Attack:
    """ALIE that dedupe does not see: ``mean - z * std``, and noise of its own on each row.

    Args:
        z: Standard deviations. Where not given it is :func:`~testudo_simulations.attacks.statistical.alie_z`; or, if
            the defence is known, the one of that and of ``HIDDEN_Z`` which moves the aggregate furthest.
        share: Pairwise cosine of bad rows; under dedupe's 0.5, they count as so many.

    Source: after Baruch et al. 2019.
    """

    def attack(knowledge: Knowledge) -> Rows:
        mean, std = knowledge.honest_mean(), knowledge.honest_std()

        def at(strength: float) -> Rows:
            return decorrelated(knowledge, mean - strength * std, share=share)

        if z is not None:
            return at(z)
        published = alie_z(knowledge.n, knowledge.b)
        if knowledge.defence is None:
            return at(published)
        return strongest(knowledge, map(at, (published, *HIDDEN_Z)))

    return attack


def hidden_opposite(share: float = SHARE) -> Attack:
    """The opposite of the honest mean, at the median honest length: ``share`` of its square is that, the rest noise."""

    def attack(knowledge: Knowledge) -> Rows:
        opposite = direction_of(knowledge, "unit")
        length = float(np.median(knowledge.honest_norms()))
        return decorrelated(knowledge, np.sqrt(share) * length * opposite, share=share)

    return attack


def hidden_min_max(direction: Direction = "std", share: float = SHARE) -> Attack:
    """Min-Max with rows that each go another way: ``share`` of the squared way is ``direction``, the rest noise.

    Each is as far as Min-Max allows it to be. The mean is in all of them, so their cosine is somewhat over ``share``.
    Source: after Shejwalkar & Houmansadr 2021.
    """

    def attack(knowledge: Knowledge) -> Rows:
        mean, along = knowledge.honest_mean(), direction_of(knowledge, direction)
        length = float(np.linalg.norm(along))
        common = along / length if length > 0.0 else along
        noise = own_noise(knowledge, np.stack([mean, along]))
        ways = np.sqrt(share) * common + np.sqrt(1.0 - share) * noise  # [b, d]
        centred = knowledge.honest - mean
        squared = squared_distances(centred)
        gammas = np.array([max_gamma(centred, squared, way) for way in ways])
        return sent(mean + gammas[:, np.newaxis] * ways, knowledge.b, max_norm=knowledge.max_norm)

    return attack
