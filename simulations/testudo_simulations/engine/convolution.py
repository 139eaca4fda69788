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
        return _products(self._windows(tape[0]), _positions(slopes), tape[0].shape[4])

    @override
    def squared_norms(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, Tape | None]:
        ins = tape[0].shape[4]
        own = _positions(slopes)  # [clients, batch, positions, outs]
        if own.shape[2] * (9 * ins + own.shape[3]) > 9 * ins * own.shape[3]:
            return super().squared_norms(tape, slopes)
        # The Frobenius norm of a product of two tall matrices, from the products of each with itself.
        windows = self._windows(tape[0])
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

    def _windows(self, images: torch.Tensor) -> torch.Tensor:
        """What each position sees, ``float[clients, batch, positions, 9 * ins]``."""
        batch, height, width, clients, ins = images.shape
        padded = F.pad(images, (0, 0, 0, 0, 1, 1, 1, 1)).view(-1, ins)
        seen = seen_from(height, width).to(images.device).flatten()
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

    @override
    def forward(self, weights: Weights, inputs: torch.Tensor) -> tuple[torch.Tensor, Tape]:
        """Of windows ``float[clients, batch, positions, 9 * ins]``."""
        kernel, bias = weights[self.at], weights[self.at + 1]
        outputs = torch.baddbmm(bias[:, None], inputs.flatten(1, 2), kernel.flatten(2).transpose(1, 2))
        images = outputs.view(*inputs.shape[:2], *self._size, -1).permute(1, 2, 3, 0, 4)
        return images.contiguous(), (inputs,)

    @override
    def per_example(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _products(tape[0], _positions(slopes), tape[0].shape[3] // 9)

    @override
    def squared_norms(self, tape: Tape, slopes: torch.Tensor) -> tuple[torch.Tensor, Tape | None]:
        return ClippedLayer.squared_norms(self, tape, slopes)


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


def _kernels(kernel: torch.Tensor) -> torch.Tensor:
    """``[clients, outs, 3, 3, ins]`` as ``[clients * outs, ins, 3, 3]``, in place."""
    return kernel.flatten(0, 1).permute(0, 3, 1, 2)
