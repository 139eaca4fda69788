"""Layers of many clients at once, each with the weights of all of them: ``float[clients, ...]``, one client a row.

A layer keeps on a tape what its own way back needs, and knows nothing of steps, losses or noise. Rows of features are
``float[clients, batch, features]``; images are ``float[batch, height, width, clients, channels]``, which oneDNN and
cuDNN read as one grouped convolution with the channels last: the fastest here at 1 to 64 channels.

Sources: per-example norms without per-example gradients, Goodfellow 2015; for convolutions Rochette et al. 2019.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from typing_extensions import override

from testudo_simulations.engine.batched import Weights
from testudo_simulations.engine.clipping import descend_along, squared_norms_of

Tape = tuple[torch.Tensor, ...]


class Layer(ABC):
    """What is done to activations, and to their slopes on the way back."""

    @abstractmethod
    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        """Outputs, and the tape; ``inputs`` may be overwritten."""

    @abstractmethod
    def backward(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> torch.Tensor:
        """Slopes of the inputs, from those of the outputs."""


class WeightedLayer(Layer):
    """A layer whose weights learn.

    Attributes:
        at: Where among all weights its two are.
    """

    at: int

    @abstractmethod
    def descend(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> None:
        """Take the sum of all examples' gradients from the weights."""


class ClippedLayer(WeightedLayer):
    """One that can tell the examples' gradients apart."""

    @abstractmethod
    def per_example(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Each example's gradient, ``float[clients, batch, ...]`` of each of its two weights."""

    def squared_norms(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, Tape | None]:
        """Of each example's gradient, ``float[clients, batch]``; and the gradients, where they had to be made."""
        gradients = self.per_example(tape, slopes)
        return squared_norms_of(gradients), gradients

    def descend_weighted(self, weights: Weights, tape: Tape, slopes: torch.Tensor, factors: torch.Tensor) -> None:
        """As :meth:`descend`, each example's gradient times its factor, ``float[clients, batch]``."""
        descend_along(weights[self.at :], self.per_example(tape, slopes), factors)


class Linear(ClippedLayer):
    """``inputs @ weight + bias``: weight ``[clients, ins, outs]``, bias ``[clients, outs]``."""

    def __init__(self, at: int) -> None:
        self.at = at

    @override
    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        return torch.baddbmm(weights[self.at + 1][:, None], inputs, weights[self.at]), (inputs,)

    @override
    def backward(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> torch.Tensor:
        return torch.bmm(slopes, weights[self.at].transpose(1, 2))

    @override
    def per_example(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return tape[0][:, :, :, None] * slopes[:, :, None], slopes

    @override
    def squared_norms(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, Tape | None]:
        # An outer product's norm is the product of the norms; 1 is the bias's share.
        return (tape[0].square().sum(dim=2) + 1) * slopes.square().sum(dim=2), None

    @override
    def descend(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> None:
        weights[self.at].baddbmm_(tape[0].transpose(1, 2), slopes, alpha=-1)
        weights[self.at + 1].sub_(slopes.sum(dim=1))

    @override
    def descend_weighted(self, weights: Weights, tape: Tape, slopes: torch.Tensor, factors: torch.Tensor) -> None:
        self.descend(weights, tape, slopes * factors[:, :, None])


class GroupNorm(ClippedLayer):
    """Each example's groups of channels to mean 0 and variance 1, times a scale, plus a shift, ``[clients, channels]``.

    Args:
        at: Where its weights are.
        means: ``float[channels, channels]``: makes of each channel's sum over all positions the mean of its group.
        eps: Added to the variance.
    """

    def __init__(self, at: int, means: torch.Tensor, eps: float) -> None:
        self.at = at
        self._means = means
        self._eps = eps

    @override
    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        scale, shift = weights[self.at], weights[self.at + 1]
        flat = inputs.flatten(1, 2)  # [batch, positions, clients, channels]
        centred = flat.sub_((flat.sum(dim=1) @ self._means)[:, None])
        squares = centred.square()
        root = (squares.sum(dim=1) @ self._means).add_(self._eps).rsqrt_()  # [batch, clients, channels]
        outputs = torch.addcmul(shift, centred, (root * scale)[:, None], out=squares)
        return outputs.view_as(inputs), (centred, root, torch.empty_like(root), torch.empty_like(root))

    @override
    def backward(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> torch.Tensor:
        scale = weights[self.at]
        centred, root, along, level = tape
        flat = slopes.flatten(1, 2)
        torch.sum(flat, dim=1, out=level)  # each example's gradient of the shift
        products = flat * centred
        torch.sum(products, dim=1, out=along).mul_(root)  # and of the scale
        offset = ((level * scale) @ self._means).mul_(root).neg_()
        lean = ((along * scale) @ self._means).mul_(root.square()).neg_()
        before = torch.addcmul(offset[:, None], flat, (root * scale)[:, None], out=products)
        return before.addcmul_(centred, lean[:, None]).view_as(slopes)

    @override
    def per_example(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return tape[2].transpose(0, 1), tape[3].transpose(0, 1)

    @override
    def descend(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> None:
        weights[self.at].sub_(tape[2].sum(dim=0))
        weights[self.at + 1].sub_(tape[3].sum(dim=0))


class WideGroupNorm(WeightedLayer):
    """The same in plain training, by torch's own operation, which is faster for wide groups and slower for narrow ones.

    Args:
        at: Where its weights are.
        groups: Of neighbouring channels.
        eps: Added to the variance.
    """

    def __init__(self, at: int, groups: int, eps: float) -> None:
        self.at = at
        self._groups = groups
        self._eps = eps

    @override
    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        scale, shift = weights[self.at], weights[self.at + 1]
        batch, height, width, clients, channels = inputs.shape
        outputs, mean, root = torch.native_group_norm(
            planes_of(inputs), scale.flatten(), shift.flatten(), batch, clients * channels, height * width,
            clients * self._groups, self._eps,
        )  # fmt: skip
        return images_of(outputs, clients), (inputs, mean, root, torch.empty_like(scale), torch.empty_like(shift))

    @override
    def backward(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> torch.Tensor:
        inputs, mean, root, along, level = tape
        batch, height, width, clients, channels = inputs.shape
        before, a, b = torch.ops.aten.native_group_norm_backward(
            planes_of(slopes), planes_of(inputs), mean, root, weights[self.at].flatten(), batch, clients * channels,
            height * width, clients * self._groups, [True, True, True],
        )  # fmt: skip
        along.copy_(a.view_as(along))
        level.copy_(b.view_as(level))
        return images_of(before, clients)

    @override
    def descend(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> None:
        weights[self.at].sub_(tape[3])
        weights[self.at + 1].sub_(tape[4])


class Rows(Layer):
    """Images as rows of features."""

    @override
    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        return inputs.permute(3, 0, 1, 2, 4).flatten(2), (inputs,)

    @override
    def backward(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> torch.Tensor:
        batch, height, width, clients, channels = tape[0].shape
        return slopes.view(clients, batch, height, width, channels).permute(1, 2, 3, 0, 4).contiguous()


class Relu(Layer):
    """``max(inputs, 0)``."""

    @override
    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        outputs = torch.relu_(inputs)
        return outputs, (outputs,)

    @override
    def backward(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> torch.Tensor:
        torch.ops.aten.threshold_backward(slopes, tape[0], 0, grad_input=slopes)
        return slopes


class Tanh(Layer):
    """The hyperbolic tangent."""

    @override
    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        outputs = torch.tanh_(inputs)
        return outputs, (outputs,)

    @override
    def backward(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> torch.Tensor:
        torch.ops.aten.tanh_backward(slopes, tape[0], grad_input=slopes)
        return slopes


def planes_of(images: torch.Tensor) -> torch.Tensor:
    """``[batch, height, width, clients, channels]`` as ``[batch, clients * channels, height, width]``, in place."""
    return images.flatten(3).permute(0, 3, 1, 2)


def images_of(planes: torch.Tensor, clients: int) -> torch.Tensor:
    """The other way round."""
    images = planes.permute(0, 2, 3, 1).contiguous()
    return images.view(*images.shape[:3], clients, -1)
