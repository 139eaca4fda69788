"""A meta-model that was adapted to one owner, and what it answers: probabilities or numbers, and how sure it is.

Adapts nothing and reads no file. Everything in it was made from the owner's data and stays with the owner.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from testudo_common.errors import ModelError
from testudo_common.learning.calibration import tempered
from testudo_common.learning.conformal import Conformal
from testudo_common.learning.inner_loop import LocalCentre
from testudo_common.learning.learner import write_parameters
from testudo_common.learning.models import build_model
from testudo_common.learning.tasks import Inputs
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import TableData
from testudo_common.vectors import Vector

LEVEL = 0.9  # nominal coverage of sets and intervals


@dataclass(frozen=True, slots=True)
class OwnModel:
    """All that answering takes.

    Attributes:
        plan: Of the meta-model, complete.
        parameters: ``float32[p]``: all of the module's parameters, in their order, an unshared head's too.
        centre: The owner's own, which inputs and predictions are around.
        temperature: Of its probabilities; 1 for regression.
        conformal: Scores that say how sure it may be.
    """

    plan: FederationPlan
    parameters: Vector = field(repr=False, compare=False)
    centre: LocalCentre = field(repr=False, compare=False)
    temperature: float
    conformal: Conformal

    @property
    def regression(self) -> bool:
        """Whether it answers with numbers."""
        return self.plan.task.kind == "regression"

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; none for regression."""
        if self.regression:
            return ()
        named = self.plan.data.labels if isinstance(self.plan.data, TableData) else None
        return named or tuple(map(str, range(self.plan.model.outputs or 0)))


@dataclass(frozen=True, slots=True)
class Classes:
    """Answers of a classifier.

    Attributes:
        probabilities: ``float32[n, C]``, calibrated.
        sets: ``bool[n, C]``: classes that cannot be excluded at the level asked for.
    """

    probabilities: npt.NDArray[np.float32] = field(repr=False)
    sets: npt.NDArray[np.bool_] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Intervals:
    """Answers of a regression, in the target's own unit.

    Attributes:
        values: ``float64[n]``.
        low: ``float64[n]``; minus infinity, or 0 for a logarithmic target, where nothing is known.
        high: ``float64[n]``; infinite where nothing is known.
    """

    values: npt.NDArray[np.float64] = field(repr=False)
    low: npt.NDArray[np.float64] = field(repr=False)
    high: npt.NDArray[np.float64] = field(repr=False)


class Answerer:
    """Asks one own model; may be shared by threads, since asking changes nothing in it.

    Raises:
        ModelError: The parameters do not fit the plan's model.
    """

    def __init__(self, own: OwnModel) -> None:
        self.own = own
        self.module = build_model(own.plan.model, own.plan.seed).eval()
        if sum(one.numel() for one in self.module.parameters()) != len(own.parameters):
            raise ModelError("the own model does not fit its plan", remedy="Adapt it again")
        write_parameters(self.module.parameters(), own.parameters)

    def raw(self, inputs: Inputs) -> npt.NDArray[np.float32]:
        """Logits ``float32[n, C]``, or predictions ``float32[n]`` in the plan's scaled target.

        Args:
            inputs: ``float32[n, *input_shape]``, as the plan encodes them; not centred.
        """
        with torch.inference_mode():
            outputs = self.module(torch.from_numpy(np.ascontiguousarray(inputs - self.own.centre.inputs))).numpy()
        return self.scaled(outputs)

    def scaled(self, outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What the module gave for centred inputs (``float32[n, C or 1]``), as :meth:`raw` returns it."""
        return outputs[:, 0] + np.float32(self.own.centre.target) if self.own.regression else outputs

    def answer(self, inputs: Inputs, level: float = LEVEL) -> Classes | Intervals:
        """What :meth:`read` makes of :meth:`raw`."""
        return self.read(self.raw(inputs), level)

    def read(self, raw: npt.NDArray[np.float32], level: float = LEVEL) -> Classes | Intervals:
        """Calibrated probabilities with sets, or numbers with intervals.

        Args:
            raw: As :meth:`raw` returns it.
            level: Nominal coverage, in (0, 1).
        """
        own = self.own
        if not own.regression:
            probabilities = tempered(raw, own.temperature)
            return Classes(probabilities, own.conformal.sets(probabilities, level))
        half = own.conformal.threshold(level)
        exact = raw.astype(np.float64)
        return Intervals(*(in_target_unit(own.plan, one) for one in (exact, exact - half, exact + half)))


def in_target_unit(plan: FederationPlan, scaled: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``scaled`` targets, as the plan's model predicts them, in the table's own unit."""
    data = plan.data
    if not isinstance(data, TableData):
        return scaled
    values = scaled * (data.target_scale or 1.0) + (data.target_center or 0.0)
    if data.target_transform == "none":
        return values
    with np.errstate(over="ignore"):  # an infinite end of an interval stays one
        return np.exp(values)
