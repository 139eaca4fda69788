"""Rounds as anybody writes them: a loop over clients in plain PyTorch, and one with Opacus; updates are averaged.

Both reuse one model, copy parameters in place, and take batches as views or by index; neither uses a DataLoader, which
would cost more than the steps. Opacus wraps the model once, for all clients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import nn

from testudo_client.inner_jobs import InnerJob, plain_job, private_job
from testudo_client.train import Mechanism
from testudo_common.learning.learner import as_tensors, initial_vector
from testudo_common.learning.models import build_model
from testudo_simulations.benchmarks.simulation.workload import (
    BATCH,
    EXAMPLES,
    LOOP,
    MAX_GRAD_NORM,
    NOISE_MULTIPLIER,
    Clients,
    Work,
    federation_of,
    plan_of,
)
from testudo_simulations.engine import Engine

Turn = Callable[[], None]
"""To be called when everything is set up, and after every round."""
WARM_UP_CLIENTS = 3


def plain_loop(work: Work, rounds: int, turn: Turn) -> None:
    """Local SGD at one client after the other."""
    model = build_model(plan_of(work, 1).model, 0)

    def train(inputs: torch.Tensor, targets: torch.Tensor) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=LOOP.learning_rate)
        for rows in torch.randperm(EXAMPLES).split(BATCH):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[rows]), targets[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    _rounds(work, model, train, rounds, turn)


def opacus_loop(work: Work, rounds: int, turn: Turn) -> None:
    """The same with DP-SGD: Opacus's per-example gradients and optimiser, and Poisson samples."""
    model = build_model(plan_of(work, 1).model, 0)
    module = GradSampleModule(model)

    def train(inputs: torch.Tensor, targets: torch.Tensor) -> None:
        optimizer = DPOptimizer(
            torch.optim.SGD(model.parameters(), lr=LOOP.learning_rate),
            noise_multiplier=NOISE_MULTIPLIER,
            max_grad_norm=MAX_GRAD_NORM,
            expected_batch_size=BATCH,
        )
        for _ in range(LOOP.steps):
            optimizer.zero_grad()
            rows = (torch.rand(EXAMPLES) < LOOP.sample_rate).nonzero().squeeze(1)
            if len(rows) == 0:
                for parameter in model.parameters():
                    parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))  # type: ignore[attr-defined]
            else:
                loss = nn.functional.cross_entropy(module(inputs[rows]), targets[rows])
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says at every step that the inputs need no gradient
        _rounds(work, model, train, rounds, turn)


def _rounds(
    work: Work, model: nn.Module, train: Callable[[torch.Tensor, torch.Tensor], None], rounds: int, turn: Turn
) -> None:
    torch.set_num_threads(1)
    clients = federation_of(work, 1).training
    assert isinstance(clients, Clients)
    parameters = list(model.parameters())

    def a_round(numbers: range) -> None:
        start = [parameter.detach().clone() for parameter in parameters]
        totals = [torch.zeros_like(parameter) for parameter in start]
        for number in numbers:
            with torch.no_grad():
                for parameter, old in zip(parameters, start, strict=True):
                    parameter.copy_(old)
            train(*as_tensors(clients.of(number)))
            with torch.no_grad():
                for parameter, total in zip(parameters, totals, strict=True):
                    total.add_(parameter)
        with torch.no_grad():
            for parameter, total in zip(parameters, totals, strict=True):
                parameter.copy_(total / len(numbers))

    a_round(range(WARM_UP_CLIENTS))
    turn()
    for _ in range(rounds):
        a_round(range(work.clients))
        turn()


def engine_alone(work: Work, rounds: int, turn: Turn) -> None:
    """Our engine without server, messages and accounts: jobs are drawn, trained and averaged."""
    torch.set_num_threads(1)
    federation = federation_of(work, 1)
    clients = federation.training
    assert isinstance(clients, Clients)
    engine, rng = Engine(federation.plan), np.random.default_rng(0)
    model = initial_vector(federation.plan)

    def job(number: int) -> InnerJob:
        if work.private:
            return private_job(clients.of(number), LOOP, Mechanism.from_os(NOISE_MULTIPLIER, MAX_GRAD_NORM))
        return plain_job(clients.of(number), LOOP, rng)

    at_once = engine.jobs_at_once(job(0))
    engine.train(model, [job(number) for number in range(WARM_UP_CLIENTS)])
    turn()
    for _ in range(rounds):
        total = np.zeros(len(model))
        for first in range(0, work.clients, at_once):
            jobs = [job(number) for number in range(first, min(first + at_once, work.clients))]
            total += engine.train(model, jobs).vectors().sum(axis=0, dtype=np.float64)
        model = (total / work.clients).astype(np.float32)
        turn()
