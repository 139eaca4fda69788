"""The plan's own models (linear, mlp, conv) with stacked weights: one step of every client of a chunk, by hand.

Layer by layer there and back, since nothing else is as cheap: no graph, and a plain step writes no gradient but only
what the weights become. Under DP-SGD an example's gradient is needed for its norm alone, wherever that can be had
without it; the norm is that of all weights together, and clipping as Opacus does it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from testudo_common.errors import ModelError
from testudo_common.learning.models import HeadedModel
from testudo_simulations.engine.layers import GroupNorm, Layer, Linear, Relu, Rows, Tanh, WeightedLayer, Windows

_CLIPPED = 1e-6  # added to a norm by Opacus before it divides by it


@dataclass(frozen=True, slots=True)
class Trace:
    """What one layer kept on the way there, and the slopes of its outputs on the way back."""

    layer: WeightedLayer
    tape: tuple[torch.Tensor, ...]
    slopes: torch.Tensor

    def of(self, client: torch.Tensor) -> Trace:
        """The same for some of the clients."""
        return Trace(self.layer, tuple(kept[client] for kept in self.tape), self.slopes[client])


class StackedModel:
    """A model of the plan by its layers.

    Args:
        model: One of the plan's own.
        inputs: Shape of one input.
        regression: Squared error instead of cross-entropy.

    Attributes:
        order: ``int64[D]``: ``flat[:, i]`` is entry ``order[i]`` of the module's parameters, in their order.

    Raises:
        ModelError: It has a layer that is not known here.
    """

    def __init__(self, model: nn.Module, inputs: Sequence[int], *, regression: bool) -> None:
        reading = _read(model, inputs)
        self._layers = reading.layers
        self._regression = regression
        self.order = torch.cat(reading.order)

    def pooled(self, inputs: torch.Tensor) -> torch.Tensor:
        """``float[n, *input_shape]`` as ``float[n, positions, channels]``."""
        if isinstance(self._layers[0], Windows):
            return inputs.permute(0, 2, 3, 1).flatten(1, 2).contiguous()
        return inputs.flatten(1)[:, None]

    def outputs(self, flat: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """``float[clients, batch, outputs]`` of pooled inputs ``float[clients, batch, positions, channels]``."""
        for layer in self._layers:
            inputs, _ = layer.forward(flat, inputs)
        return inputs.flatten(2)

    def descend(self, flat: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> None:
        """Take from ``flat`` the sum of the examples' gradients, each times its weight.

        Args:
            flat: ``float[clients, D]``.
            inputs: Pooled, ``float[clients, batch, positions, channels]``.
            targets: ``[clients, batch]``.
            weights: ``float[clients, batch]``.
        """
        for trace in self._traces(flat, inputs, targets):
            trace.layer.descend(flat, trace.tape, trace.slopes, weights)

    def descend_clipped(
        self,
        flat: torch.Tensor,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        max_norms: torch.Tensor,
    ) -> None:
        """As :meth:`descend`, with each example's gradient made finite and clipped to ``max_norms``, ``[clients, 1]``."""
        traces = self._traces(flat, inputs, targets)
        squares = sum(
            (trace.layer.squared_norms(trace.tape, trace.slopes) for trace in traces), torch.zeros_like(weights)
        )
        factors = weights * (max_norms / (squares.sqrt() + _CLIPPED)).clamp_(max=1)
        finite = squares.isfinite().all(dim=1)
        if finite.all():
            for trace in traces:
                trace.layer.descend(flat, trace.tape, trace.slopes, factors)
            return
        self._descend_made_finite(flat, traces, weights, max_norms, factors, finite)

    def _descend_made_finite(
        self,
        flat: torch.Tensor,
        traces: list[Trace],
        weights: torch.Tensor,
        max_norms: torch.Tensor,
        factors: torch.Tensor,
        finite: torch.Tensor,
    ) -> None:
        """The step where some client has an infinite gradient, whose infinite entries become 0."""
        good, bad = finite.nonzero()[:, 0], finite.logical_not().nonzero()[:, 0]
        stepped = flat[good]
        for trace in traces:
            part = trace.of(good)
            part.layer.descend(stepped, part.tape, part.slopes, factors[good])
        flat[good] = stepped
        gradients = torch.cat([_per_example(trace.of(bad)) for trace in reversed(traces)], dim=2)
        gradients.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)  # [clients, batch, D]
        norms = gradients.norm(dim=2)
        own = weights[bad] * (max_norms[bad] / (norms + _CLIPPED)).clamp_(max=1)
        flat[bad] -= torch.bmm(own[:, None], gradients)[:, 0]

    def _traces(self, flat: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor) -> list[Trace]:
        """Of the layers with weights, the last first."""
        tapes = []
        outputs = inputs
        for layer in self._layers:
            outputs, tape = layer.forward(flat, outputs)
            tapes.append(tape)
        slopes = self._slopes(outputs.flatten(2), targets).view_as(outputs)
        traces: list[Trace] = []
        for place in range(len(self._layers) - 1, -1, -1):
            layer, tape = self._layers[place], tapes[place]
            if isinstance(layer, Linear | GroupNorm):
                traces.append(Trace(layer, tape, slopes))
                if layer.start == 0:
                    break  # nothing before it learns
            slopes = layer.backward(flat, tape, slopes)
        return traces

    def _slopes(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Of each example's own loss, ``float[clients, batch, outputs]``."""
        if self._regression:
            return (outputs - targets[:, :, None]).mul_(2)
        slopes = outputs.softmax(dim=2)
        return slopes.scatter_add_(2, targets[:, :, None], slopes.new_full((1, 1, 1), -1.0).expand(*targets.shape, 1))


def _per_example(trace: Trace) -> torch.Tensor:
    return trace.layer.per_example(trace.tape, trace.slopes)


class _Reading:
    """The module's layers read one after another, and where each of its parameters goes."""

    def __init__(self, inputs: Sequence[int], first: nn.Module) -> None:
        self.layers: list[Layer] = []
        self.order: list[torch.Tensor] = []
        self._taken = 0
        if isinstance(first, nn.Conv2d):
            self._channels, self._height, self._width = inputs
        else:
            self._channels, self._height, self._width = math.prod(inputs), 1, 1
            self.layers.append(Rows(1))

    def read(self, module: nn.Module) -> None:
        """Append ``module``.

        Raises:
            ModelError: It is not known here.
        """
        match module:
            case nn.Flatten():
                self.layers.append(Rows(self._height * self._width))
            case nn.ReLU():
                self.layers.append(Relu())
            case nn.Tanh():
                self.layers.append(Tanh())
            case nn.GroupNorm():
                self.layers.append(GroupNorm(self._taken, module.num_channels, module.num_groups, module.eps))
                self._take((module.num_channels,), (0,))
                self._take((module.num_channels,), (0,))
            case nn.Conv2d(kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1), groups=1):
                self._read_convolution(module.in_channels, module.out_channels)
            case nn.Linear():
                self._read_linear(module.out_features)
            case _:
                raise ModelError(f"a {type(module).__name__} is none of the layers that can be stacked")

    def _read_convolution(self, ins: int, outs: int) -> None:
        self.layers += [Windows(self._height, self._width), Linear(self._taken, 9 * ins, outs)]
        self._take((outs, ins, 3, 3), (2, 3, 1, 0))
        self._take((outs,), (0,))
        self._channels, self._height, self._width = outs, (self._height + 1) // 2, (self._width + 1) // 2

    def _read_linear(self, outs: int) -> None:
        positions = self._height * self._width
        self.layers.append(Linear(self._taken, positions * self._channels, outs))
        self._take((outs, self._channels, positions), (2, 1, 0))  # flattened with the channels first
        self._take((outs,), (0,))
        self._channels, self._height, self._width = outs, 1, 1

    def _take(self, shape: tuple[int, ...], permuted: tuple[int, ...]) -> None:
        entries = torch.arange(self._taken, self._taken + math.prod(shape)).view(shape)
        self.order.append(entries.permute(permuted).flatten())
        self._taken += math.prod(shape)


def _read(model: nn.Module, inputs: Sequence[int]) -> _Reading:
    if not isinstance(model, HeadedModel):
        raise ModelError(f"a {type(model).__name__} is none of the models that can be stacked")
    body = list(model.body) if isinstance(model.body, nn.Sequential) else [model.body]
    reading = _Reading(inputs, body[0])
    for module in [*body, model.head]:
        reading.read(module)
    return reading
