"""The one-by-one path in float64 as the oracle of the vectorised engine, and the small cohorts both are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from helpers import CLASSIFICATION, REGRESSION, make_plan
from testudo_client.inner_jobs import InnerJob, plain_job, private_job
from testudo_client.train import Mechanism, noise_generator, run_private_inner_loop
from testudo_common.learning.inner_loop import InnerLoop, run_inner_loop
from testudo_common.learning.learner import Learner
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_simulations.engine import Trained

CASES: dict[str, tuple[str, ...]] = {
    "linear": ("model.name=linear", "model.inputs=[3]"),
    "mlp": ("model.name=mlp", "model.inputs=[2, 3]", "model.hidden=[5, 4]"),
    "tanh": ("model.name=mlp", "model.inputs=[3]", "model.hidden=[5]", "model.activation=tanh"),
    "head unshared": ("model.name=mlp", "model.inputs=[3]", "model.hidden=[5]", "model.unshared_head=true"),
    "conv": ("model.name=conv", "model.inputs=[1, 9, 6]", "model.channels=4", "model.blocks=2"),
    "conv, odd": ("model.name=conv", "model.inputs=[2, 5, 5]", "model.channels=6", "model.blocks=3"),
    "conv, norms by products": ("model.name=conv", "model.inputs=[1, 8, 8]", "model.channels=16", "model.blocks=2"),
    "conv, wide": ("model.name=conv", "model.inputs=[1, 6, 6]", "model.channels=32", "model.blocks=2"),
    "conv, tanh": ("model.name=conv", "model.inputs=[1, 6, 6]", "model.channels=4", "model.activation=tanh"),
}
"""Plans by what is particular in them: every layer and every way to a norm is in one of them."""


@dataclass(frozen=True)
class Way:
    """How the inner loops of a case are run; ``max_grad_norm`` None: without privacy."""

    max_grad_norm: float | None = None
    loop: InnerLoop = field(default_factory=lambda: InnerLoop(steps=3, learning_rate=0.3, sample_rate=0.4))
    expected_examples: float | None = None

    def mechanism(self, seed: int, noise_multiplier: float = 0.0) -> Mechanism:
        assert self.max_grad_norm is not None
        return Mechanism(noise_multiplier, self.max_grad_norm, noise_generator(), np.random.default_rng(seed))


def case_plan(*settings: str, regression: bool = False, outputs: int = 3) -> FederationPlan:
    """A plan of CASES."""
    tables = REGRESSION if regression else CLASSIFICATION
    return make_plan(*settings, f"model.outputs={1 if regression else outputs}", tables=tables)


def case_examples(plan: FederationPlan, count: int, seed: int = 0) -> Examples:
    """``count`` examples for ``plan`` that mean nothing."""
    assert plan.model.inputs is not None
    assert plan.model.outputs is not None
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(count, *plan.model.inputs)).astype(np.float32)
    if plan.task.kind == "regression":
        return Examples(inputs, rng.normal(size=count).astype(np.float32))
    return Examples(inputs, rng.integers(0, plan.model.outputs, count))


def job_of(examples: Examples, way: Way, seed: int, noise_multiplier: float = 0.0) -> InnerJob:
    """The inner loop of one client."""
    if way.max_grad_norm is None:
        return plain_job(examples, way.loop, np.random.default_rng(seed))
    return private_job(examples, way.loop, way.mechanism(seed, noise_multiplier), way.expected_examples)


def alone(
    plan: FederationPlan, examples: Examples, way: Way, seed: int, sampling: object = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The same inner loop by the one-by-one path: all its parameters at the end, and its outputs for its examples."""
    learner = Learner(plan)
    learner.start_from(learner.vector())
    learner.model.double()
    targets = examples.targets.astype(np.float64) if learner.regression else examples.targets
    double = Examples(examples.inputs.astype(np.float64), targets)  # type: ignore[arg-type]
    if way.max_grad_norm is None:
        run_inner_loop(learner, double, way.loop, np.random.default_rng(seed))
    else:
        mechanism = way.mechanism(seed)
        if sampling is not None:
            mechanism = Mechanism(0.0, way.max_grad_norm, mechanism.noise, sampling)  # type: ignore[arg-type]
        run_private_inner_loop(learner, double, way.loop, mechanism, way.expected_examples)
    end = torch.cat([parameter.detach().flatten() for parameter in learner.model.parameters()]).numpy()
    return end, learner.outputs(double.inputs).astype(np.float64)  # type: ignore[arg-type]


def difference(
    plan: FederationPlan, trained: Trained, examples: Sequence[Examples], way: Way, seeds: Sequence[int]
) -> float:
    """How far the engine is from the oracle at the most, in any parameter or output of any client."""
    outputs = trained.outputs([own.inputs for own in examples])
    worst = 0.0
    for place, (own, seed) in enumerate(zip(examples, seeds, strict=True)):
        end, output = alone(plan, own, way, seed)
        worst = max(worst, float(np.abs(trained.ends[place].numpy() - end).max()))
        if len(own):
            worst = max(worst, 1e-3 * float(np.abs(outputs[place] - output).max()))  # outputs are float32
    return worst


def start_of(plan: FederationPlan) -> npt.NDArray[np.float32]:
    """The shared parameters that every inner loop here starts from."""
    return Learner(plan).vector()
