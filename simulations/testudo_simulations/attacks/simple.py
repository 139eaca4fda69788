"""Attacks that need no more than the adversary's own updates, and one that only needs their size. No search.

They may be longer than ``max_norm``, which is the point of some of them: a server that checks refuses those, and
``within_norm`` makes of each the attack that it does not refuse.
"""

from __future__ import annotations

import numpy as np

from testudo_server.aggregate.base import Rows
from testudo_simulations.attacks.knowledge import Attack, Knowledge, norms_of, sent


def within_norm(attack: Attack) -> Attack:
    """The attack with rows over ``max_norm`` shortened to it; its rows must be finite."""

    def shortened(knowledge: Knowledge) -> Rows:
        return sent(attack(knowledge).astype(np.float64), knowledge.b, max_norm=knowledge.max_norm)

    return shortened


def sign_flip(scale: float = 1.0) -> Attack:
    """Each bad client sends minus its own update, times ``scale``.

    ByzFL's attack of this name sends minus the mean of the honest ones instead: that is ``ipm(1.0)``.
    """
    return scaling(-scale)


def scaling(scale: float | None = None) -> Attack:
    """Model replacement: its own update times ``scale``.

    Args:
        scale: n / b where not given: in the plain mean, what the bad clients want then has the weight of all n.

    Source: Bagdasaryan et al. 2020, "How To Backdoor Federated Learning" (arXiv 1807.00459).
    """

    def attack(knowledge: Knowledge) -> Rows:
        factor = knowledge.n / knowledge.b if scale is None else scale
        return sent(factor * knowledge.own.astype(np.float64), knowledge.b)

    return attack


def gaussian(scale: float | None = None) -> Attack:
    """Noise, drawn for each bad client.

    Args:
        scale: Standard deviation of a coordinate. Where not given, each row has the norm of an honest update drawn
            at random, so that no norm tells it from one.
    """

    def attack(knowledge: Knowledge) -> Rows:
        noise = knowledge.rng.normal(size=knowledge.own.shape)
        if scale is not None:
            return sent(scale * noise, knowledge.b)
        lengths = knowledge.rng.choice(knowledge.honest_norms(), size=knowledge.b)
        return sent(noise * (lengths / norms_of(noise))[:, np.newaxis], knowledge.b)

    return attack


def non_finite() -> Attack:
    """In turn: all NaN, all infinite, one NaN in its own update, one minus infinity in its own update.

    Against a rule that looks for neither, one such row is enough: any sum with it is not finite.
    """

    def attack(knowledge: Knowledge) -> Rows:
        rows = knowledge.own.copy()
        places = knowledge.rng.integers(rows.shape[1], size=len(rows))
        for number, row in enumerate(rows):
            where = slice(None) if number % 4 < 2 else places[number]
            row[where] = (np.nan, np.inf, np.nan, -np.inf)[number % 4]
        return rows

    return attack


def free_rider(norm: float = 1e-3) -> Attack:
    """No training: zeros, and noise of L2 norm ``norm``, so that no two rows are equal; not over ``max_norm``."""

    def attack(knowledge: Knowledge) -> Rows:
        noise = knowledge.rng.normal(size=knowledge.own.shape)
        noise *= (norm / norms_of(noise))[:, np.newaxis]
        return sent(noise, knowledge.b, max_norm=knowledge.max_norm)

    return attack
