"""One adversary behind all poisoned clients of a run: it knows their updates, and the others', and answers for them.

Omniscient as the literature has it: every honest update of the round is known before the bad ones are made. In a
simulation that is cheap, since a participant asked early gives the same update when the server asks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from testudo_common.errors import UsageError
from testudo_common.learning.tasks import Examples
from testudo_common.vectors import Vector, clip_to_norm
from testudo_common.wire import TrainRequest
from testudo_server.aggregate.base import Rows
from testudo_simulations.attacks.knowledge import Knowledge

UpdateAttack = Callable[[Knowledge], Rows]
PoisonTask = Callable[[Examples, np.random.Generator], Examples]
HonestUpdate = Callable[[TrainRequest], Vector | None]
"""A client's update had it been honest; None where it refuses."""

_WITHIN = 1.0 - 1e-6


@dataclass(frozen=True, slots=True)
class Poison:
    """What poisoned clients do.

    Attributes:
        name: Of the attack.
        task: Changes what they train on; None: they train on their own data.
        update: Makes what they send of what everybody would have sent; None: they send what they trained.
        garble: Whether they put random numbers into the secure sum instead.
        shows: What it does, in a line.
    """

    name: str
    task: PoisonTask | None = None
    update: UpdateAttack | None = None
    garble: bool = False
    shows: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """One round as the adversary saw it.

    Attributes:
        honest: Mean of the honest updates, ``float32[d]``.
        spread: Root of the mean squared distance of honest updates from it.
    """

    honest: Vector = field(repr=False, compare=False)
    spread: float


class Adversary:
    """Makes the updates of all poisoned clients of a round, once.

    Args:
        poison: What they do.
        poisoned: Their ids.
        defence: The server's rule on all updates of a round: what an adaptive attack searches against.
        max_norm: S; longer updates are refused.
        amplification: By how much a poisoned client's vector in a secure sum is longer than an honest one's may be, so
            that it stands for its whole group; 1 in the plain exchange.
        seed: Of what the attacks draw.

    Attributes:
        failure: What went wrong in an attack. A client's error is a refusal to the server, so that an attack that
            fails would look like one that a defence withstood: whoever runs the rounds looks here afterwards.
    """

    def __init__(
        self,
        poison: Poison,
        poisoned: frozenset[str],
        *,
        defence: Callable[[Rows], Vector],
        max_norm: float,
        amplification: int,
        seed: int,
    ) -> None:
        self.poison = poison
        self.poisoned = poisoned
        self.amplification = amplification
        self.seen: dict[int, Seen] = {}
        self.failure: Exception | None = None
        self._defence = defence
        self._max_norm = max_norm
        self._seed = seed
        self._clients: Mapping[str, HonestUpdate] = {}
        self._made: tuple[tuple[int, int], dict[str, Vector]] | None = None

    def watch(self, clients: Mapping[str, HonestUpdate]) -> None:
        """Say where the updates of all clients are to be had; needed before the first round."""
        self._clients = clients

    def update_of(self, client: str, request: TrainRequest) -> Vector | None:
        """What poisoned ``client`` sends instead of its update; None where it would have refused."""
        key = (request.round, request.attempt)
        if self._made is None or self._made[0] != key:
            with self._noted():
                self._made = key, self._make(request)
        return self._made[1].get(client)

    def task_of(self, task: Examples, seeded: np.random.Generator) -> Examples:
        """What a poisoned client trains on instead of ``task``."""
        if self.poison.task is None:
            return task
        with self._noted():
            return self.poison.task(task, seeded)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failure = error
            raise

    def _make(self, request: TrainRequest) -> dict[str, Vector]:
        updates = {client: given for client, ask in self._clients.items() if (given := ask(request)) is not None}
        bad = [client for client in updates if client in self.poisoned]
        good = [updates[client] for client in updates if client not in self.poisoned]
        if self.poisoned.issuperset(self._clients):
            raise UsageError("nobody is honest", remedy="poison fewer clients")
        if not good:  # they refuse, since the model is lost
            return {client: updates[client] for client in bad}
        honest = np.stack(good)
        self.seen[request.round] = _seen(honest)
        if self.poison.update is None or not bad:
            return {client: updates[client] for client in bad}
        label = f"{self._seed}|{request.round}|{request.attempt}|{self.poison.name}".encode()
        rows = self.poison.update(
            Knowledge(
                own=np.stack([updates[client] for client in bad]),
                honest=honest,
                defence=self._defence,
                max_norm=self._room(honest),
                rng=np.random.default_rng(int.from_bytes(hashlib.sha256(label).digest()[:16], "big")),
            )
        )
        return {client: self._allowed(row, honest) for client, row in zip(bad, rows, strict=True)}

    def _allowed(self, row: Vector, honest: Rows) -> Vector:
        """No longer than the server lets through: a longer one would be set aside, and do nothing."""
        return clip_to_norm(row, self._room(honest) * _WITHIN) if np.isfinite(row).all() else row

    def _room(self, honest: Rows) -> float:
        """The longest that a bad row may be: in a group, the mean of the honest members comes on top of it."""
        if self.amplification == 1:
            return self._max_norm
        usual = float(np.median(np.linalg.norm(honest.astype(np.float64), axis=1)))
        return max(0.1 * self._max_norm, self._max_norm - usual)


def _seen(honest: Rows) -> Seen:
    centre = honest.astype(np.float64).mean(axis=0)
    spread = float(np.sqrt(np.mean(np.sum((honest - centre) ** 2, axis=1))))
    return Seen(centre.astype(np.float32), spread)
