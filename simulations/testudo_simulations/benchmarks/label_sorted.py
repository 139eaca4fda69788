"""scikit-learn's digits sorted by label and cut among workers, and a small network's gradients at each of them.

As heterogeneous as it gets: a worker has one class, or two where it is cut between them. The split is that of
Karimireddy et al. 2022 (arXiv 2006.09365); the network, of one hidden layer, is not theirs. In NumPy, all workers at
once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testudo_common.learning.tasks import Examples
from testudo_common.vectors import Vector
from testudo_server.aggregate.base import Rows
from testudo_simulations.federations.digits import CLASSES, base_pools

Pixels = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shards:
    """What the workers train on, and what all are tested on.

    Attributes:
        inputs: ``float32[workers, m, pixels]``, standardised by one mean and one deviation, as MNIST is there.
        targets: ``int64[workers, m]``, 0..9.
        test: Inputs ``float32[t, pixels]`` and targets ``int64[t]``.
    """

    inputs: Pixels
    targets: Labels
    test: Examples

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Pixels, Labels]:
        """``size`` examples of every worker, without replacement: ``float32[workers, size, pixels]``, and labels."""
        workers, m = self.targets.shape
        chosen = rng.permuted(np.tile(np.arange(m), (workers, 1)), axis=1)[:, :size]  # [workers, size]
        worker = np.arange(workers)[:, np.newaxis]
        return self.inputs[worker, chosen], self.targets[worker, chosen]


def label_sorted(seed: int, workers: int) -> Shards:
    """1400 images, sorted by label and cut into equal parts in that order; the other 397 are for the test.

    Args:
        seed: Which images are which.
        workers: What is left over where it does not divide 1400 is in no part.
    """
    training, support, test = base_pools(seed)
    inputs = np.concatenate([training.inputs, support.inputs])
    targets = np.concatenate([training.targets, support.targets])
    mean, deviation = inputs.mean(), inputs.std()
    m = len(targets) // workers
    order = np.argsort(targets, kind="stable")[: workers * m].reshape(workers, m)
    standardised = Examples((test.inputs - mean) / deviation, test.targets)
    return Shards((inputs[order] - mean) / deviation, targets[order], standardised)


@dataclass(frozen=True, slots=True)
class Network:
    """pixels -> hidden, ReLU -> 10 logits, with biases; its parameters are one ``float32[d]``."""

    pixels: int
    hidden: int

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """In the order in which they lie in the vector."""
        return (self.pixels, self.hidden), (self.hidden,), (self.hidden, CLASSES), (CLASSES,)

    def initial(self, rng: np.random.Generator) -> Vector:
        """Uniform within one over the square root of the fan-in, weights and biases, as PyTorch draws them."""
        fans = (self.pixels, self.pixels, self.hidden, self.hidden)
        drawn = [
            rng.uniform(-1.0, 1.0, int(np.prod(shape))) / np.sqrt(fan)
            for shape, fan in zip(self.shapes, fans, strict=True)
        ]
        return np.concatenate(drawn).astype(np.float32)

    def parts(self, model: Vector) -> list[Pixels]:
        """Views of the vector, of ``shapes``."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        return [part.reshape(shape) for part, shape in zip(np.split(model, ends[:-1]), self.shapes, strict=True)]

    def gradients(self, model: Vector, inputs: Pixels, targets: Labels) -> Rows:
        """Of the mean cross-entropy at every worker.

        Args:
            model: ``float32[d]``.
            inputs: ``float32[workers, b, pixels]``.
            targets: ``int64[workers, b]``.

        Returns:
            ``float32[workers, d]``.
        """
        first, first_bias, second, second_bias = self.parts(model)
        workers, size = targets.shape
        hidden = np.maximum(inputs @ first + first_bias, 0.0)  # [workers, b, hidden]
        logits = hidden @ second + second_bias  # [workers, b, 10]
        off = np.exp(logits - logits.max(axis=2, keepdims=True))
        off /= off.sum(axis=2, keepdims=True)
        off -= np.eye(CLASSES, dtype=np.float32)[targets]
        off /= size
        back = (off @ second.T) * (hidden > 0.0)  # [workers, b, hidden]
        found = (inputs.transpose(0, 2, 1) @ back, back.sum(axis=1), hidden.transpose(0, 2, 1) @ off, off.sum(axis=1))
        return np.concatenate([part.reshape(workers, -1) for part in found], axis=1)

    def accuracy(self, model: Vector, examples: Examples) -> float:
        """Share of the examples whose largest logit is their label's."""
        first, first_bias, second, second_bias = self.parts(model)
        logits = np.maximum(examples.inputs @ first + first_bias, 0.0) @ second + second_bias
        return float((logits.argmax(axis=1) == examples.targets).mean())
