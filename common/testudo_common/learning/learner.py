"""A model as the federation sees it: one flat vector of shared parameters in, one out, and predictions.

Knows nothing of privacy, rounds or files. The head that is not shared (a plan's ``unshared_head``) is zeroed
whenever a shared vector is loaded, and never leaves. Source: Nichol et al. 2018; the zeroed head after
Raghu et al. 2020 (ANIL) and Arivazhagan et al. 2019 (personalisation layers).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from testudo_common.errors import ModelError
from testudo_common.learning.models import build_model
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector, fault_of_vector


def read_parameters(parameters: Iterable[torch.Tensor]) -> Vector:
    """All parameters, in order, as one ``float32[d]`` of its own."""
    vector: Vector = torch.cat([parameter.detach().reshape(-1) for parameter in parameters]).numpy().copy()
    return vector


def write_parameters(parameters: Iterable[torch.Tensor], vector: Vector) -> None:
    """Put ``vector`` (``float32[d]``) into the parameters, in order."""
    source = torch.from_numpy(np.array(vector, dtype=np.float32))
    start = 0
    with torch.no_grad():
        for parameter in parameters:
            stop = start + parameter.numel()
            parameter.copy_(source[start:stop].view_as(parameter))
            start = stop


def shared_parameters(model: nn.Module, unshared_head: bool) -> dict[str, nn.Parameter]:
    """Name -> parameter, in the order in which they travel; without the head where it is not shared.

    Raises:
        ModelError: The head is not to be shared, and the model has none.
    """
    unshared = {id(parameter) for parameter in _head_of(model)} if unshared_head else set()
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) not in unshared}


def _head_of(model: nn.Module) -> list[nn.Parameter]:
    head = getattr(model, "head", None)
    if not isinstance(head, nn.Module):
        raise ModelError(
            "the model has no attribute 'head', so no head can stay unshared",
            where="model.unshared_head",
            remedy="name the last layer 'head', or write unshared_head = false",
        )
    return list(head.parameters())


class Learner:
    """The plan's model, its shared and unshared parameters, and the loss of the plan's task.

    Attributes:
        model: The module that is trained in place.
        size: d, the number of shared parameters.
    """

    def __init__(self, plan: FederationPlan) -> None:
        self.model = build_model(plan.model, plan.seed)
        self.regression = plan.task.kind == "regression"
        self._head = _head_of(self.model) if plan.model.unshared_head else []
        self._shared = list(shared_parameters(self.model, plan.model.unshared_head).values())
        self.size = sum(parameter.numel() for parameter in self._shared)
        if self.size == 0:
            raise ModelError(
                "no parameter is left to share",
                where="model.unshared_head",
                remedy="share the head, or use a model with a body",
            )

    def vector(self) -> Vector:
        """The shared parameters now, ``float32[d]``."""
        return read_parameters(self._shared)

    def start_from(self, vector: Vector) -> None:
        """Load shared parameters, and zero the head that is not shared.

        Raises:
            ModelError: ``vector`` is not a finite ``float32[d]``.
        """
        if fault := fault_of_vector(vector, self.size):
            raise ModelError(f"the meta-model received is {fault}", remedy="check that plan and model belong together")
        write_parameters(self._shared, vector)
        with torch.no_grad():
            for parameter in self._head:
                parameter.zero_()

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean loss: cross-entropy for classes, squared error for regression."""
        if self.regression:
            return F.mse_loss(outputs.squeeze(-1), targets)
        return F.cross_entropy(outputs, targets)

    def outputs(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Class probabilities ``float32[n, classes]``, or predictions ``float32[n]`` for regression."""
        raw = self._asked(inputs)
        result: npt.NDArray[np.float32] = (raw.squeeze(-1) if self.regression else raw.softmax(-1)).numpy()
        return result

    def raw_outputs(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits ``float32[n, classes]``, or predictions ``float32[n]`` for regression."""
        raw = self._asked(inputs)
        result: npt.NDArray[np.float32] = (raw.squeeze(-1) if self.regression else raw).numpy()
        return result

    def _asked(self, inputs: npt.NDArray[np.float32]) -> torch.Tensor:
        self.model.eval()  # a factory's model may have dropout
        with torch.no_grad():
            raw: torch.Tensor = self.model(torch.from_numpy(np.ascontiguousarray(inputs)))
        self.model.train()
        return raw


def initial_vector(plan: FederationPlan) -> Vector:
    """The shared parameters every federation with this plan starts from, ``float32[d]``."""
    return Learner(plan).vector()


def as_tensors(examples: Examples) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets as tensors that share the arrays' memory where they can."""
    return (
        torch.from_numpy(np.ascontiguousarray(examples.inputs)),
        torch.from_numpy(np.ascontiguousarray(examples.targets)),
    )


def batches(count: int, sample_rate: float, steps: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.intp]]:
    """Rows of ``steps`` batches of ``round(sample_rate * count)`` examples, without replacement until all were seen.

    Args:
        count: Number of examples, 1 or more.
        sample_rate: Share of them in a batch, in (0, 1].
        steps: Number of batches.
        rng: Seeded: without privacy the order of examples is no secret.
    """
    size = max(1, round(sample_rate * count))
    deck = np.empty(0, dtype=np.intp)
    for _ in range(steps):
        if len(deck) < size:
            fresh = rng.permutation(count)
            left_over = np.isin(fresh, deck)  # they come first, and not twice into one batch
            deck = np.concatenate([deck, fresh[~left_over], fresh[left_over]])
        batch, deck = deck[:size], deck[size:]
        yield batch
