"""Reptile's inner loop without privacy: K steps of plain SGD on one task, in place. The private one is the client's.

Source: Nichol, Achiam, Schulman 2018, algorithm 1. Plain SGD on purpose: a stateless client cannot carry Adam's
state from task to task, and a fresh one makes the first step the sign of the gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from testudo_common.learning.learner import Learner, as_tensors, batches
from testudo_common.learning.tasks import Examples


@dataclass(frozen=True, slots=True)
class InnerLoop:
    """How to adapt: ``steps`` of SGD at ``learning_rate`` on batches of ``sample_rate`` of the examples."""

    steps: int
    learning_rate: float
    sample_rate: float = 1.0


class PlainSGD:
    """What ``torch.optim.SGD`` does without momentum, to the bit, and as much of it as Opacus asks of what it wraps.

    The first of torch's own optimizers in a process imports torch's compiler, at more than a CPU second.

    Attributes:
        param_groups: As torch's: one, with all parameters.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], learning_rate: float) -> None:
        self.param_groups = [{"params": list(parameters)}]
        self._learning_rate = learning_rate

    def zero_grad(self, _set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = None

    def step(self) -> None:
        """Every parameter that has a gradient, against it."""
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-self._learning_rate)


def run_inner_loop(learner: Learner, examples: Examples, loop: InnerLoop, rng: np.random.Generator) -> None:
    """Train ``learner`` in place from where it stands; nothing happens without examples."""
    if len(examples) == 0:
        return
    inputs, targets = as_tensors(examples)
    optimizer = PlainSGD(learner.model.parameters(), loop.learning_rate)
    whole = round(loop.sample_rate * len(examples)) >= len(examples)
    for rows in batches(len(examples), loop.sample_rate, loop.steps, rng):
        batch_inputs, batch_targets = (inputs, targets) if whole else (inputs[rows], targets[rows])
        optimizer.zero_grad()
        learner.loss(learner.model(batch_inputs), batch_targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@dataclass(frozen=True, slots=True)
class LocalCentre:
    """A client's own support means, subtracted before the inner loop and added back to predictions.

    Attributes:
        inputs: ``float32[*input_shape]``, zeros where inputs are not centred.
        target: In the target's unit.
    """

    inputs: npt.NDArray[np.float32]
    target: float

    @classmethod
    def of(cls, support: Examples, mode: str) -> LocalCentre:
        """The centre of ``support`` under a plan's ``local_centring``; zero for ``none`` and for no support."""
        zeros = np.zeros(support.inputs.shape[1:], dtype=np.float32)
        if mode == "none" or len(support) == 0:
            return cls(zeros, 0.0)
        means = support.inputs.mean(axis=0) if mode == "inputs_and_targets" else zeros
        return cls(means.astype(np.float32), float(support.targets.mean()))

    def subtract(self, examples: Examples) -> Examples:
        """``examples`` around this centre; classes (int targets) are left as they are."""
        if examples.targets.dtype != np.float32:
            return examples
        return Examples(examples.inputs - self.inputs, (examples.targets - np.float32(self.target)).astype(np.float32))
