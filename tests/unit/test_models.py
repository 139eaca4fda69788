"""Models and learners: shapes, initial weights that everyone shares, factories and all that can be wrong with one."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from helpers import CLASSIFICATION, REGRESSION, make_plan
from testudo_common.errors import ModelError
from testudo_common.learning.learner import (
    Learner,
    as_tensors,
    initial_vector,
    read_parameters,
    write_parameters,
)
from testudo_common.learning.models import build_model
from testudo_common.learning.tasks import Examples
from testudo_common.plan.sections import ModelPlan

ALL = [
    ModelPlan(name="linear", inputs=(3,), outputs=2),
    ModelPlan(name="linear", inputs=(2, 3), outputs=1),
    ModelPlan(name="mlp", inputs=(3,), outputs=2, hidden=(5, 4)),
    ModelPlan(name="mlp", inputs=(1, 4, 4), outputs=2, hidden=(), activation="tanh"),
    ModelPlan(name="conv", inputs=(1, 8, 8), outputs=5, channels=8, blocks=2),
    ModelPlan(name="conv", inputs=(3, 5, 7), outputs=2, channels=6, blocks=1, activation="tanh"),
    ModelPlan(name="conv", inputs=(1, 9, 9), outputs=2, channels=1, blocks=2),
]


@pytest.mark.parametrize("plan", ALL, ids=lambda plan: f"{plan.name}-{plan.inputs}")
@pytest.mark.parametrize("count", [1, 2, 7])
def test_shapes(plan: ModelPlan, count: int) -> None:
    assert plan.inputs is not None
    outputs = build_model(plan, 0)(torch.randn(count, *plan.inputs))
    assert outputs.shape == (count, plan.outputs)
    assert torch.isfinite(outputs).all()


@pytest.mark.parametrize("plan", ALL, ids=lambda plan: f"{plan.name}-{plan.inputs}")
def test_an_output_depends_on_its_own_input_only(plan: ModelPlan) -> None:
    """Differential privacy of single examples stands on it."""
    assert plan.inputs is not None
    model = build_model(plan, 0)
    inputs = torch.randn(4, *plan.inputs)
    together = model(inputs)
    inputs[1:] = 100.0
    torch.testing.assert_close(model(inputs)[0], together[0])


def weights(model: nn.Module) -> bytes:
    return read_parameters(model.parameters()).tobytes()


@pytest.mark.parametrize("plan", [ALL[0], ALL[2], ALL[4]], ids=lambda plan: plan.name)
def test_initial_weights_are_the_same_for_everyone(plan: ModelPlan) -> None:
    first = weights(build_model(plan, 7))
    torch.manual_seed(99)
    assert weights(build_model(plan, 7)) == first
    assert weights(build_model(plan, 8)) != first


def test_global_generator_is_left_as_it_was(factory: Any) -> None:
    class Dropping(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Dropout(0.5), nn.Linear(3, 2))

    name = factory(lambda inputs, outputs: Dropping())
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    build_model(ALL[4], 7)
    build_model(ModelPlan(name=name, inputs=(3,), outputs=2), 7)
    Learner(make_plan())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("plan", "count"),
    [
        (ALL[0], 3 * 2 + 2),
        (ALL[2], (3 * 5 + 5) + (5 * 4 + 4) + (4 * 2 + 2)),
        (ALL[4], (9 * 1 * 8 + 8) + 2 * 8 + (9 * 8 * 8 + 8) + 2 * 8 + (8 * 2 * 2 * 5 + 5)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_number_of_parameters(plan: ModelPlan, count: int) -> None:
    assert sum(parameter.numel() for parameter in build_model(plan, 0).parameters()) == count


def test_built_in_models_keep_no_statistics() -> None:
    for plan in ALL:
        assert not list(build_model(plan, 0).buffers())


# --- factories


@pytest.fixture
def factory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Install an object as a factory; gives back its name."""
    module = types.ModuleType("a_package_of_a_user")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def install(value: object) -> str:
        module.build = value  # type: ignore[attr-defined]
        return "a_package_of_a_user:build"

    return install


def fault_of(name: str, inputs: tuple[int, ...] = (3,), outputs: int = 2) -> ModelError:
    with pytest.raises(ModelError) as caught:
        build_model(ModelPlan(name=name, inputs=inputs, outputs=outputs), 0)
    return caught.value


def test_factory_is_called_with_the_shape(factory: Any) -> None:
    called = []

    def build(inputs: tuple[int, ...], outputs: int) -> nn.Module:
        called.append((inputs, outputs))
        return nn.Sequential(nn.Flatten(), nn.Linear(6, outputs))

    plan = ModelPlan(name=factory(build), inputs=(2, 3), outputs=4)
    first = weights(build_model(plan, 5))
    assert called == [((2, 3), 4)]
    torch.manual_seed(1)
    assert weights(build_model(plan, 5)) == first


def test_factory_of_a_package_that_is_not_installed() -> None:
    error = fault_of("no_such_package.models:build")
    assert error.where == "model.name"
    assert "cannot be imported" in error.problem
    assert "install the package" in error.remedy


def test_factory_that_its_module_does_not_have(factory: Any) -> None:
    factory(None)
    assert "cannot be imported" in fault_of("a_package_of_a_user:other").problem


def test_factory_that_is_no_function(factory: Any) -> None:
    error = fault_of(factory(7))
    assert (error.where, error.problem) == (
        "model.name",
        "the factory 'a_package_of_a_user:build' raised TypeError",
    )


def test_factory_that_raises(factory: Any) -> None:
    def build(inputs: tuple[int, ...], outputs: int) -> nn.Module:
        raise KeyError("secret 123")

    error = fault_of(factory(build))
    assert "raised KeyError" in error.problem
    assert "secret" not in str(error)


def test_factory_that_makes_no_module(factory: Any) -> None:
    error = fault_of(factory(lambda inputs, outputs: torch.zeros))
    assert "did not return a torch.nn.Module" in error.problem


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm1d(3), nn.LazyBatchNorm1d(), nn.SyncBatchNorm(3)],
    ids=lambda layer: type(layer).__name__,
)
def test_batch_norm_is_refused(factory: Any, layer: nn.Module) -> None:
    error = fault_of(factory(lambda inputs, outputs: nn.Sequential(nn.Sequential(layer), nn.Linear(3, 2))))
    assert error.where == "model.name"
    assert "mixes examples" in error.problem
    assert "GroupNorm" in error.remedy


class _Centred(nn.Module):
    """Subtracts the mean of the batch: every output depends on every example."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(inputs - inputs.mean(dim=0))
        return outputs


def test_model_that_mixes_examples_is_refused(factory: Any) -> None:
    assert "when others are beside it" in fault_of(factory(lambda inputs, outputs: _Centred())).problem


def test_model_that_cannot_read_the_inputs(factory: Any) -> None:
    error = fault_of(factory(lambda inputs, outputs: nn.Linear(4, 2)))
    assert (error.where, error.problem) == (
        "model.inputs",
        "'a_package_of_a_user:build' cannot read inputs of shape (3,)",
    )


def test_model_that_cannot_read_one_input() -> None:
    """GroupNorm refuses a single value a group, so that a Poisson sample of one example would end the round."""
    plan = ModelPlan(name="conv", inputs=(1, 8, 8), outputs=2, channels=4, blocks=4)
    with pytest.raises(ModelError, match="cannot read inputs of shape"):
        build_model(plan, 0)


def test_model_with_two_outputs_at_once(factory: Any) -> None:
    class Pair(nn.Module):
        def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return inputs, inputs

    assert fault_of(factory(lambda inputs, outputs: Pair())).where == "model.inputs"


def test_model_with_other_outputs(factory: Any) -> None:
    error = fault_of(factory(lambda inputs, outputs: nn.Linear(3, 5)))
    assert error.where == "model.outputs"
    assert "(2, 5)" in error.problem
    assert "(2, 2)" in error.problem


def test_conv_net_reads_images_only() -> None:
    assert fault_of("conv", inputs=(64,)).where == "model.inputs"


@pytest.mark.parametrize("missing", ["inputs", "outputs"])
def test_incomplete_plan(missing: str) -> None:
    with pytest.raises(ModelError, match="not stated"):
        Learner(make_plan(f"model.{missing}=none"))


# --- learners


def test_vector_holds_every_parameter_in_order() -> None:
    learner = Learner(make_plan())
    parts = [parameter.detach().numpy().reshape(-1) for parameter in learner.model.parameters()]
    np.testing.assert_array_equal(learner.vector(), np.concatenate(parts))
    assert learner.size == 3 * 2 + 2
    assert learner.vector().dtype == np.float32


def test_vector_is_a_copy() -> None:
    learner = Learner(make_plan())
    before = learner.vector()
    before += 1
    assert not np.array_equal(learner.vector(), before)


def test_start_from_puts_the_vector_in() -> None:
    learner = Learner(make_plan())
    vector = np.arange(learner.size, dtype=np.float32)
    vector.flags.writeable = False  # as it comes from the network
    learner.start_from(vector)
    np.testing.assert_array_equal(learner.vector(), vector)
    inputs = np.ones((1, 3), dtype=np.float32)
    raw = np.array([0 + 1 + 2 + 6, 3 + 4 + 5 + 7], dtype=np.float64)
    softmax = np.exp(raw - raw.max()) / np.exp(raw - raw.max()).sum()
    np.testing.assert_allclose(learner.outputs(inputs)[0], softmax, rtol=1e-5)


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        (np.zeros(7, dtype=np.float32), "shape"),
        (np.zeros(8), "float32"),
        (np.full(8, np.nan, dtype=np.float32), "not finite"),
    ],
)
def test_start_from_a_bad_vector_changes_nothing(vector: Any, words: str) -> None:
    learner = Learner(make_plan())
    before = learner.vector()
    with pytest.raises(ModelError, match=words):
        learner.start_from(vector)
    np.testing.assert_array_equal(learner.vector(), before)


def test_write_parameters_needs_no_writable_source() -> None:
    parameters = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(1))]
    write_parameters(parameters, np.arange(5, dtype=np.float32))
    np.testing.assert_array_equal(read_parameters(parameters), np.arange(5))


UNSHARED = ("model.name=mlp", "model.hidden=[4]", "model.unshared_head=true")


def test_unshared_head_stays_and_is_zeroed() -> None:
    learner = Learner(make_plan(*UNSHARED))
    assert learner.size == 3 * 4 + 4, "the head of 4 * 2 + 2 is not in the vector"
    head = learner.model.head
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight.fill_(3.0)
        head.bias.fill_(3.0)
    assert 3.0 not in learner.vector()
    learner.start_from(np.ones(learner.size, dtype=np.float32))
    assert not head.weight.any()
    assert not head.bias.any()
    np.testing.assert_array_equal(learner.vector(), np.ones(learner.size))


def test_shared_head_is_not_zeroed() -> None:
    learner = Learner(make_plan(*UNSHARED[:2]))
    learner.start_from(np.ones(learner.size, dtype=np.float32))
    head = learner.model.head
    assert isinstance(head, nn.Linear)
    assert head.weight.all()


def test_unshared_head_of_a_model_without_a_body() -> None:
    with pytest.raises(ModelError, match="no parameter is left to share"):
        Learner(make_plan("model.unshared_head=true"))


def test_unshared_head_of_a_model_without_a_head(factory: Any) -> None:
    name = factory(lambda inputs, outputs: nn.Linear(3, 2))
    with pytest.raises(ModelError, match="no attribute 'head'"):
        Learner(make_plan(f"model.name={name}", "model.unshared_head=true"))


def test_loss_and_outputs_of_classes() -> None:
    learner = Learner(make_plan())
    probabilities = learner.outputs(np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
    loss = learner.loss(torch.zeros(4, 2), torch.tensor([0, 1, 1, 0]))
    assert loss.item() == pytest.approx(np.log(2))


def test_loss_and_outputs_of_a_regression() -> None:
    learner = Learner(make_plan(tables=REGRESSION))
    assert learner.outputs(np.zeros((5, 3), dtype=np.float32)).shape == (5,)
    assert learner.outputs(np.zeros((1, 3), dtype=np.float32)).shape == (1,)
    loss = learner.loss(torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 4.0]))
    assert loss.item() == pytest.approx((1 + 4) / 2), "not a mean over all pairs"


def test_initial_vector_is_where_a_learner_stands() -> None:
    plan = make_plan("seed=4")
    np.testing.assert_array_equal(initial_vector(plan), Learner(plan).vector())
    assert not np.array_equal(initial_vector(plan), initial_vector(make_plan("seed=5")))


def test_tensors_take_any_memory_layout() -> None:
    inputs = np.arange(12, dtype=np.float32).reshape(4, 3)
    seen, targets = as_tensors(Examples(inputs[::-1, ::2], np.arange(4)[::-1]))
    np.testing.assert_array_equal(seen.numpy(), inputs[::-1, ::2])
    assert targets.tolist() == [3, 2, 1, 0]


def test_tables_of_the_helpers_are_not_shared_with_tests() -> None:
    make_plan("model.name=mlp")
    assert CLASSIFICATION["model"]["name"] == "linear"
