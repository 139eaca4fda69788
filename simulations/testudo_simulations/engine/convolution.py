"""The plan's convolution, 3x3 with stride 2 and padding 1, of many clients at once.

All clients' as one grouped convolution, with the clients beside each other in the channels, which come last.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F
from typing_extensions import override

from testudo_simulations.engine.batched import Weights
from testudo_simulations.engine.layers import ClippedLayer, Tape, images_of, planes_of


class Convolution(ClippedLayer):
    """3x3, stride 2, padding 1: weight ``[clients, outs, 3, 3, ins]``, bias ``[clients, outs]``."""

    def __init__(self, at: int) -> None:
        self.at = at

    @override
    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        kernel, bias = weights[self.at], weights[self.at + 1]
        outputs = torch.conv2d(
            planes_of(inputs), _kernels(kernel), bias.flatten(), stride=2, padding=1, groups=len(kernel)
        )
        return images_of(outputs, len(kernel)), (inputs,)

    @override
    def backward(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> torch.Tensor:
        return images_of(self._gradients(weights[self.at], tape[0], slopes, [True, False, False])[0], slopes.shape[3])

    @override
    def per_example(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        own, windows = _positions(slopes), self._windows_of(tape)
        clients, batch, _, outs = own.shape
        one, other = own.flatten(0, 1), windows.flatten(0, 1)
        if outs < other.shape[2] // 2:  # small products are cheaper with the longer side last
            kernel = torch.bmm(one.transpose(1, 2), other)
        else:
            kernel = torch.bmm(other.transpose(1, 2), one).transpose(1, 2)
        return kernel.view(clients, batch, outs, 3, 3, -1), own.sum(dim=2)

    @override
    def squared_norms(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, Tape | None]:
        _, down, across, _, outs = slopes.shape
        seen = 9 * tape[0].shape[4]
        if down * across * (seen + outs) > seen * outs:
            return super().squared_norms(tape, slopes)
        # The Frobenius norm of a product of two matrices, from the products of each with itself.
        own, windows = _positions(slopes), self._windows_of(tape)
        alike = torch.matmul(windows, windows.transpose(2, 3)).add_(1)  # 1 is the bias's share
        return alike.mul_(torch.matmul(own, own.transpose(2, 3))).sum(dim=(2, 3)), None

    @override
    def descend(self, weights: Weights, tape: Tape, slopes: torch.Tensor) -> None:
        kernel = weights[self.at]
        gradient = self._gradients(kernel, tape[0], slopes, [False, True, False])[1]
        kernel.sub_(gradient.permute(0, 2, 3, 1).view_as(kernel))
        weights[self.at + 1].sub_(slopes.flatten(0, 2).sum(dim=0))

    @override
    def descend_weighted(self, weights: Weights, tape: Tape, slopes: torch.Tensor, factors: torch.Tensor) -> None:
        self.descend(weights, tape, slopes * factors.t()[:, None, None, :, None])

    def _windows_of(self, tape: Tape) -> torch.Tensor:
        """What each position sees, ``float[clients, batch, positions, 9 * ins]``."""
        images = tape[0]
        batch, height, width, clients, ins = images.shape
        padded = F.pad(images, (0, 0, 0, 0, 1, 1, 1, 1)).view(-1, ins)
        seen = _seen_from(height, width).to(images.device)
        pixels = torch.arange(batch, device=images.device).view(-1, 1) * ((height + 2) * (width + 2)) + seen
        rows = pixels * clients + torch.arange(clients, device=images.device).view(-1, 1, 1)
        return padded.index_select(0, rows.flatten()).view(clients, batch, -1, 9 * ins)

    def _gradients(
        self, kernel: torch.Tensor, inputs: torch.Tensor, slopes: torch.Tensor, which: list[bool]
    ) -> list[torch.Tensor]:
        gradients: list[torch.Tensor] = torch.ops.aten.convolution_backward(
            planes_of(slopes), planes_of(inputs), _kernels(kernel), None, [2, 2], [1, 1], [1, 1], False, [0, 0],
            len(kernel), which,
        )  # fmt: skip
        return gradients


class InputConvolution(Convolution):
    """The same of a model's inputs, which are rows until here.

    Under DP-SGD a row also holds what each position sees of the image, which is the same in every step.

    Args:
        at: Where its weights are.
        shape: Of an image, ``(channels, height, width)``.
        private: For DP-SGD.
    """

    def __init__(self, at: int, shape: tuple[int, int, int], *, private: bool) -> None:
        super().__init__(at)
        self._shape = shape
        self._private = private

    def rows(self, images: torch.Tensor) -> torch.Tensor:
        """Of images ``float[n, channels, height, width]``, ``float[n, ...]``."""
        _, height, width = self._shape
        last = images.permute(0, 2, 3, 1)
        if not self._private:
            return last.flatten(1)
        padded = F.pad(last, (0, 0, 1, 1, 1, 1)).flatten(1, 2)
        seen = _seen_from(height, width).to(images.device)
        return torch.cat([last.flatten(1), padded.index_select(1, seen).flatten(1)], dim=1)

    @override
    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        channels, height, width = self._shape
        images, windows = inputs.tensor_split([channels * height * width], dim=2)
        planes = images.view(*images.shape[:2], height, width, channels).permute(1, 2, 3, 0, 4).contiguous()
        outputs, _ = super().forward(weights, planes)
        return outputs, (planes, windows)

    @override
    def _windows_of(self, tape: Tape) -> torch.Tensor:
        return tape[1].view(*tape[1].shape[:2], -1, 9 * self._shape[0])


def _seen_from(height: int, width: int) -> torch.Tensor:
    """Which pixels of an image padded by 1 each position of a convolution sees, ``int64[positions * 9]``."""
    pixels = torch.arange((height + 2) * (width + 2))
    windows = ((height + 1) // 2, (width + 1) // 2, 3, 3)
    return pixels.as_strided(windows, (2 * (width + 2), 2, width + 2, 1)).flatten()


def _positions(images: torch.Tensor) -> torch.Tensor:
    """``[batch, height, width, clients, channels]`` as ``[clients, batch, positions, channels]``."""
    return images.permute(3, 0, 1, 2, 4).flatten(2, 3)


def _kernels(kernel: torch.Tensor) -> torch.Tensor:
    """``[clients, outs, 3, 3, ins]`` as ``[clients * outs, ins, 3, 3]``, in place."""
    return kernel.flatten(0, 1).permute(0, 3, 1, 2)
