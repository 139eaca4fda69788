"""What the engine needs of a model whose weights are those of many clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

Weights = Sequence[torch.Tensor]
"""Of many clients, ``float[clients, ...]`` each."""


class Layout:
    """How a model's weights lie here, and how its module's parameters are one vector.

    Args:
        entries: Of each weight, which entries of the vector it is, ``int64[...]``.
        device: Of the weights.
    """

    def __init__(self, entries: Sequence[torch.Tensor], device: torch.device) -> None:
        self._shapes = [one.shape for one in entries]
        self._order = torch.cat([one.flatten() for one in entries]).to(device)
        self._back = torch.argsort(self._order)

    @property
    def size(self) -> int:
        """D, the number of all parameters."""
        return len(self._order)

    def weights(self, vectors: torch.Tensor, clients: int) -> list[torch.Tensor]:
        """Parameters ``float[clients or 1, D]`` as weights in memory of their own."""
        parts = torch.split(vectors.index_select(1, self._order), [shape.numel() for shape in self._shapes], dim=1)
        wholes = [part.expand(clients, -1).clone(memory_format=torch.contiguous_format) for part in parts]
        return [whole.view(clients, *shape) for whole, shape in zip(wholes, self._shapes, strict=True)]

    def vectors(self, weights: Weights) -> torch.Tensor:
        """The other way round: ``float[clients, D]``."""
        return torch.cat([weight.flatten(1) for weight in weights], dim=1).index_select(1, self._back)


class BatchedModel(Protocol):
    """A model that takes a step for many clients at once."""

    @property
    def layout(self) -> Layout:
        """Of its weights."""

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
