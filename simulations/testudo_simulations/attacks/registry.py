"""Attacks on updates by name, as the matrix of attacks and defences lists them. Attacks on data are elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from testudo_simulations.attacks.adaptive import adaptive
from testudo_simulations.attacks.damage import toward
from testudo_simulations.attacks.envelope import min_max, min_sum
from testudo_simulations.attacks.hidden import adaptive_alie
from testudo_simulations.attacks.knowledge import Attack
from testudo_simulations.attacks.simple import free_rider, gaussian, non_finite, scaling, sign_flip
from testudo_simulations.attacks.statistical import alie, ipm, mimic


def _sign_flip_x10() -> Attack:
    return sign_flip(10.0)


def _adaptive_bias() -> Attack:
    return adaptive(toward)


UPDATE_ATTACKS: dict[str, Callable[[], Attack]] = {
    "sign_flip": sign_flip,
    "sign_flip_x10": _sign_flip_x10,
    "scaling": scaling,
    "gaussian": gaussian,
    "non_finite": non_finite,
    "alie": alie,
    "ipm": ipm,
    "min_max": min_max,
    "min_sum": min_sum,
    "mimic": mimic,
    "free_rider": free_rider,
    "adaptive_alie": adaptive_alie,
    "adaptive": adaptive,
    "adaptive_bias": _adaptive_bias,
}
"""Each makes the attack at its default strength, which alie, ipm and adaptive_alie search if they know the defence."""
