"""The models a plan may name. Every one is a body and a linear head, and none carries statistics of its inputs.

BatchNorm is refused: it mixes examples, which differential privacy forbids, and its running means would carry
other clients' statistics into the meta-model. GroupNorm takes its place (Wu & He 2018).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from testudo_common.errors import ModelError
from testudo_common.plan.sections import ModelPlan

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
_GROUPS = 4


class HeadedModel(nn.Module):
    """A body that makes features, and a linear ``head`` that reads them.

    Attributes:
        body: ``float32[n, *inputs] -> float32[n, features]``.
        head: ``float32[n, features] -> float32[n, outputs]``.
    """

    def __init__(self, body: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs ``float32[n, outputs]`` of ``inputs``."""
        outputs: torch.Tensor = self.head(self.body(inputs))
        return outputs


def outline_of(plan: ModelPlan) -> nn.Module:
    """The plan's model for its shapes only: no weight of a named model takes memory, however large the plan says it is.

    A factory builds as it always does: not every one can without weights.

    Raises:
        ModelError: The plan is incomplete, or the factory cannot be found or used.
    """
    inputs, outputs = _shape_of(plan)
    if ":" in plan.name:
        with torch.random.fork_rng(devices=[]):
            return _build(plan, inputs, outputs)
    with torch.device("meta"):
        return _build(plan, inputs, outputs)


def build_model(plan: ModelPlan, seed: int) -> nn.Module:
    """The plan's model with its initial weights, the same for everyone who has the plan.

    Args:
        plan: With ``inputs`` and ``outputs`` stated.
        seed: Of the initial weights; torch's global generator is left as it was.

    Raises:
        ModelError: The plan is incomplete, the factory cannot be found, or what it builds does not fit.
    """
    inputs, outputs = _shape_of(plan)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _build(plan, inputs, outputs)
        _check_fits(model, plan.name, inputs, outputs)  # dropout draws from the global generator
    return model


def _shape_of(plan: ModelPlan) -> tuple[tuple[int, ...], int]:
    if plan.inputs is None or plan.outputs is None:
        raise ModelError(
            "the model's inputs and outputs are not stated", where="model", remedy="state both in the plan"
        )
    return plan.inputs, plan.outputs


def _build(plan: ModelPlan, inputs: Sequence[int], outputs: int) -> nn.Module:
    match plan.name:
        case "linear":
            return HeadedModel(nn.Flatten(), nn.Linear(math.prod(inputs), outputs))
        case "mlp":
            return _mlp(plan, math.prod(inputs), outputs)
        case "conv":
            return _conv(plan, inputs, outputs)
        case name:
            return _from_factory(name, inputs, outputs)


def _mlp(plan: ModelPlan, width: int, outputs: int) -> HeadedModel:
    layers: list[nn.Module] = [nn.Flatten()]
    for hidden in plan.hidden:
        layers += [nn.Linear(width, hidden), _ACTIVATIONS[plan.activation]()]
        width = hidden
    return HeadedModel(nn.Sequential(*layers), nn.Linear(width, outputs))


def _conv(plan: ModelPlan, inputs: Sequence[int], outputs: int) -> HeadedModel:
    if len(inputs) != 3:
        raise ModelError("a conv net reads [channels, height, width]", where="model.inputs")
    depth, height, width = inputs
    layers: list[nn.Module] = []
    for _ in range(plan.blocks):
        layers += [
            nn.Conv2d(depth, plan.channels, kernel_size=3, stride=2, padding=1),
            nn.GroupNorm(math.gcd(_GROUPS, plan.channels), plan.channels),
            _ACTIVATIONS[plan.activation](),
        ]
        depth, height, width = plan.channels, (height + 1) // 2, (width + 1) // 2
    return HeadedModel(nn.Sequential(*layers, nn.Flatten()), nn.Linear(depth * height * width, outputs))


def _from_factory(name: str, inputs: Sequence[int], outputs: int) -> nn.Module:
    module_name, _, function_name = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"the factory {name!r} cannot be imported",
            where="model.name",
            remedy="install the package that holds it on every machine, or name mlp, conv or linear",
        ) from error
    try:
        model = factory(tuple(inputs), outputs)
    except Exception as error:
        raise ModelError(
            f"the factory {name!r} raised {type(error).__name__}",
            where="model.name",
            remedy="it must be callable as factory(inputs, outputs), with a tuple and a number",
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"the factory {name!r} did not return a torch.nn.Module", where="model.name")
    return model


def _check_fits(model: nn.Module, name: str, inputs: Sequence[int], outputs: int) -> None:
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            raise ModelError(
                f"{name!r} holds a {type(part).__name__}, which mixes examples and carries their statistics",
                where="model.name",
                remedy="use GroupNorm or LayerNorm",
            )
    try:
        with torch.no_grad():
            model(torch.zeros(1, *inputs))  # a batch may be one example, which GroupNorm refuses at 1x1 pixels
            pair = torch.rand(2, *inputs)
            model.eval()
            together, alone = model(pair), model(pair[:1])
            model.train()
            shape = tuple(together.shape)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise ModelError(f"{name!r} cannot read inputs of shape {tuple(inputs)}", where="model.inputs") from error
    if shape != (2, outputs):
        raise ModelError(
            f"{name!r} gives shape {shape} for two inputs instead of (2, {outputs})", where="model.outputs"
        )
    if not torch.allclose(together[:1], alone, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise ModelError(
            f"{name!r} gives an example another output when others are beside it, which no example-level DP covers",
            where="model.name",
            remedy="let every example pass through the model by itself",
        )
