"""Attacks on a federation, to measure what defences are worth: pure functions of what the adversary knows.

Not for use against anybody: they need the honest updates of a round, which no client of a real federation is given.
"""

from testudo_simulations.attacks.damage import damage_of, distance, toward
from testudo_simulations.attacks.knowledge import Attack, Knowledge
from testudo_simulations.attacks.registry import UPDATE_ATTACKS

__all__ = ["UPDATE_ATTACKS", "Attack", "Knowledge", "damage_of", "distance", "toward"]
