"""Bucketing against mimicry on label-sorted data: a published table again, on other digits and with our chains.

Source: Karimireddy, He & Jaggi 2022, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing" (arXiv
2006.09365), the table of the mimic attack, and the scripts exp2.py and utils.py of its repository,
epfml/byzantine-robust-noniid-optimizer: n = 25 workers of which f = 5 mimic, batches of 32, 600 iterations, no
momentum, and the mean of the last five of 20 evaluations. docs/bucketing.md says what differs here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from testudo_common.vectors import Vector
from testudo_server.aggregate import Settings, chain
from testudo_server.aggregate.base import Floats, Rows
from testudo_simulations.attacks import Knowledge
from testudo_simulations.attacks.statistical import mimic
from testudo_simulations.benchmarks.label_sorted import Network, label_sorted
from testudo_simulations.benchmarks.measure import Measurement

HONEST, ATTACKERS = 20, 5
CASES: dict[tuple[str, ...], float] = {
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
"""Chains and their test accuracy on MNIST, %, means of three seeds, from outputs/exp2/all/output of the repository."""

_PUBLISHED = "Karimireddy et al. 2022, MNIST"
_RADIUS, _CLIPPING_ITERATIONS = 10.0, 3
_EVERY, _LAST = 30, 5  # iterations between evaluations, and how many of those count


@dataclass(frozen=True, slots=True)
class Setup:
    """How it is trained. What it begins with is what was published, but for the units.

    Attributes:
        learning_rate: Of the server's step.
        iterations: One gradient of each worker in each.
        batch_size: Examples a gradient.
        momentum: beta of the workers, in [0, 1): they send ``beta * last + gradient``.
        warm_up: Iterations, 1 or more, in which the attackers choose whom to copy from then on.
        hidden: Units of the network.
        attackers: How many there are, 0 to 20; the rules' f is 5 all the same.
        published_clipping: Centred clipping moves by three steps from the last result within a radius of
            10 / (1 - beta); otherwise as a chain does it by itself, from zero and within the median distance.
    """

    learning_rate: float = 0.01
    iterations: int = 600
    batch_size: int = 32
    momentum: float = 0.0
    warm_up: int = 1
    hidden: int = 128
    attackers: int = ATTACKERS
    published_clipping: bool = True


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
        """With another iteration's ``float32[h, d]``, which weighs as much as each before it."""
        t = self.seen
        mean = (t * self.mean + honest.mean(axis=0, dtype=np.float64)) / (t + 1)
        off = honest - mean  # [h, d]
        step = _unit(off.T @ (off @ self.direction))  # [d]
        return MainDirection(t + 1, mean, _unit(t * self.direction + step))

    def target(self, honest: Rows) -> int:
        """The row that lies furthest along the direction; not furthest either way."""
        return int(np.argmax(honest @ self.direction))


def _unit(vector: Floats) -> Floats:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0.0 else vector


def _aggregator(names: tuple[str, ...], setup: Setup, rng: np.random.Generator) -> Callable[[Rows], Vector]:
    """A chain; before published centred clipping the last result is subtracted, and added again after it."""
    if names[-1] != "centred_clipping" or not setup.published_clipping:
        rule = chain(names, f=ATTACKERS)
        return lambda rows: rule(rows, rng=rng).vector
    radius = _RADIUS / (1.0 - setup.momentum)
    clipping = chain(names, f=ATTACKERS, settings=Settings(radius=radius, iterations=_CLIPPING_ITERATIONS))
    centre: Vector | None = None

    def clipped(rows: Rows) -> Vector:
        nonlocal centre
        begin = np.zeros(rows.shape[1], dtype=np.float32) if centre is None else centre
        centre = begin + clipping(rows - begin, rng=rng).vector
        return centre

    return clipped


def accuracy_under_mimicry(names: tuple[str, ...], seed: int, setup: Setup) -> float:
    """Train on label-sorted digits, with all attackers copying one honest worker.

    Args:
        names: Of the chain; what it does not change is the same for all chains.
        seed: Of the split, the model, the batches, the buckets and the attack.
        setup: How.

    Returns:
        Test accuracy, %: the mean of the last five evaluations, one every 30 iterations.
    """
    for_model, for_batches, for_buckets, for_attack = (np.random.default_rng([seed, stream]) for stream in range(4))
    shards = label_sorted(seed, HONEST)
    network = Network(shards.inputs.shape[2], setup.hidden)
    model = network.initial(for_model)
    aggregate = _aggregator(names, setup, for_buckets)
    rows: Rows = np.zeros((HONEST, len(model)), dtype=np.float32)  # the honest ones, and then the attackers'
    known = MainDirection(0, np.zeros(len(model)), for_attack.normal(size=len(model)))
    target, accuracies = 0, []
    for iteration in range(1, setup.iterations + 1):
        gradients = network.gradients(model, *shards.batch(setup.batch_size, for_batches))
        rows = honest = setup.momentum * rows[:HONEST] + gradients
        if iteration <= setup.warm_up:
            known = known.after(honest)
            target = known.target(honest)
        if setup.attackers:
            seen = Knowledge(honest[: setup.attackers], honest, None, np.inf, for_attack)
            rows = np.concatenate([honest, mimic(target)(seen)])
        model = model - np.float32(setup.learning_rate) * aggregate(rows)
        if iteration % _EVERY == 0 or iteration == setup.iterations:
            accuracies.append(network.accuracy(model, shards.test))
    return 100.0 * float(np.mean(accuracies[-_LAST:]))


def measure_bucketing(repeats: int, setup: Setup | None = None) -> list[Measurement]:
    """Every chain of the table beside its published figure; then ours of centred clipping, and no attack at all.

    Args:
        repeats: Seeds, from 0.
        setup: How; as published where not given.

    Returns:
        Of each case the mean over seeds, and half of their range.
    """
    setup = Setup() if setup is None else setup
    found = [each for names, known in CASES.items() for each in _over_seeds(names, repeats, setup, known)]
    ours = replace(setup, published_clipping=False)
    for names in (("centred_clipping",), ("bucketing", "centred_clipping")):
        found += _over_seeds(names, repeats, ours, None, ", from zero, median radius")
    return found + _over_seeds(("mean",), repeats, replace(setup, attackers=0), None, ", no attack")


def _over_seeds(
    names: tuple[str, ...], repeats: int, setup: Setup, published: float | None, remark: str = ""
) -> list[Measurement]:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        accuracies = [accuracy_under_mimicry(names, seed, setup) for seed in range(repeats)]
    case = f"{' + '.join(names)}{remark}"
    reference_name = "none: not in that table" if published is None else _PUBLISHED
    half_range = (max(accuracies) - min(accuracies)) / 2.0
    return [
        Measurement(case, "test_accuracy", "%", float(np.mean(accuracies)), published, reference_name),
        Measurement(case, "half_range", "%", half_range, None, "none: not published as such"),
    ]
