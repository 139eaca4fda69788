"""A client's meta-update of one round: from the received model through the plan's tasks to the mean of where they led.

Reptile's inner half (Nichol et al. 2018), with or without DP-SGD in the inner loop. Asks for no permission and keeps no
account: that was done before.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from testudo_client.inner_jobs import InnerJob, plain_job, private_job
from testudo_client.train import Mechanism, run_private_inner_loop
from testudo_common.learning.inner_loop import InnerLoop, run_inner_loop
from testudo_common.learning.learner import Learner
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.privacy.planned import planned_event
from testudo_common.vectors import Vector

MechanismFactory = Callable[[float, float, np.random.Generator], Mechanism]
"""Noise multiplier, clipping norm and a seeded generator -> the mechanism of one task."""


def os_mechanism(noise_multiplier: float, max_grad_norm: float, _seeded: np.random.Generator) -> Mechanism:
    """Noise and samples from the operating system: the only mechanism that gives privacy."""
    return Mechanism.from_os(noise_multiplier, max_grad_norm)


def meta_update(
    learner: Learner,
    plan: FederationPlan,
    model: Vector,
    draw_task: Callable[[np.random.Generator], Examples],
    mechanism: MechanismFactory,
    seeded: np.random.Generator,
) -> Vector:
    """The mean meta-update of a round's tasks, ``float32[d]``; not clipped, and not finite if training diverged.

    Args:
        learner: The plan's; left with other parameters.
        plan: The plan.
        model: ``float32[d]``, where every task starts.
        draw_task: Makes the examples of one task.
        mechanism: Of a plan with example-level privacy.
        seeded: For what is no secret.

    Raises:
        DataError: A task cannot be drawn, or has no examples.
    """
    total = np.zeros(learner.size, dtype=np.float64)
    for _ in range(plan.task.tasks_per_client):
        learner.start_from(model)
        _train(learner, plan, draw_task(seeded), mechanism, seeded)
        total += learner.vector().astype(np.float64) - model
    return (total / plan.task.tasks_per_client).astype(np.float32)


def meta_update_jobs(
    plan: FederationPlan,
    draw_task: Callable[[np.random.Generator], Examples],
    mechanism: MechanismFactory,
    seeded: np.random.Generator,
) -> tuple[InnerJob, ...]:
    """The same inner loops, one a task, for somebody else to run; :func:`mean_update` makes the meta-update of them.

    Raises:
        DataError: As :func:`meta_update`.
    """
    loop = InnerLoop(plan.inner.steps, plan.inner.learning_rate, plan.inner.sample_rate)
    event = planned_event(plan)

    def job() -> InnerJob:
        task = draw_task(seeded)
        if event is None:
            return plain_job(task, loop, seeded)
        return private_job(task, loop, mechanism(event.noise_multiplier, plan.privacy.max_grad_norm, seeded))

    return tuple(job() for _ in range(plan.task.tasks_per_client))


def mean_update(model: Vector, trained: npt.NDArray[np.float32]) -> Vector:
    """The meta-update ``float32[d]`` from ``model`` to the mean of ``trained``, ``float32[tasks, d]``."""
    total = np.zeros(len(model), dtype=np.float64)
    for end in trained:
        total += end.astype(np.float64) - model
    update: Vector = (total / len(trained)).astype(np.float32)
    return update


def _train(
    learner: Learner, plan: FederationPlan, task: Examples, mechanism: MechanismFactory, seeded: np.random.Generator
) -> None:
    loop = InnerLoop(plan.inner.steps, plan.inner.learning_rate, plan.inner.sample_rate)
    event = planned_event(plan)
    if event is None:
        run_inner_loop(learner, task, loop, seeded)
    else:
        drawn = mechanism(event.noise_multiplier, plan.privacy.max_grad_norm, seeded)
        run_private_inner_loop(learner, task, loop, drawn)
