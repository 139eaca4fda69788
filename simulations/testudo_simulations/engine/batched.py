"""What the engine needs of a model whose weights are those of many clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

Weights = Sequence[torch.Tensor]
"""Of many clients, ``float[clients, ...]`` each."""


class BatchedModel(Protocol):
    """A model that takes a step for many clients at once."""

    @property
    def entries(self) -> Sequence[torch.Tensor]:
        """Of each weight, which entries of the module's parameters (one after another) it is, ``int64[...]``."""

    @property
    def learning(self) -> Sequence[int]:
        """Which of the weights learn."""

    @property
    def floats(self) -> int:
        """About how many numbers it holds for an example while it takes a step."""

    def pooled(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs ``float[n, *input_shape]`` of any number of clients as they are read here, ``[n, ...]``."""

    def taken(self, pool: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Pooled inputs at ``rows``, ``int64[clients, batch]``."""

    def outputs(self, weights: Weights, inputs: torch.Tensor) -> torch.Tensor:
        """``float[clients, batch, outputs]`` of inputs as :meth:`taken` gives them, outside training."""

    def descend(self, weights: Weights, inputs: torch.Tensor, targets: torch.Tensor, factors: torch.Tensor) -> None:
        """Take from the weights the sum of the examples' gradients, each times its factor.

        Args:
            weights: Changed in place.
            inputs: As :meth:`taken` gives them.
            targets: ``[clients, batch]``.
            factors: ``float[clients, batch]``.
        """

    def descend_clipped(
        self,
        weights: Weights,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        factors: torch.Tensor,
        max_norms: torch.Tensor,
    ) -> None:
        """As :meth:`descend`, each example's gradient made finite and clipped to ``max_norms``, ``[clients, 1]``."""


def weights_of(model: BatchedModel, vectors: torch.Tensor, clients: int) -> list[torch.Tensor]:
    """Parameters ``float[clients or 1, D]`` in the module's order as the model's weights, in memory of their own."""
    found = [vectors[:, entries.flatten()].view(-1, *entries.shape) for entries in model.entries]
    return [weight.expand(clients, *weight.shape[1:]).clone(memory_format=torch.contiguous_format) for weight in found]


def vectors_of(model: BatchedModel, weights: Weights) -> torch.Tensor:
    """The other way round: ``float[clients, D]``."""
    order = torch.cat([entries.flatten() for entries in model.entries])
    return torch.cat([weight.flatten(1) for weight in weights], dim=1)[:, torch.argsort(order)]
