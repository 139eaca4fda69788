"""Bucketing against mimicry on label-sorted data: a published table again, on other digits and with our chains.

Source: Karimireddy, He & Jaggi 2022, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing" (arXiv
2006.09365), the table of the mimic attack, and the scripts exp2.py and utils.py of its repository,
epfml/byzantine-robust-noniid-optimizer: n = 25 workers of which f = 5 mimic, batches of 32, 600 iterations, no
momentum, and the mean of the last five of 20 evaluations. docs/bucketing.md says what differs here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from testudo_common.vectors import Vector
from testudo_server.aggregate import Settings, chain
from testudo_server.aggregate.base import Floats, Rows
from testudo_simulations.attacks import Knowledge
from testudo_simulations.attacks.statistical import mimic
from testudo_simulations.benchmarks.label_sorted import Network, label_sorted
from testudo_simulations.benchmarks.measure import Measurement

HONEST, ATTACKERS = 20, 5
PUBLISHED: dict[tuple[str, ...], float] = {
    ("mean",): 92.73,
    ("bucketing", "mean"): 92.67,
    ("median",): 64.27,
    ("bucketing", "median"): 78.60,
    ("geometric_median",): 78.93,
    ("bucketing", "geometric_median"): 91.17,
    ("krum",): 37.33,
    ("bucketing", "krum"): 53.15,
    ("centred_clipping",): 91.53,
    ("bucketing", "centred_clipping"): 92.56,
}
"""Test accuracy on MNIST, %: means of three seeds, from outputs/exp2/all/output of the paper's repository."""

_RADIUS, _CLIPPING_ITERATIONS = 10.0, 3
_EVERY, _LAST = 30, 5  # iterations between evaluations, and how many of those count
_MODEL, _BATCHES, _BUCKETS, _ATTACK = 0, 1, 2, 3  # streams of a seed


@dataclass(frozen=True, slots=True)
class Setup:
    """How it is trained.

    Attributes:
        learning_rate: Of the server's step; 0.01 on MNIST.
        iterations: One gradient of each worker in each; 600 on MNIST.
        batch_size: Examples a gradient.
        momentum: beta of the workers: they send ``beta * last + gradient``; 0 in the published table.
        warm_up: Iterations in which the attackers choose whom to copy from then on; 1 in the published runs.
        hidden: Units.
        attackers: How many of them there are; the rules' f all the same.
    """

    learning_rate: float = 0.05
    iterations: int = 600
    batch_size: int = 32
    momentum: float = 0.0
    warm_up: int = 1
    hidden: int = 128
    attackers: int = ATTACKERS


@dataclass(frozen=True, slots=True)
class MainDirection:
    """What mimics know of honest rows: their mean over iterations, and the direction in which they vary most (Oja).

    Attributes:
        seen: Iterations.
        mean: ``float64[d]``.
        direction: ``float64[d]``; of length 1 but for the first, which is drawn at random.
    """

    seen: int
    mean: Floats
    direction: Floats

    def after(self, honest: Rows) -> MainDirection:
        """With another iteration's ``float32[h, d]``; each weighs as much as those before it."""
        t = self.seen
        mean = (t * self.mean + honest.mean(axis=0, dtype=np.float64)) / (t + 1)
        off = honest - mean  # [h, d]
        step = off.T @ (off @ self.direction)  # [d]
        old = t * self.direction if t else np.zeros_like(mean)
        direction = (old + step / max(float(np.linalg.norm(step)), np.finfo(np.float64).tiny)) / (t + 1)
        return MainDirection(t + 1, mean, direction / max(float(np.linalg.norm(direction)), np.finfo(np.float64).tiny))

    def target(self, honest: Rows) -> int:
        """The row that lies furthest along the direction; not furthest either way."""
        return int(np.argmax(honest @ self.direction))


def _aggregator(names: tuple[str, ...], setup: Setup, rng: np.random.Generator) -> Callable[[Rows], Vector]:
    """A chain; centred clipping begins at the last result, as published, which is subtracted first and added again."""
    radius = _RADIUS / (1.0 - setup.momentum)
    rule = chain(names, f=ATTACKERS, settings=Settings(radius=radius, iterations=_CLIPPING_ITERATIONS))
    if names[-1] != "centred_clipping":
        return lambda rows: rule(rows, rng=rng).vector
    centre: Vector | None = None

    def clipped(rows: Rows) -> Vector:
        nonlocal centre
        begin = np.zeros(rows.shape[1], dtype=np.float32) if centre is None else centre
        centre = begin + rule(rows - begin, rng=rng).vector
        return centre

    return clipped


def accuracy_under_mimicry(names: tuple[str, ...], seed: int, setup: Setup) -> float:
    """Train on label-sorted digits, with all attackers copying one honest worker.

    Args:
        names: Of the chain.
        seed: Of the split, the model, the batches, the buckets and the attack; all but the chain is the same for all
            chains.
        setup: How.

    Returns:
        Test accuracy, %: the mean of the last five evaluations, one every 30 iterations.
    """
    model_rng, batches, buckets, attack_rng = (np.random.default_rng([seed, stream]) for stream in range(4))
    shards = label_sorted(seed, HONEST)
    network = Network(shards.inputs.shape[2], setup.hidden)
    model = network.initial(model_rng)
    aggregate = _aggregator(names, setup, buckets)
    honest = np.zeros((HONEST, len(model)), dtype=np.float32)
    known = MainDirection(0, np.zeros(len(model)), attack_rng.normal(size=len(model)))
    target, accuracies = 0, []
    for iteration in range(1, setup.iterations + 1):
        honest = setup.momentum * honest + network.gradients(model, *shards.batch(setup.batch_size, batches))
        if iteration <= setup.warm_up:
            known = known.after(honest)
            target = known.target(honest)
        rows = np.concatenate([honest, honest[:0]])
        if setup.attackers:
            own = honest[: setup.attackers]
            rows = np.concatenate([honest, mimic(target)(Knowledge(own, honest, None, np.inf, attack_rng))])
        model = model - np.float32(setup.learning_rate) * aggregate(rows)
        if iteration % _EVERY == 0 or iteration == setup.iterations:
            accuracies.append(network.accuracy(model, shards.test))
    return 100.0 * float(np.mean(accuracies[-_LAST:]))
