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
from testudo_simulations.engine.layers import (
    Convolution,
    GroupNorm,
    Layer,
    Linear,
    Relu,
    Rows,
    Tanh,
    Tape,
    WeightedLayer,
    Weights,
    WindowedConvolution,
    seen_from,
    squared_norms_of,
)

_DIVISOR = 1e-6  # added to a norm by Opacus before it divides by it


@dataclass(slots=True)
class _Trace:
    """What one layer kept, the slopes of its outputs, and its per-example gradients where they had to be made."""

    layer: WeightedLayer
    tape: Tape
    slopes: torch.Tensor
    gradients: Tape | None = None


class StackedModel:
    """A model of the plan by its layers.

    Args:
        model: One of the plan's own.
        inputs: Shape of one input.
        regression: Squared error instead of cross-entropy.
        private: For DP-SGD.
        like: Has the type and the device of the weights.

    Attributes:
        entries: Of each weight here, which entries of the module's parameters (one after another) it is, ``int64[...]``.

    Raises:
        ModelError: It has a layer that is not known here.
    """

    def __init__(
        self, model: nn.Module, inputs: Sequence[int], *, regression: bool, private: bool, like: torch.Tensor
    ) -> None:
        reading = _read(model, inputs, private, like)
        self.entries = reading.entries
        self._layers = reading.layers
        self._regression = regression

    def pooled(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs ``float[n, *input_shape]`` of any number of clients as they are read here, ``float[n, ...]``."""
        first = self._layers[0]
        if not isinstance(first, Convolution):
            return inputs.flatten(1)
        images = inputs.permute(0, 2, 3, 1)
        if not isinstance(first, WindowedConvolution):
            return images.contiguous()
        padded = torch.nn.functional.pad(images, (0, 0, 1, 1, 1, 1)).flatten(1, 2)
        seen = seen_from(*images.shape[1:3]).flatten(0, 1).to(inputs.device)  # [positions, 3, 3]
        return padded[:, seen].flatten(2)

    def taken(self, pool: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Pooled inputs at ``rows``, ``int64[clients, batch]``."""
        images = type(self._layers[0]) is Convolution
        ordered = rows.t() if images else rows
        found = pool.flatten(1).index_select(0, ordered.flatten()).view(*ordered.shape, *pool.shape[1:])
        return found.permute(0, 2, 3, 1, 4).contiguous() if images else found

    def outputs(self, weights: Weights, inputs: torch.Tensor) -> torch.Tensor:
        """``float[clients, batch, outputs]`` of inputs as :meth:`taken` gives them."""
        for layer in self._layers:
            inputs, _ = layer.forward(weights, inputs)
        return inputs

    def descend(self, weights: Weights, inputs: torch.Tensor, targets: torch.Tensor, factors: torch.Tensor) -> None:
        """Take from the weights the sum of the examples' gradients, each times its factor.

        Args:
            weights: Changed in place.
            inputs: As :meth:`taken` gives them.
            targets: ``[clients, batch]``.
            factors: ``float[clients, batch]``.
        """
        tapes, outputs = self._there(weights, inputs)
        slopes = self._slopes(outputs, targets).mul_(factors[:, :, None])
        for layer, tape in zip(reversed(self._layers), reversed(tapes), strict=True):
            after = slopes
            if layer is not self._layers[0]:
                slopes = layer.backward(weights, tape, slopes)
            if isinstance(layer, WeightedLayer):
                layer.descend(weights, tape, after)

    def descend_clipped(
        self,
        weights: Weights,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        factors: torch.Tensor,
        max_norms: torch.Tensor,
    ) -> None:
        """As :meth:`descend`, each example's gradient first made finite and clipped to ``max_norms``, ``[clients, 1]``."""
        traces = self._traces(weights, inputs, targets)
        squares = torch.zeros_like(factors)
        for trace in traces:
            own, trace.gradients = trace.layer.squared_norms(trace.tape, trace.slopes)
            squares += own
        if not squares.isfinite().all():
            _make_finite(traces)
            squares = squared_norms_of([one for trace in traces for one in trace.gradients or ()])
        clipped = factors * (max_norms / (squares.sqrt() + _DIVISOR)).clamp_(max=1)
        for trace in traces:
            if trace.gradients is None:
                trace.layer.descend(weights, trace.tape, trace.layer.weighted(trace.slopes, clipped))
            else:
                for weight, gradients in zip(weights[trace.layer.at :], trace.gradients, strict=False):
                    weight -= torch.bmm(clipped[:, None], gradients.flatten(2)).view_as(weight)

    def _there(self, weights: Weights, inputs: torch.Tensor) -> tuple[list[Tape], torch.Tensor]:
        tapes = []
        for layer in self._layers:
            inputs, tape = layer.forward(weights, inputs)
            tapes.append(tape)
        return tapes, inputs

    def _traces(self, weights: Weights, inputs: torch.Tensor, targets: torch.Tensor) -> list[_Trace]:
        """Of the layers with weights, with the slopes of each example's own loss; the last layer first."""
        tapes, outputs = self._there(weights, inputs)
        slopes = self._slopes(outputs, targets)
        traces = []
        for layer, tape in zip(reversed(self._layers), reversed(tapes), strict=True):
            if isinstance(layer, WeightedLayer):
                traces.append(_Trace(layer, tape, slopes))
            if layer is not self._layers[0]:
                slopes = layer.backward(weights, tape, slopes)
        return traces

    def _slopes(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Of each example's own loss, ``float[clients, batch, outputs]``."""
        if self._regression:
            return (outputs - targets[:, :, None]).mul_(2)
        slopes = outputs.softmax(dim=2)
        return slopes.scatter_add_(2, targets[:, :, None], slopes.new_full((1, 1, 1), -1.0).expand(*targets.shape, 1))


def _make_finite(traces: list[_Trace]) -> None:
    """The rare step with an infinite gradient: every example's own, with 0 for what is not finite."""
    for trace in traces:
        gradients = trace.layer.per_example(trace.tape, trace.slopes)
        trace.gradients = tuple(one.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) for one in gradients)


class _Reading:
    """The module's layers read one after another, and where each of its parameters goes."""

    def __init__(self, inputs: Sequence[int], first: nn.Module, private: bool, like: torch.Tensor) -> None:
        self._private = private
        self._like = like
        self.layers: list[Layer] = []
        self.entries: list[torch.Tensor] = []
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
                means = torch.block_diag(*[torch.full((group, group), 1 / group, dtype=torch.float64)] * module.num_groups)
                self.layers.append(GroupNorm(len(self.entries), means.to(self._like), module.eps))
                self._take((module.num_channels,), (0,))
                self._take((module.num_channels,), (0,))
            case nn.Conv2d(kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1), groups=1):
                self._read_convolution(module.in_channels, module.out_channels)
            case nn.Linear():
                self._read_linear(module.out_features)
            case _:
                raise ModelError(f"a {type(module).__name__} is none of the layers that can be stacked")

    def _read_convolution(self, ins: int, outs: int) -> None:
        size = (self._height + 1) // 2, (self._width + 1) // 2
        first = self._private and not self.layers
        self.layers.append(
            WindowedConvolution(len(self.entries), *size) if first else Convolution(len(self.entries))
        )
        self._take((outs, ins, 3, 3), (0, 2, 3, 1))
        self._take((outs,), (0,))
        self._channels, (self._height, self._width) = outs, size

    def _read_linear(self, outs: int) -> None:
        positions = self._height * self._width
        self.layers.append(Linear(len(self.entries)))
        self._take((outs, self._channels, positions), (2, 1, 0), (positions * self._channels, outs))
        self._take((outs,), (0,))
        self._channels, self._height, self._width = outs, 1, 1

    def _take(self, shape: tuple[int, ...], permuted: tuple[int, ...], final: tuple[int, ...] | None = None) -> None:
        taken = sum(entries.numel() for entries in self.entries)
        entries = torch.arange(taken, taken + math.prod(shape)).view(shape).permute(permuted)
        self.entries.append(entries if final is None else entries.reshape(final))


def _read(model: nn.Module, inputs: Sequence[int], private: bool, like: torch.Tensor) -> _Reading:
    if not isinstance(model, HeadedModel):
        raise ModelError(f"a {type(model).__name__} is none of the models that can be stacked")
    body = list(model.body) if isinstance(model.body, nn.Sequential) else [model.body]
    reading = _Reading(inputs, body[0], private, like)
    for module in [*body, model.head]:
        reading.read(module)
    return reading
