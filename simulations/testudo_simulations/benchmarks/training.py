"""What one client's private inner loop costs: ours against Opacus's own PrivacyEngine on equal work.

Both take ten Poisson-sampled steps on 200 examples at the same noise; the PrivacyEngine makes its own loader.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from testudo_client.train import Mechanism, run_private_inner_loop
from testudo_common.learning.inner_loop import InnerLoop, run_inner_loop
from testudo_common.learning.learner import Learner, as_tensors
from testudo_common.learning.models import build_model
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import parse_plan
from testudo_simulations.benchmarks.measure import Measurement, compared, median_seconds_in_turn
from testudo_simulations.scenarios import find_plan

_EXAMPLES = 200
_LOOP = InnerLoop(steps=10, learning_rate=0.1, sample_rate=0.1)
_NOISE_MULTIPLIER = 1.0
_ROUNDS_A_REPEAT = 10  # a round takes a twentieth of a second


def measure_training(repeats: int) -> list[Measurement]:
    """Ten steps of the digits scenario's model, private and not."""
    torch.set_num_threads(1)
    tables, source = find_plan("digits")
    settings = ["model.inputs=[1,16,16]", "model.outputs=10"]
    plan = parse_plan(tables, source=source, settings=settings)
    rng = np.random.default_rng(0)
    examples = Examples(
        rng.normal(size=(_EXAMPLES, 1, 16, 16)).astype(np.float32), rng.integers(10, size=_EXAMPLES, dtype=np.int64)
    )
    learner = Learner(plan)
    mechanism = Mechanism.from_os(_NOISE_MULTIPLIER, 1.0)
    private, plain, engine = median_seconds_in_turn(
        [
            lambda: run_private_inner_loop(learner, examples, _LOOP, mechanism),
            lambda: run_inner_loop(learner, examples, _LOOP, rng),
            _engine_loop(plan, examples),
        ],
        repeats * _ROUNDS_A_REPEAT,
    )
    case = f"{_LOOP.steps} private steps, conv net"
    return [
        *compared(case, private, engine, "Opacus PrivacyEngine"),
        *compared(case, private, plain, "the steps without privacy"),
    ]


def _engine_loop(plan: FederationPlan, examples: Examples) -> Callable[[], None]:
    inputs, targets = as_tensors(examples)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=round(_LOOP.sample_rate * _EXAMPLES))

    def work() -> None:
        model = build_model(plan.model, plan.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module, optimizer, private_loader = PrivacyEngine().make_private(
                module=model,
                optimizer=torch.optim.SGD(model.parameters(), lr=_LOOP.learning_rate),
                data_loader=loader,
                noise_multiplier=_NOISE_MULTIPLIER,
                max_grad_norm=1.0,
            )
        for batch_inputs, batch_targets in private_loader:  # one pass is 1 / q = ten steps
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(batch_inputs), batch_targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return work
