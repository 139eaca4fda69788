"""The adversary that knows the defence: it tries everything on it before it sends.

Kerckhoffs's principle: a defence is as good as what it does against somebody who knows it (Tramer et al. 2020, "On
Adaptive Attacks"). A search over a list is a lower bound of what such an adversary can do, not an upper one.
"""

from __future__ import annotations

from collections.abc import Iterator

from testudo_server.aggregate.base import Rows
from testudo_simulations.attacks.damage import Damage, distance, strongest
from testudo_simulations.attacks.envelope import DIRECTIONS, min_max, min_sum
from testudo_simulations.attacks.hidden import HIDDEN_Z, SHARE, adaptive_alie, hidden_min_max, hidden_opposite
from testudo_simulations.attacks.knowledge import Attack, Knowledge
from testudo_simulations.attacks.simple import free_rider, gaussian, scaling, sign_flip, within_norm
from testudo_simulations.attacks.statistical import STRENGTHS, alie, alie_z, ipm, mimic

_SHARES = (0.05, 0.2, SHARE, 0.9)


def candidates_for(knowledge: Knowledge) -> Iterator[tuple[str, Attack]]:
    """What is tried, by name: every attack of this package at several strengths, none with rows over ``max_norm``."""
    yield "sign_flip", within_norm(sign_flip())
    yield "sign_flip_x10", within_norm(sign_flip(10.0))
    yield "scaling", within_norm(scaling())
    yield "gaussian", within_norm(gaussian())
    yield "mimic", within_norm(mimic())
    yield "free_rider", free_rider()
    for z in (alie_z(knowledge.n, knowledge.b), *STRENGTHS):
        yield f"alie z={z:g}", alie(z)
    for epsilon in (len(knowledge.honest) / knowledge.b, *STRENGTHS):
        yield f"ipm epsilon={epsilon:g}", ipm(epsilon)
    for direction in DIRECTIONS:
        yield f"min_max {direction}", min_max(direction)
        yield f"min_sum {direction}", min_sum(direction)
        for share in (0.2, SHARE):
            yield f"hidden_min_max {direction} share={share:g}", hidden_min_max(direction, share)
    for share in _SHARES:
        yield f"hidden_opposite share={share:g}", hidden_opposite(share)
        for z in (alie_z(knowledge.n, knowledge.b), *HIDDEN_Z):
            yield f"adaptive_alie z={z:g} share={share:g}", adaptive_alie(z, share)


def adaptive(damage: Damage = distance) -> Attack:
    """Of all candidates, the one that does the most damage to the aggregate of the actual defence.

    Some sixty aggregations a round.

    Args:
        damage: What to do most of: :func:`~testudo_simulations.attacks.damage.distance` from the honest mean, or
            :func:`~testudo_simulations.attacks.damage.toward` its opposite.

    Raises:
        UsageError: When it is called, and the defence is not known.
    """

    def attack(knowledge: Knowledge) -> Rows:
        return strongest(knowledge, (make(knowledge) for _, make in candidates_for(knowledge)), damage)

    return attack
