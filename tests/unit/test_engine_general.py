"""A user's own module in the vectorised engine: the same steps as by itself, or a refusal before the first round."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from engine_cases import Way, case_examples, case_plan, difference, job_of, start_of
from testudo_common.errors import ModelError
from testudo_common.learning.inner_loop import InnerLoop
from testudo_common.plan import FederationPlan
from testudo_simulations.engine import Engine

PLAIN, PRIVATE = Way(), Way(max_grad_norm=0.5)


class TwoBranches(nn.Module):
    """LayerNorm, an embedding of its own by hand, and two ways to the head."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU())
        self.right = nn.Linear(3, 4, bias=False)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.left(inputs) + torch.sin(self.right(inputs)))
        return outputs


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(4 * 4 * 1, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.body(inputs))
        return outputs


class Frozen(TwoBranches):
    def __init__(self) -> None:
        super().__init__()
        self.left.requires_grad_(False)


class Regressing(TwoBranches):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 1)


class Unused(TwoBranches):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(2, 2)


class Forgetful(TwoBranches):
    def __init__(self) -> None:
        super().__init__()
        self.left.append(nn.Dropout(0.5))


class Counting(TwoBranches):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += 1
        return super().forward(inputs)


class Remembering(TwoBranches):
    """As Counting, by a new tensor instead of in place, which torch.func forgets without a word."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen = self.seen + 1
        return super().forward(inputs)


class Mixing(TwoBranches):
    """Each example around the mean of its batch, which is not the same batch where places are filled up."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs - inputs.mean(dim=0) if self.training else inputs)


class Bolder(TwoBranches):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = super().forward(inputs)
        return outputs if self.training else 2 * outputs


class Deciding(TwoBranches):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs if inputs.sum() > 0 else 2 * inputs)


KINDS = (
    *(TwoBranches, Convolutional, Frozen, Regressing, Bolder, Unused),
    *(Forgetful, Counting, Remembering, Mixing, Deciding),
)


@pytest.fixture(autouse=True)
def users_package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("modules_of_a_user")
    for kind in KINDS:
        setattr(module, kind.__name__, _factory(kind))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def _factory(kind: Callable[[], nn.Module]) -> Callable[..., nn.Module]:
    def build(inputs: tuple[int, ...], outputs: int) -> nn.Module:
        return kind()

    return build


def plan_of(kind: type[nn.Module], *settings: str) -> FederationPlan:
    inputs = "[1, 6, 3]" if kind is Convolutional else "[3]"
    return case_plan(
        f"model.name=modules_of_a_user:{kind.__name__}",
        f"model.inputs={inputs}",
        *settings,
        regression=kind is Regressing,
    )


@pytest.mark.parametrize("kind", [TwoBranches, Convolutional, Frozen, Regressing, Bolder])
@pytest.mark.parametrize("way", [PLAIN, PRIVATE], ids=["plain", "private"])
def test_it_equals_the_one_by_one_path(kind: type[nn.Module], way: Way) -> None:
    plan = plan_of(kind)
    examples = [case_examples(plan, count, seed) for seed, count in enumerate((5, 8, 1))]
    jobs = [job_of(own, way, seed) for seed, own in enumerate(examples)]
    engine = Engine(plan, dtype=torch.float64)
    assert engine.path == "vmap"
    trained = engine.train(start_of(plan), jobs)
    assert difference(plan, trained, examples, way, range(3)) < 1e-8


def test_an_unshared_head_is_left_out_of_what_is_shared() -> None:
    plan = plan_of(TwoBranches, "model.unshared_head=true")
    examples = [case_examples(plan, 5, seed) for seed in range(2)]
    trained = Engine(plan, dtype=torch.float64).train(start_of(plan), [job_of(own, PLAIN, 0) for own in examples])
    assert trained.vectors().shape == (2, trained.ends.shape[1] - 15)
    assert difference(plan, trained, examples, PLAIN, (0, 0)) < 1e-8


def test_a_broken_example_under_privacy_is_made_harmless() -> None:
    plan = plan_of(TwoBranches)
    examples = [case_examples(plan, 4, seed) for seed in range(2)]
    examples[0].inputs[1] = np.inf
    jobs = [job_of(own, PRIVATE, seed) for seed, own in enumerate(examples)]
    trained = Engine(plan, dtype=torch.float64).train(start_of(plan), jobs)
    assert np.isfinite(trained.vectors()).all()
    ends = trained.ends.clone()
    trained.ends[0] = trained.ends[1]  # a broken input has no outputs to compare
    examples[0] = examples[1]
    assert difference(plan, trained, examples, PRIVATE, (1, 1)) < 1e-8
    assert not torch.equal(ends[0], ends[1])


def test_frozen_parameters_get_no_noise() -> None:
    plan = plan_of(Frozen)
    start = start_of(plan)
    job = job_of(case_examples(plan, 4), Way(max_grad_norm=1.0, loop=InnerLoop(2, 0.3, 0.5)), 0, noise_multiplier=1.0)
    end = Engine(plan).train(start, [job]).vectors()[0]
    frozen = 3 * 4 + 4 + 4 + 4  # left comes first
    assert np.array_equal(end[:frozen], start[:frozen])
    assert (end[frozen:] != start[frozen:]).all()


@pytest.mark.parametrize("kind", [Forgetful, Counting, Remembering, Mixing, Deciding])
def test_what_cannot_be_stacked_is_refused_before_a_round(kind: type[nn.Module]) -> None:
    with pytest.raises(ModelError, match="many clients") as caught:
        Engine(plan_of(kind))
    assert "one by one" in caught.value.remedy


def test_what_opacus_refuses_is_refused_for_a_private_plan() -> None:
    private = ("privacy.unit=example", "privacy.noise_multiplier=1.0")
    with pytest.raises(ModelError, match="takes no part"):
        Engine(plan_of(Unused, *private))
    assert Engine(plan_of(Unused)).path == "vmap"
