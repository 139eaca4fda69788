"""Any module whose examples pass through it by themselves, for many clients at once: ``torch.func`` does the stacking.

Slower than the plan's own models, by hand, and several times faster than one client after another.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from testudo_simulations.engine.batched import Layout, Weights
from testudo_simulations.engine.clipping import clipped, descend_along, made_finite, squared_norms_of


class GeneralModel:
    """A module with the parameters of many clients.

    Args:
        model: Any module; a copy of it is used.
        inputs: Shape of one input.
        regression: Squared error instead of cross-entropy.
        private: For DP-SGD.
        like: Has the type and the device of the weights.

    Attributes:
        layout: Of all parameters, the frozen ones too.
        learning: The parameters that are not frozen.
        floats: Per example.
    """

    def __init__(
        self, model: nn.Module, inputs: Sequence[int], *, regression: bool, private: bool, like: torch.Tensor
    ) -> None:
        self._module = copy.deepcopy(model).to(like)
        self._regression = regression
        named = dict(self._module.named_parameters())
        self._names = list(named)
        sizes = [parameter.numel() for parameter in named.values()]
        entries = [
            torch.arange(sum(sizes[:place]), sum(sizes[: place + 1])).view(parameter.shape)
            for place, parameter in enumerate(named.values())
        ]
        self.layout = Layout(entries, like.device)
        self.learning = [place for place, parameter in enumerate(named.values()) if parameter.requires_grad]
        self._frozen = [place for place in range(len(named)) if place not in self.learning]
        self.floats = 3 * _activations(self._module, like.new_zeros(1, *inputs)) + (sum(sizes) if private else 0)

    def pooled(self, inputs: torch.Tensor) -> torch.Tensor:
        """As they are."""
        return inputs

    def taken(self, pool: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """``float[clients, batch, *input_shape]``."""
        return pool[rows]

    def outputs(self, weights: Weights, inputs: torch.Tensor) -> torch.Tensor:
        """``float[clients, batch, outputs]``, with dropout and the like switched off."""
        self._module.eval()
        raw: torch.Tensor = vmap(self._forward)(*self._parted(weights), inputs)
        self._module.train()
        return raw

    def descend(self, weights: Weights, inputs: torch.Tensor, targets: torch.Tensor, factors: torch.Tensor) -> None:
        """As of every batched model."""
        gradients = vmap(grad(self._loss))(*self._parted(weights), inputs, targets, factors)
        for at, gradient in zip(self.learning, gradients, strict=True):
            weights[at].sub_(gradient)

    def descend_clipped(
        self,
        weights: Weights,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        factors: torch.Tensor,
        max_norms: torch.Tensor,
    ) -> None:
        """As of every batched model."""
        per_example = vmap(vmap(grad(self._own_loss), in_dims=(None, None, 0, 0)))
        gradients = [made_finite(one) for one in per_example(*self._parted(weights), inputs, targets)]
        by = clipped(factors, squared_norms_of(gradients), max_norms)
        descend_along([weights[at] for at in self.learning], gradients, by)

    def _parted(self, weights: Weights) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Those that learn, and those that are frozen."""
        return tuple(weights[at] for at in self.learning), tuple(weights[at] for at in self._frozen)

    def _forward(
        self, learning: Sequence[torch.Tensor], frozen: Sequence[torch.Tensor], inputs: torch.Tensor
    ) -> torch.Tensor:
        places = [*self.learning, *self._frozen]
        named = {self._names[place]: one for place, one in zip(places, [*learning, *frozen], strict=True)}
        outputs: torch.Tensor = functional_call(self._module, named, (inputs,))
        return outputs

    def _loss(
        self,
        learning: Sequence[torch.Tensor],
        frozen: Sequence[torch.Tensor],
        inputs: torch.Tensor,
        targets: torch.Tensor,
        factors: torch.Tensor,
    ) -> torch.Tensor:
        outputs = self._forward(learning, frozen, inputs)
        if self._regression:
            losses = F.mse_loss(outputs.squeeze(-1), targets, reduction="none")
        else:
            losses = F.cross_entropy(outputs, targets, reduction="none")
        return (losses * factors).sum()

    def _own_loss(
        self,
        learning: Sequence[torch.Tensor],
        frozen: Sequence[torch.Tensor],
        example: torch.Tensor,
        target: torch.Tensor,
    ) -> torch.Tensor:
        return self._loss(learning, frozen, example[None], target[None], example.new_ones(1))


def _activations(module: nn.Module, example: torch.Tensor) -> int:
    """How many numbers the innermost modules put out for one example."""
    counts = [example.numel()]

    def count(_module: nn.Module, _inputs: Any, outputs: Any) -> None:
        if isinstance(outputs, torch.Tensor):
            counts.append(outputs.numel())

    hooks = [part.register_forward_hook(count) for part in module.modules() if not list(part.children())]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        module(example)
    for hook in hooks:
        hook.remove()
    return sum(counts)
