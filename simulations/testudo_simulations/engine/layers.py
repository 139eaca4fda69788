"""Layers of many clients at once: the weights of each are a slice of ``flat``, ``float[clients, D]``.

Activations are ``float[clients, batch, positions, channels]``, images ``float[clients, batch, height, width,
channels]``: with the channels last, a convolution is one matrix product a client, of the windows it sees. Every layer
keeps what its own backward step needs on a tape, and knows nothing of steps, losses or noise.

Sources: per-example norms without per-example gradients, Goodfellow 2015, and for convolutions Rochette et al. 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F


class Layer(Protocol):
    """A layer without weights."""

    def forward(self, flat: torch.Tensor, inputs: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Outputs, and the tape."""

    def backward(self, flat: torch.Tensor, tape: tuple[torch.Tensor, ...], slopes: torch.Tensor) -> torch.Tensor:
        """Slopes of the inputs, from those of the outputs."""


class WeightedLayer(Layer, Protocol):
    """A layer whose weights learn."""

    def squared_norms(self, tape: tuple[torch.Tensor, ...], slopes: torch.Tensor) -> torch.Tensor:
        """Of each example's gradient, ``float[clients, batch]``."""

    def per_example(self, tape: tuple[torch.Tensor, ...], slopes: torch.Tensor) -> torch.Tensor:
        """Each example's gradient, ``float[clients, batch, size]``."""

    def descend(
        self, flat: torch.Tensor, tape: tuple[torch.Tensor, ...], slopes: torch.Tensor, weights: torch.Tensor
    ) -> None:
        """Take from ``flat`` the sum of the examples' gradients, each times its weight (``float[clients, batch]``)."""


@dataclass(frozen=True, slots=True)
class Linear:
    """``inputs @ weight + bias`` at each position.

    Attributes:
        start: Where in ``flat`` its weight ``[ins, outs]`` begins, which its bias ``[outs]`` follows.
        ins: Input channels.
        outs: Output channels.
    """

    start: int
    ins: int
    outs: int

    def weight(self, flat: torch.Tensor) -> torch.Tensor:
        """``float[clients, ins, outs]``."""
        return flat[:, self.start : self.start + self.ins * self.outs].unflatten(1, (self.ins, self.outs))

    def bias(self, flat: torch.Tensor) -> torch.Tensor:
        """``float[clients, outs]``."""
        start = self.start + self.ins * self.outs
        return flat[:, start : start + self.outs]

    def forward(self, flat: torch.Tensor, inputs: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        outputs = torch.baddbmm(self.bias(flat)[:, None], inputs.flatten(1, 2), self.weight(flat))
        return outputs.view(*inputs.shape[:3], self.outs), (inputs,)

    def backward(self, flat: torch.Tensor, tape: tuple[torch.Tensor, ...], slopes: torch.Tensor) -> torch.Tensor:
        before = torch.bmm(slopes.flatten(1, 2), self.weight(flat).transpose(1, 2))
        return before.view(*slopes.shape[:3], self.ins)

    def squared_norms(self, tape: tuple[torch.Tensor, ...], slopes: torch.Tensor) -> torch.Tensor:
        (inputs,) = tape
        if inputs.shape[2] == 1:  # the gradient is an outer product
            return (inputs.square().sum(dim=(2, 3)) + 1) * slopes.square().sum(dim=(2, 3))
        return self.per_example(tape, slopes).square().sum(dim=2)

    def per_example(self, tape: tuple[torch.Tensor, ...], slopes: torch.Tensor) -> torch.Tensor:
        (inputs,) = tape
        weight = torch.matmul(inputs.transpose(2, 3), slopes)  # [clients, batch, ins, outs]
        return torch.cat([weight.flatten(2), slopes.sum(dim=2)], dim=2)

    def descend(
        self, flat: torch.Tensor, tape: tuple[torch.Tensor, ...], slopes: torch.Tensor, weights: torch.Tensor
    ) -> None:
        (inputs,) = tape
        weighted = (slopes * weights[:, :, None, None]).flatten(1, 2)
        self.weight(flat).baddbmm_(inputs.flatten(1, 2).transpose(1, 2), weighted, alpha=-1)
        self.bias(flat).sub_(weighted.sum(dim=1))


@dataclass(frozen=True, slots=True)
class GroupNorm:
    """Each example's groups of channels, to mean 0 and variance 1, times a scale plus a shift.

    Attributes:
        start: Where in ``flat`` its scale ``[channels]`` begins, which its shift ``[channels]`` follows.
        channels: Of its inputs.
        groups: Of neighbouring channels.
        eps: Added to the variance.
    """

    start: int
    channels: int
    groups: int
    eps: float

    def scale(self, flat: torch.Tensor) -> torch.Tensor:
        """``float[clients, channels]``."""
        return flat[:, self.start : self.start + self.channels]

    def shift(self, flat: torch.Tensor) -> torch.Tensor:
        """``float[clients, channels]``."""
        return flat[:, self.start + self.channels : self.start + 2 * self.channels]

    def forward(self, flat: torch.Tensor, inputs: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        grouped = inputs.unflatten(3, (self.groups, -1))
        variance, mean = torch.var_mean(grouped, dim=(2, 4), correction=0, keepdim=True)
        root = torch.rsqrt(variance + self.eps)  # [clients, batch, 1, groups, 1]
        normed = ((grouped - mean) * root).view_as(inputs)
        outputs = torch.addcmul(self.shift(flat)[:, None, None], normed, self.scale(flat)[:, None, None])
        return outputs, (normed, root)

    def backward(self, flat: torch.Tensor, tape: tuple[torch.Tensor, ...], slopes: torch.Tensor) -> torch.Tensor:
        normed, root = tape
        grouped = (slopes * self.scale(flat)[:, None, None]).unflatten(3, (self.groups, -1))
        normed = normed.unflatten(3, (self.groups, -1))
        along = (grouped * normed).mean(dim=(2, 4), keepdim=True)
        before = (grouped - grouped.mean(dim=(2, 4), keepdim=True) - normed * along) * root
        return before.view_as(slopes)

    def squared_norms(self, tape: tuple[torch.Tensor, ...], slopes: torch.Tensor) -> torch.Tensor:
        return self.per_example(tape, slopes).square().sum(dim=2)

    def per_example(self, tape: tuple[torch.Tensor, ...], slopes: torch.Tensor) -> torch.Tensor:
        return torch.cat([(slopes * tape[0]).sum(dim=2), slopes.sum(dim=2)], dim=2)

    def descend(
        self, flat: torch.Tensor, tape: tuple[torch.Tensor, ...], slopes: torch.Tensor, weights: torch.Tensor
    ) -> None:
        gradients = torch.bmm(weights[:, None], self.per_example(tape, slopes))
        flat[:, self.start : self.start + 2 * self.channels].sub_(gradients[:, 0])


@dataclass(frozen=True, slots=True)
class Windows:
    """What a 3x3 convolution of stride 2 sees at each of its positions, at an image padded by 1.

    Attributes:
        height: Of the image.
        width: Of the image.
    """

    height: int
    width: int

    def forward(self, flat: torch.Tensor, inputs: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        clients, batch, _, channels = inputs.shape
        padded = F.pad(inputs.view(clients, batch, self.height, self.width, channels), (0, 0, 1, 1, 1, 1))
        down, across = (self.height + 1) // 2, (self.width + 1) // 2
        client, example, row, pixel, _ = padded.stride()
        seen = padded.as_strided(
            (clients, batch, down, across, 3, 3 * channels), (client, example, 2 * row, 2 * pixel, row, 1)
        )
        return seen.reshape(clients, batch, down * across, 9 * channels), ()

    def backward(self, flat: torch.Tensor, tape: tuple[torch.Tensor, ...], slopes: torch.Tensor) -> torch.Tensor:
        clients, batch, _, seen = slopes.shape
        down, across = (self.height + 1) // 2, (self.width + 1) // 2
        windows = slopes.view(clients, batch, down, across, 3, 3, seen // 9)
        padded = slopes.new_zeros(clients, batch, self.height + 2, self.width + 2, seen // 9)
        for row in range(3):
            for pixel in range(3):
                padded[:, :, row : row + 2 * down : 2, pixel : pixel + 2 * across : 2] += windows[..., row, pixel, :]
        return padded[:, :, 1 : 1 + self.height, 1 : 1 + self.width].flatten(2, 3)


@dataclass(frozen=True, slots=True)
class Rows:
    """All positions and channels of an example as one row."""

    positions: int

    def forward(self, flat: torch.Tensor, inputs: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        return inputs.flatten(2).unsqueeze(2), ()

    def backward(self, flat: torch.Tensor, tape: tuple[torch.Tensor, ...], slopes: torch.Tensor) -> torch.Tensor:
        return slopes.view(*slopes.shape[:2], self.positions, -1)


class Relu:
    """``max(inputs, 0)``."""

    def forward(self, flat: torch.Tensor, inputs: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        outputs = torch.relu_(inputs)
        return outputs, (outputs,)

    def backward(self, flat: torch.Tensor, tape: tuple[torch.Tensor, ...], slopes: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.threshold_backward(slopes, tape[0], 0)


class Tanh:
    """The hyperbolic tangent."""

    def forward(self, flat: torch.Tensor, inputs: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        outputs = torch.tanh_(inputs)
        return outputs, (outputs,)

    def backward(self, flat: torch.Tensor, tape: tuple[torch.Tensor, ...], slopes: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.tanh_backward(slopes, tape[0])
