"""Distils an own model into the plan's smaller student. Decides nothing about whether it is good enough.

Sources: Hinton, Vinyals, Dean 2015, arXiv:1503.02531 (soft targets at a temperature, its square in the loss); Zhang et
al. 2018, arXiv:1710.09412 (mixup), here of inputs alone, since the teacher answers what is mixed.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from testudo_client.personal.own_model import Answerer
from testudo_common.errors import ModelError
from testudo_common.learning.models import build_model
from testudo_common.learning.tasks import Inputs
from testudo_common.plan import FederationPlan

BATCH = 128
_MIXUP, _NOISE = 0.4, 0.1  # of Beta(a, a); standard deviations of each input
_LEARNING_RATE = 0.01


def student_of(plan: FederationPlan) -> nn.Module:
    """The plan's student, untrained.

    Raises:
        ModelError: It does not fit the plan's data, or is no smaller than the plan's model.
    """
    student = plan.student
    assert student.name is not None  # asked for where the plan names one
    shape = {"name": student.name, "hidden": student.hidden, "channels": student.channels, "blocks": student.blocks}
    made = build_model(plan.model.model_copy(update=shape), plan.seed)
    sizes = [sum(one.numel() for one in each.parameters()) for each in (made, build_model(plan.model, plan.seed))]
    if sizes[0] >= sizes[1]:
        raise ModelError(
            f"the student has {sizes[0]} parameters, and the model {sizes[1]}",
            where="student",
            remedy="Name a smaller one in the plan",
        )
    return made


def distil(teacher: Answerer, rows: Inputs, rng: np.random.Generator) -> nn.Module:
    """The plan's student, taught by the own model on rows, mixed in pairs and with noise.

    Args:
        teacher: Asked about every batch.
        rows: ``float32[n, *input_shape]``, one or more; not centred. What is true of them is not asked.
        rng: Of batches, mixing and noise.

    Raises:
        ModelError: There is no room for a smaller model.
    """
    own, plan = teacher.own, teacher.own.plan
    student = student_of(plan)
    centred = rows - own.centre.inputs
    spread = centred.std(axis=0)
    optimizer = torch.optim.Adam(student.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.student.steps)
    for _ in range(plan.student.steps):
        inputs = torch.from_numpy(_mixed(centred, spread, rng))
        with torch.no_grad():
            told = teacher.module(inputs)
        optimizer.zero_grad()
        _loss(student(inputs), told, None if own.regression else plan.student.temperature).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return student.eval()


def _mixed(rows: Inputs, spread: Inputs, rng: np.random.Generator) -> Inputs:
    """``float32[BATCH, *input_shape]``."""
    first, second = rows[rng.integers(len(rows), size=BATCH)], rows[rng.integers(len(rows), size=BATCH)]
    share = rng.beta(_MIXUP, _MIXUP, size=(BATCH, *[1] * (rows.ndim - 1))).astype(np.float32)
    noise = _NOISE * spread * rng.standard_normal(first.shape).astype(np.float32)
    return np.asarray(share * first + (1 - share) * second + noise, dtype=np.float32)


def _loss(found: torch.Tensor, told: torch.Tensor, temperature: float | None) -> torch.Tensor:
    """Divergence from the teacher's soft targets; for numbers, the squared difference."""
    if temperature is None:
        return F.mse_loss(found, told)
    soft = F.softmax(told / temperature, dim=-1)
    return temperature**2 * F.kl_div(F.log_softmax(found / temperature, dim=-1), soft, reduction="batchmean")
