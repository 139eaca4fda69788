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
        return squared_norms_of(gradients), gradients


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
    """3x3, stride 2, padding 1: weight ``[clients, outs, 3, 3, ins]``, bias ``[clients, outs]``."""

    def __init__(self, at: int) -> None:
        self.at = at

    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        kernel, bias = weights[self.at], weights[self.at + 1]
        outputs = torch.conv2d(
            _planes(inputs), _kernels(kernel), bias.flatten(), stride=2, padding=1, groups=len(kernel)
        )
        return _images(outputs, len(kernel)), (inputs,)

    def backward(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> torch.Tensor:
        return _images(self._gradients(weights[self.at], tape[0], slopes, [True, False, False])[0], slopes.shape[3])

    def per_example(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _products(self._windows(tape[0]), _positions(slopes), tape[0].shape[4])

    def squared_norms(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, Tape | None]:
        ins = tape[0].shape[4]
        own = _positions(slopes)  # [clients, batch, positions, outs]
        if own.shape[2] * (9 * ins + own.shape[3]) > 9 * ins * own.shape[3]:
            return super().squared_norms(tape, slopes)
        # The Frobenius norm of a product of two tall matrices, from the products of each with itself.
        windows = self._windows(tape[0])
        alike = torch.matmul(windows, windows.transpose(2, 3)).add_(1)  # 1 is the bias's share
        return alike.mul_(torch.matmul(own, own.transpose(2, 3))).sum(dim=(2, 3)), None

    def descend(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> None:
        kernel = weights[self.at]
        gradient = self._gradients(kernel, tape[0], slopes, [False, True, False])[1]
        kernel.sub_(gradient.permute(0, 2, 3, 1).view_as(kernel))
        weights[self.at + 1].sub_(slopes.flatten(0, 2).sum(dim=0))

    def weighted(self, slopes: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        return slopes * factors.t()[:, None, None, :, None]

    def _windows(self, images: torch.Tensor) -> torch.Tensor:
        """What each position sees, ``float[clients, batch, positions, 9 * ins]``."""
        batch, height, width, clients, ins = images.shape
        padded = torch.nn.functional.pad(images, (0, 0, 0, 0, 1, 1, 1, 1)).view(-1, ins)
        seen = seen_from(height, width).to(images.device).flatten()
        pixels = torch.arange(batch, device=images.device).view(-1, 1) * ((height + 2) * (width + 2)) + seen
        rows = pixels * clients + torch.arange(clients, device=images.device).view(-1, 1, 1)
        return padded.index_select(0, rows.flatten()).view(clients, batch, -1, 9 * ins)

    def _gradients(
        self, kernel: torch.Tensor, inputs: torch.Tensor, slopes: torch.Tensor, which: list[bool]
    ) -> list[torch.Tensor]:
        gradients: list[torch.Tensor] = _aten.convolution_backward(
            _planes(slopes), _planes(inputs), _kernels(kernel), None, [2, 2], [1, 1], [1, 1], False, [0, 0],
            len(kernel), which,
        )  # fmt: skip
        return gradients


class WindowedConvolution(Convolution):
    """The same of a model's inputs under DP-SGD: what each position sees of them is the same in every step.

    Args:
        at: Where its weights are.
        height: Of its outputs.
        width: Of its outputs.
    """

    def __init__(self, at: int, height: int, width: int) -> None:
        super().__init__(at)
        self._size = height, width

    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        """Of windows ``float[clients, batch, positions, 9 * ins]``."""
        kernel, bias = weights[self.at], weights[self.at + 1]
        outputs = torch.baddbmm(bias[:, None], inputs.flatten(1, 2), kernel.flatten(2).transpose(1, 2))
        images = outputs.view(*inputs.shape[:2], *self._size, -1).permute(1, 2, 3, 0, 4)
        return images.contiguous(), (inputs,)

    def per_example(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _products(tape[0], _positions(slopes), tape[0].shape[3] // 9)

    def squared_norms(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, Tape | None]:
        return WeightedLayer.squared_norms(self, tape, slopes)


class GroupNorm(WeightedLayer):
    """Each example's groups of channels to mean 0 and variance 1, times a scale, plus a shift, ``[clients, channels]``.

    Args:
        at: Where its weights are.
        means: ``float[channels, channels]``: makes of each channel's value the mean over its group.
        eps: Added to the variance.
    """

    def __init__(self, at: int, means: torch.Tensor, eps: float) -> None:
        self.at = at
        self._means = means
        self._eps = eps

    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        scale, shift = weights[self.at], weights[self.at + 1]
        flat = inputs.flatten(1, 2)  # [batch, positions, clients, channels]
        means = self._means / flat.shape[1]
        centred = flat - (flat.sum(dim=1) @ means)[:, None]
        root = (centred.square().sum(dim=1) @ means).add_(self._eps).rsqrt_()  # [batch, clients, channels]
        outputs = torch.addcmul(shift, centred, (root * scale)[:, None])
        return outputs.view_as(inputs), (centred, root, torch.empty_like(root), torch.empty_like(root))

    def backward(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> torch.Tensor:
        scale = weights[self.at]
        centred, root, along, level = tape
        flat = slopes.flatten(1, 2)
        torch.sum(flat, dim=1, out=level)  # each example's gradient of the shift
        torch.sum(flat * centred, dim=1, out=along).mul_(root)  # and of the scale
        means = self._means / -flat.shape[1]
        offset = ((level * scale) @ means).mul_(root)
        lean = ((along * scale) @ means).mul_(root.square())
        before = torch.addcmul(offset[:, None], flat, (root * scale)[:, None]).addcmul_(centred, lean[:, None])
        return before.view_as(slopes)

    def per_example(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return tape[2].transpose(0, 1), tape[3].transpose(0, 1)

    def descend(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> None:
        weights[self.at].sub_(tape[2].sum(dim=0))
        weights[self.at + 1].sub_(tape[3].sum(dim=0))

    def weighted(self, slopes: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        return slopes * factors.t()[:, None, None, :, None]


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
        _aten.threshold_backward(slopes, tape[0], 0, grad_input=slopes)
        return slopes


class Tanh(Layer):
    """The hyperbolic tangent."""

    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        outputs = torch.tanh_(inputs)
        return outputs, (outputs,)

    def backward(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> torch.Tensor:
        _aten.tanh_backward(slopes, tape[0], grad_input=slopes)
        return slopes


def squared_norms_of(gradients: Tape) -> torch.Tensor:
    """``float[clients, batch]`` of ``gradients``, each ``float[clients, batch, ...]``."""
    norms = [torch.linalg.vector_norm(one.flatten(2), dim=2) for one in gradients]
    return torch.stack(norms).square_().sum(dim=0)


def seen_from(height: int, width: int) -> torch.Tensor:
    """Which pixels of an image padded by 1 each position of a convolution sees, ``int64[down, across, 3, 3]``."""
    pixels = torch.arange((height + 2) * (width + 2))
    return pixels.as_strided(((height + 1) // 2, (width + 1) // 2, 3, 3), (2 * (width + 2), 2, width + 2, 1))


def _products(windows: torch.Tensor, own: torch.Tensor, ins: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each example's gradient of kernel and bias, from what each position sees and the slopes there."""
    kernel = torch.matmul(own.transpose(2, 3), windows)
    return kernel.view(*kernel.shape[:3], 3, 3, ins), own.sum(dim=2)


def _positions(images: torch.Tensor) -> torch.Tensor:
    """``[batch, height, width, clients, channels]`` as ``[clients, batch, positions, channels]``."""
    return images.permute(3, 0, 1, 2, 4).flatten(2, 3)


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
