"""An own model as one module that answers encoded rows: centred, and calibrated, or in the target's unit.

Writes no file. What it answers is what ``Answerer`` does, without sets and intervals.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from testudo_client.personal.own_model import Answerer, Intervals, OwnModel
from testudo_common.learning.tasks import Inputs
from testudo_common.plan.sections import TableData

Answers = npt.NDArray[np.float64]


class AnsweringModule(nn.Module):
    """Probabilities ``float32[n, C]``, or values ``float32[n]`` in the target's unit, of ``float32[n, *input_shape]``.

    Args:
        own: Whose centre, temperature and unit count.
        model: Its module, or a smaller one in its place.
    """

    centre: torch.Tensor

    def __init__(self, own: OwnModel, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("centre", torch.from_numpy(own.centre.inputs.copy()))
        self._regression, self._temperature = own.regression, own.temperature
        data = own.plan.data
        table = data if isinstance(data, TableData) else None
        self._scale = (table and table.target_scale) or 1.0
        self._start = ((table and table.target_center) or 0.0) + own.centre.target * self._scale
        self._log = table is not None and table.target_transform == "log"
        self.eval()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Answers to rows as the plan encodes them."""
        outputs: torch.Tensor = self.model(inputs - self.centre)
        if not self._regression:
            return torch.softmax(outputs / self._temperature, dim=-1)
        values = outputs[:, 0] * self._scale + self._start
        return torch.exp(values) if self._log else values


def reference(answerer: Answerer, inputs: Inputs) -> Answers:
    """What a file has to answer: ``float64[n, C]`` or ``float64[n]``."""
    answers = answerer.answer(inputs)
    if isinstance(answers, Intervals):
        return answers.values
    return answers.probabilities.astype(np.float64)


def difference(found: npt.NDArray[np.floating], expected: Answers) -> float:
    """The largest: of a probability, or of a value over the larger of its size and 1; infinite if one is no number."""
    gap = np.abs(found.astype(np.float64) - expected) / np.maximum(1.0, np.abs(expected))
    return float(gap.max()) if np.isfinite(gap).all() else float("inf")


def agreement(found: npt.NDArray[np.floating], expected: Answers) -> float:
    """Share of rows with the same class; for numbers one minus the mean difference over the answers' spread, or 0."""
    if expected.ndim == 2:
        return float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
    gap = float(np.abs(found.astype(np.float64) - expected).mean())
    spread = float(expected.std())
    return max(0.0, 1.0 - gap / spread) if spread > 0 else float(gap == 0)
