"""The plan's own models read layer by layer, and where each of their parameters goes. Trains nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from testudo_common.errors import ModelError
from testudo_common.learning.models import HeadedModel
from testudo_simulations.engine.convolution import Convolution, WindowedConvolution
from testudo_simulations.engine.layers import GroupNorm, Layer, Linear, Relu, Rows, Tanh, WideGroupNorm

_WIDE = 8  # channels of a group, from which torch's own group norm is the faster one


class Reading:
    """The module's layers read one after another.

    Attributes:
        layers: So far.
        entries: Of each weight, which entries of the module's parameters it is.
        floats: About how many numbers all layers hold for an example.
    """

    def __init__(self, inputs: Sequence[int], first: nn.Module, *, private: bool, like: torch.Tensor) -> None:
        self._private = private
        self._like = like
        self.layers: list[Layer] = []
        self.entries: list[torch.Tensor] = []
        self.floats = math.prod(inputs)
        if isinstance(first, nn.Conv2d):
            self._channels, self._height, self._width = inputs
        else:
            self._channels, self._height, self._width = math.prod(inputs), 1, 1

    def read(self, module: nn.Module) -> None:
        """Append ``module``.

        Raises:
            ModelError: It is not known here.
        """
        match module:
            case nn.Flatten():
                if self.layers:
                    self.layers.append(Rows())
            case nn.ReLU():
                self.layers.append(Relu())
            case nn.Tanh():
                self.layers.append(Tanh())
            case nn.GroupNorm():
                group = module.num_channels // module.num_groups
                alike = torch.full((group, group), 1 / group, dtype=torch.float64)
                means = torch.kron(torch.eye(module.num_groups, dtype=torch.float64), alike)
                means /= self._height * self._width
                if group >= _WIDE and not self._private:
                    self.layers.append(WideGroupNorm(len(self.entries), module.num_groups, module.eps))
                else:
                    self.layers.append(GroupNorm(len(self.entries), means.to(self._like), module.eps))
                self._take((module.num_channels,), (0,))
                self._take((module.num_channels,), (0,))
                self.floats += 2 * self._channels * self._height * self._width
            case nn.Conv2d(kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1), groups=1):
                self._read_convolution(module.in_channels, module.out_channels)
            case nn.Linear():
                self._read_linear(module.out_features)
            case _:
                raise ModelError(
                    f"a {type(module).__name__} is none of the layers that can be stacked", where="model.name"
                )

    def _read_convolution(self, ins: int, outs: int) -> None:
        size = (self._height + 1) // 2, (self._width + 1) // 2
        first = self._private and not self.layers
        self.layers.append(WindowedConvolution(len(self.entries), *size) if first else Convolution(len(self.entries)))
        self._take((outs, ins, 3, 3), (0, 2, 3, 1))
        self._take((outs,), (0,))
        self._channels, (self._height, self._width) = outs, size
        self.floats += outs * math.prod(size) + (9 * ins * outs if self._private else 0)

    def _read_linear(self, outs: int) -> None:
        positions = self._height * self._width
        self.layers.append(Linear(len(self.entries)))
        self._take((outs, self._channels, positions), (2, 1, 0), (positions * self._channels, outs))
        self._take((outs,), (0,))
        self._channels, self._height, self._width = outs, 1, 1
        self.floats += 2 * outs

    def _take(self, shape: tuple[int, ...], permuted: tuple[int, ...], final: tuple[int, ...] | None = None) -> None:
        taken = sum(entries.numel() for entries in self.entries)
        entries = torch.arange(taken, taken + math.prod(shape)).view(shape).permute(permuted)
        self.entries.append(entries if final is None else entries.reshape(final))


def read_layers(model: nn.Module, inputs: Sequence[int], *, private: bool, like: torch.Tensor) -> Reading:
    """All layers of ``model``.

    Args:
        model: One of the plan's own.
        inputs: Shape of one input.
        private: For DP-SGD.
        like: Has the type and the device of the weights.

    Raises:
        ModelError: It is none, or has a layer that is not known here.
    """
    if not isinstance(model, HeadedModel):
        raise ModelError(f"a {type(model).__name__} is none of the models that can be stacked", where="model.name")
    body = list(model.body) if isinstance(model.body, nn.Sequential) else [model.body]
    reading = Reading(inputs, body[0], private=private, like=like)
    for module in [*body, model.head]:
        reading.read(module)
    return reading
