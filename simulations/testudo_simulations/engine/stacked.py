"""The plan's own models (linear, mlp, conv) with stacked weights: one step of every client of a chunk, by hand.

Layer by layer there and back, since nothing else is as cheap: no graph, and a plain step writes no gradient but only
what the weights become. Under DP-SGD an example's gradient is needed for its norm alone, wherever that can be had
without it; the norm is that of all weights together, and clipping as Opacus does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from testudo_simulations.engine.batched import Layout, Weights
from testudo_simulations.engine.clipping import clipped, descend_along, made_finite, squared_norms_of
from testudo_simulations.engine.convolution import InputConvolution
from testudo_simulations.engine.layers import ClippedLayer, Tape, WeightedLayer
from testudo_simulations.engine.reading import read_layers


@dataclass(slots=True)
class _Trace:
    """What one layer kept, the slopes of its outputs, and its per-example gradients where they had to be made."""

    layer: ClippedLayer
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
        layout: Of its weights.
        learning: All.
        floats: Per example.

    Raises:
        ModelError: It has a layer that is not known here.
    """

    def __init__(
        self, model: nn.Module, inputs: Sequence[int], *, regression: bool, private: bool, like: torch.Tensor
    ) -> None:
        reading = read_layers(model, inputs, private=private, like=like)
        self._layers = reading.layers
        self._regression = regression
        self.layout = Layout(reading.entries, like.device)
        self.learning = range(len(reading.entries))
        self.floats = reading.floats

    def pooled(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs ``float[n, *input_shape]`` of any number of clients as rows, ``float[n, ...]``."""
        first = self._layers[0]
        return first.rows(inputs) if isinstance(first, InputConvolution) else inputs.flatten(1)

    def taken(self, pool: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Pooled inputs at ``rows``, ``int64[clients, batch]``."""
        return pool.index_select(0, rows.flatten()).view(*rows.shape, -1)

    def outputs(self, weights: Weights, inputs: torch.Tensor) -> torch.Tensor:
        """``float[clients, batch, outputs]`` of inputs as :meth:`taken` gives them."""
        for layer in self._layers:
            inputs, _ = layer.forward(weights, inputs)
        return inputs

    def descend(self, weights: Weights, inputs: torch.Tensor, targets: torch.Tensor, factors: torch.Tensor) -> None:
        """As of every batched model: no gradient is kept, but only what the weights become."""
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
        """As of every batched model."""
        traces = self._traces(weights, inputs, targets)
        squares = torch.zeros_like(factors)
        for trace in traces:
            own, trace.gradients = trace.layer.squared_norms(trace.tape, trace.slopes)
            squares += own
        infinite = squares.isfinite().all(dim=1).logical_not().nonzero()[:, 0].tolist()
        before = {client: [weight[client : client + 1].clone() for weight in weights] for client in infinite}
        by = clipped(factors, squares, max_norms)
        for trace in traces:
            if trace.gradients is None:
                trace.layer.descend_weighted(weights, trace.tape, trace.slopes, by)
            else:
                descend_along(weights[trace.layer.at :], trace.gradients, by)
        for client, start in before.items():
            one = slice(client, client + 1)
            self._descend_made_finite(start, inputs[one], targets[one], factors[one], max_norms[one])
            for weight, own in zip(weights, start, strict=True):
                weight[one] = own

    def _descend_made_finite(
        self,
        weights: Weights,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        factors: torch.Tensor,
        max_norms: torch.Tensor,
    ) -> None:
        """The rare step of a client with an infinite gradient: every example's own, with 0 for what is not finite."""
        gradients = [
            made_finite(one)
            for trace in reversed(self._traces(weights, inputs, targets))
            for one in trace.layer.per_example(trace.tape, trace.slopes)
        ]
        descend_along(weights, gradients, clipped(factors, squared_norms_of(gradients), max_norms))

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
            if isinstance(layer, ClippedLayer):
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
