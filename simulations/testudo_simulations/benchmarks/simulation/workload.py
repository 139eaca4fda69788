"""What is simulated, by every peer alike: clients with a hundred of scikit-learn's digits each, and plans over them.

Clients' examples are views of one array, so that neither a peer's time nor its memory is that of making data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from testudo_common.learning.inner_loop import InnerLoop
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_simulations.federations.base import Federation
from testudo_simulations.federations.complete import with_participations

EXAMPLES = 100
BATCH = 10
LOOP = InnerLoop(steps=EXAMPLES // BATCH, learning_rate=0.1, sample_rate=BATCH / EXAMPLES)
NOISE_MULTIPLIER = 1.0
MAX_GRAD_NORM = 1.0
GROUP = 16
_STRIDE = 37  # examples from one client's first to the next one's

Model = Literal["mlp", "wide mlp", "conv net"]

_MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "hidden": [80], "inputs": [1, 8, 8], "outputs": 10},
    "wide mlp": {"name": "mlp", "hidden": [1333], "inputs": [1, 8, 8], "outputs": 10},
    "conv net": {"name": "conv", "channels": 8, "blocks": 2, "inputs": [1, 16, 16], "outputs": 10},
}


@dataclass(frozen=True, slots=True)
class Work:
    """What a round consists of.

    Attributes:
        clients: That train in each round: all there are.
        model: ``mlp`` has 6,010 parameters, ``wide mlp`` 99,985, ``conv net`` (of the digits scenario) 1,986.
        private: With DP-SGD.
        secure: Updates are summed over groups of 16.
    """

    clients: int
    model: Model = "mlp"
    private: bool = False
    secure: bool = False


def plan_of(work: Work, rounds: int) -> FederationPlan:
    """The plan of ``rounds`` rounds; complete."""
    side = _MODELS[work.model]["inputs"][-1]
    privacy = {"unit": "example", "noise_multiplier": NOISE_MULTIPLIER, "max_grad_norm": MAX_GRAD_NORM}
    secure = {"mode": "secure", "group_size": min(GROUP, work.clients), "step_deadline_seconds": 1e6}
    tables = {
        "name": "bench",
        "data": {"federation": "digits", "clients": work.clients, "examples": EXAMPLES, "side": side},
        "task": {"kind": "classification"},
        "model": _MODELS[work.model],
        "inner": {"steps": LOOP.steps, "learning_rate": LOOP.learning_rate, "sample_rate": LOOP.sample_rate},
        "rounds": {"count": rounds, "cohort_size": work.clients, "deadline_seconds": 1e6},
        "secure_aggregation": secure if work.secure else {"mode": "plain"},
        "audit": {"mode": "off"},
        **({"privacy": privacy} if work.private else {}),
    }
    return FederationPlan.model_validate(tables)


def federation_of(work: Work, rounds: int) -> Federation:
    """The federation of such clients, none of them unseen."""
    training = Clients(work.clients, side=_MODELS[work.model]["inputs"][-1])
    return with_participations(Federation(plan_of(work, rounds), training, {}, source="scikit-learn digits, sliced"))


class Clients(Mapping[str, Examples]):
    """Client id -> its examples, a slice of one array: the clients hold no memory of their own.

    Args:
        count: Of clients.
        side: Pixels, a multiple of 8.
    """

    def __init__(self, count: int, *, side: int) -> None:
        self._count = count
        self._all = _digits(side)

    def __getitem__(self, client: str) -> Examples:
        try:
            number = int(client.removeprefix("client-"))
        except ValueError:
            raise KeyError(client) from None
        if client != _name(number) or number >= self._count:
            raise KeyError(client)
        return self.of(number)

    def of(self, number: int) -> Examples:
        """Of the client with this number."""
        start = number * _STRIDE % (len(self._all) - EXAMPLES)
        return self._all.take(slice(start, start + EXAMPLES))

    def __iter__(self) -> Iterator[str]:
        return map(_name, range(self._count))

    def __len__(self) -> int:
        return self._count


def _name(number: int) -> str:
    return f"client-{number:06d}"


@lru_cache(maxsize=2)
def _digits(side: int) -> Examples:
    """All 1,797 in a drawn order, ``float32[1797, 1, side, side]`` in [-1, 1]: each pixel repeated."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    scaled = (images[order] / 8.0 - 1.0).astype(np.float32).reshape(-1, 1, 8, 8)
    repeated = scaled.repeat(side // 8, axis=2).repeat(side // 8, axis=3)
    return Examples(np.ascontiguousarray(repeated), labels[order].astype(np.int64))
