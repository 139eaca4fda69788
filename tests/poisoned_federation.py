"""A federation small enough to poison in a fifth of a second: nine writers of digits and a linear model. No tests.

Measured over five rounds with two poisoned clients: accuracy 0.83 with nobody poisoned; under the mean ipm leaves 0.02,
ten times the sign 0.12, and the scaled backdoor is taken always; under the recommended rule (CAF) 0.78, 0.83, and 0.04.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from secure_federation import Members
from testudo_client.participant import Participant
from testudo_common.errors import UsageError
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import parse_plan
from testudo_common.vectors import Vector
from testudo_common.wire import RefusalReason, TrainRequest
from testudo_server.aggregate.base import Rows
from testudo_simulations.attacks.adversary import Adversary, Poison
from testudo_simulations.attacks.cell import Cell, CellRequest, run_cell
from testudo_simulations.attacks.participants import PoisonedMaskFreeParticipant, PoisonedParticipant
from testudo_simulations.federations import load_federation
from testudo_simulations.federations.base import Federation
from testudo_simulations.mask_free import MaskFreeParticipant

WRITERS: dict[str, Any] = {
    "name": "writers",
    "seed": 3,
    "data": {
        "federation": "digits",
        "clients": 9,
        "unseen_clients": 4,
        "examples": 60,
        "side": 8,
        "polarity": False,
        "rotation_degrees": 20,
    },
    "task": {"kind": "classification"},
    "model": {"name": "linear"},
    "inner": {"steps": 5, "learning_rate": 0.5, "sample_rate": 0.3},
    "outer": {"step_size": 1.0},
    "rounds": {"count": 5, "cohort_size": 9},
    "evaluation": {"shots": [2], "steps": 3},
    "secure_aggregation": {"mode": "plain"},
}
WAVES: dict[str, Any] = {
    "name": "waves",
    "data": {"federation": "sine", "clients": 8, "unseen_clients": 3},
    "task": {"kind": "regression"},
    "model": {"name": "mlp", "hidden": [8]},
    "inner": {"steps": 3, "learning_rate": 0.05},
    "rounds": {"count": 3, "cohort_size": 8},
    "evaluation": {"shots": [5], "steps": 3},
    "secure_aggregation": {"mode": "plain"},
}


def cell_request(
    attack: str,
    defence: str,
    *settings: str,
    poisoned: int = 2,
    seed: int = 1,
    tables: dict[str, Any] | None = None,
    masks: bool = False,
) -> CellRequest:
    """A cell of the matrix of :data:`WRITERS`, or of other tables."""
    return CellRequest(tables or WRITERS, "a test", settings, None, attack, defence, poisoned, seed, masks)


@lru_cache(maxsize=128)
def cell_of(attack: str, defence: str, *settings: str, poisoned: int = 2, seed: int = 1) -> Cell:
    """The cell, run once."""
    return run_cell(cell_request(attack, defence, *settings, poisoned=poisoned, seed=seed))


def writers(*settings: str) -> Federation:
    """The federation of :data:`WRITERS` with ``section.key=value`` changed."""
    return load_federation(parse_plan(WRITERS, source="a test", settings=settings), None)


def nothing(rows: Rows) -> Vector:
    """A defence for adversaries that ask none."""
    raise UsageError("nobody asks it")


def adversary_of(plan: FederationPlan, poison: Poison, poisoned: Iterable[str], *, amplification: int = 1) -> Adversary:
    """One that does not adapt."""
    return Adversary(
        poison,
        frozenset(poisoned),
        defence=nothing,
        max_norm=plan.outer.max_update_norm,
        amplification=amplification,
        seed=0,
    )


def poisoned_members(
    plan: FederationPlan, names: Iterable[str], adversary: Adversary, *, masks: bool = True, **more: Any
) -> Members:
    """Members of whom some answer as ``adversary`` wants."""
    kind: Any = PoisonedParticipant if masks else PoisonedMaskFreeParticipant
    usual: Any = Participant if masks else MaskFreeParticipant
    names = tuple(names)
    kinds = {name: partial(kind, adversary) if name in adversary.poisoned else usual for name in names}
    members = Members(plan, names, kinds=kinds, **more)
    adversary.watch({name: _asking(members, name) for name in names})
    return members


def _asking(members: Members, name: str) -> Callable[[TrainRequest], Vector | None]:
    def ask(request: TrainRequest) -> Vector | None:
        update = members.participants[name].own_update(request)
        return None if isinstance(update, RefusalReason) else update

    return ask


def always(row: Vector) -> Poison:
    """All poisoned clients send ``row``."""

    def attack(knowledge: Any) -> Rows:
        rows: Rows = np.tile(row, (knowledge.b, 1))
        return rows

    return Poison("always", update=attack)
