"""Layers of many clients at once, each with the weights of all of them: ``float[clients, ...]``, one client a row.

A layer keeps on a tape what its own way back needs, and knows nothing of steps, losses or noise. Rows of features are
``float[clients, batch, features]``; images are ``float[batch, height, width, clients, channels]``, which oneDNN and
cuDNN read as one grouped convolution with the channels last: the fastest here at 1 to 64 channels.

Sources: per-example norms without per-example gradients, Goodfellow 2015; for convolutions Rochette et al. 2019.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

Weights = Sequence[torch.Tensor]
Tape = tuple[torch.Tensor, ...]

_aten = torch.ops.aten


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
    def per_example(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Each example's gradient, ``float[clients, batch, ...]`` of each of its two weights."""

    @abstractmethod
    def descend(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> None:
        """Take the sum of all examples' gradients from the weights."""

    @abstractmethod
    def weighted(self, slopes: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """Slopes, each example's times its factor, ``float[clients, batch]``."""

    def squared_norms(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, Tape | None]:
        """Of each example's gradient, ``float[clients, batch]``; and the gradients, where they had to be made."""
        gradients = self.per_example(tape, slopes)
        return sum((one.square().flatten(2).sum(dim=2) for one in gradients), slopes.new_zeros(())), gradients


class Linear(WeightedLayer):
    """``inputs @ weight + bias``: weight ``[clients, ins, outs]``, bias ``[clients, outs]``."""

    def __init__(self, at: int) -> None:
        self.at = at

    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        return torch.baddbmm(weights[self.at + 1][:, None], inputs, weights[self.at]), (inputs,)

    def backward(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> torch.Tensor:
        return torch.bmm(slopes, weights[self.at].transpose(1, 2))

    def per_example(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return tape[0][:, :, :, None] * slopes[:, :, None], slopes

    def squared_norms(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, Tape | None]:
        # An outer product's norm is the product of the norms; 1 is the bias's share.
        return (tape[0].square().sum(dim=2) + 1) * slopes.square().sum(dim=2), None

    def descend(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> None:
        weights[self.at].baddbmm_(tape[0].transpose(1, 2), slopes, alpha=-1)
        weights[self.at + 1].sub_(slopes.sum(dim=1))

    def weighted(self, slopes: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        return slopes * factors[:, :, None]


class Convolution(WeightedLayer):
    """3x3, stride 2, padding 1: weight ``[clients, outs, 3, 3, ins]``, bias ``[clients, outs]``.

    Args:
        at: Where its weights are.
        height: Of its input images.
        width: Of its input images.
    """

    def __init__(self, at: int, height: int, width: int) -> None:
        self.at = at
        pixels = torch.arange((height + 2) * (width + 2)).view(height + 2, width + 2)
        down, across = (height + 1) // 2, (width + 1) // 2
        windows = pixels.as_strided((down, across, 3, 3), (2 * (width + 2), 2, width + 2, 1))
        self._windows = windows.flatten()  # which pixels of a padded image each position sees

    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        kernel, bias = weights[self.at], weights[self.at + 1]
        outputs = torch.conv2d(
            _planes(inputs), _kernels(kernel), bias.flatten(), stride=2, padding=1, groups=len(kernel)
        )
        return _images(outputs, len(kernel)), (inputs,)

    def backward(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> torch.Tensor:
        return _images(self._gradients(weights[self.at], tape[0], slopes, [True, False, False])[0], slopes.shape[3])

    def per_example(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch, height, width, clients, ins = tape[0].shape
        padded = torch.nn.functional.pad(tape[0], (0, 0, 0, 0, 1, 1, 1, 1)).view(-1, ins)
        pixel = torch.arange(batch, device=padded.device).view(-1, 1) * (height + 2) * (width + 2) + self._windows
        rows = pixel * clients + torch.arange(clients, device=padded.device).view(-1, 1, 1)
        windows = padded.index_select(0, rows.flatten()).view(clients * batch, -1, 9 * ins)
        own = slopes.flatten(1, 2).permute(2, 0, 1, 3)  # [clients, batch, positions, outs]
        gradients = torch.bmm(own.flatten(0, 1).transpose(1, 2), windows)
        return gradients.view(clients, batch, -1, 3, 3, ins), own.sum(dim=2)

    def descend(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> None:
        kernel = weights[self.at]
        gradient = self._gradients(kernel, tape[0], slopes, [False, True, False])[1]
        kernel.sub_(gradient.permute(0, 2, 3, 1).view_as(kernel))
        weights[self.at + 1].sub_(slopes.flatten(0, 2).sum(dim=0))

    def weighted(self, slopes: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        return slopes * factors.t()[:, None, None, :, None]

    def _gradients(
        self, kernel: torch.Tensor, inputs: torch.Tensor, slopes: torch.Tensor, which: list[bool]
    ) -> list[torch.Tensor]:
        gradients: list[torch.Tensor] = _aten.convolution_backward(
            _planes(slopes), _planes(inputs), _kernels(kernel), None, [2, 2], [1, 1], [1, 1], False, [0, 0],
            len(kernel), which,
        )  # fmt: skip
        return gradients


class GroupNorm(WeightedLayer):
    """Each example's groups of channels, to mean 0 and variance 1, times a scale and plus a shift, ``[clients, channels]``.

    Args:
        at: Where its weights are.
        groups: Of neighbouring channels.
        eps: Added to the variance.
    """

    def __init__(self, at: int, groups: int, eps: float) -> None:
        self.at = at
        self._groups = groups
        self._eps = eps

    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        scale, shift = weights[self.at], weights[self.at + 1]
        flat = inputs.flatten(1, 2)  # [batch, positions, clients, channels]
        centred = flat - self._group_means(flat.mean(dim=1))[:, None]
        variance = self._group_means(centred.square().mean(dim=1))
        root = torch.rsqrt(variance + self._eps)  # [batch, clients, channels]
        outputs = torch.addcmul(shift, centred, (root * scale)[:, None])
        return outputs.view_as(inputs), (centred, root)

    def backward(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> torch.Tensor:
        scale = weights[self.at]
        centred, root = tape
        flat = slopes.flatten(1, 2)
        along, level = self._sums(tape, slopes)
        scaled = root * scale
        positions = flat.shape[1]
        level = self._group_means(level * scale).mul_(root).div_(-positions)
        along = self._group_means(along * scale).mul_(root.square()).div_(-positions)
        before = torch.addcmul(level[:, None], flat, scaled[:, None]).addcmul_(centred, along[:, None])
        return before.view_as(slopes)

    def per_example(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        along, level = self._sums(tape, slopes)
        return along.transpose(0, 1), level.transpose(0, 1)

    def descend(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> None:
        for weight, gradients in zip(weights[self.at : self.at + 2], self._sums(tape, slopes), strict=True):
            weight.sub_(gradients.sum(dim=0))

    def weighted(self, slopes: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        return slopes * factors.t()[:, None, None, :, None]

    def _sums(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Each example's gradient of scale and of shift, ``float[batch, clients, channels]``."""
        centred, root = tape
        flat = slopes.flatten(1, 2)
        return (flat * centred).sum(dim=1).mul_(root), flat.sum(dim=1)

    def _group_means(self, values: torch.Tensor) -> torch.Tensor:
        """``[batch, clients, channels]``, each the mean of its group."""
        grouped = values.view(*values.shape[:2], self._groups, -1)
        return grouped.mean(dim=3, keepdim=True).expand_as(grouped).reshape(values.shape)


class Rows(Layer):
    """Images as rows of features."""

    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        return inputs.permute(3, 0, 1, 2, 4).flatten(2), (inputs,)

    def backward(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> torch.Tensor:
        batch, height, width, clients, channels = tape[0].shape
        return slopes.view(clients, batch, height, width, channels).permute(1, 2, 3, 0, 4).contiguous()


class Relu(Layer):
    """``max(inputs, 0)``."""

    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        outputs = torch.relu_(inputs)
        return outputs, (outputs,)

    def backward(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> torch.Tensor:
        before: torch.Tensor = _aten.threshold_backward(slopes, tape[0], 0)
        return before


class Tanh(Layer):
    """The hyperbolic tangent."""

    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        outputs = torch.tanh_(inputs)
        return outputs, (outputs,)

    def backward(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> torch.Tensor:
        before: torch.Tensor = _aten.tanh_backward(slopes, tape[0])
        return before


def _planes(images: torch.Tensor) -> torch.Tensor:
    """``[batch, height, width, clients, channels]`` as ``[batch, clients * channels, height, width]``, where it lies."""
    return images.flatten(3).permute(0, 3, 1, 2)


def _images(planes: torch.Tensor, clients: int) -> torch.Tensor:
    """The other way round."""
    images = planes.permute(0, 2, 3, 1).contiguous()
    return images.view(*images.shape[:3], clients, -1)


def _kernels(kernel: torch.Tensor) -> torch.Tensor:
    """``[clients, outs, 3, 3, ins]`` as ``[clients * outs, ins, 3, 3]``, where it lies."""
    return kernel.flatten(0, 1).permute(0, 3, 1, 2)
