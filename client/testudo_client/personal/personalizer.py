"""The one core behind every way to ask an own model: check rows against its contract, answer, say how sure.

Listens nowhere and logs nothing. A version is loaded whole and exchanged in one step: whoever began with the old one
ends with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt

from testudo_client.personal.contract import Value
from testudo_client.personal.own_model import LEVEL, Answerer, Classes, Intervals
from testudo_client.personal.versions import Version
from testudo_common.errors import ModelError
from testudo_common.learning.tasks import Inputs

LIKELY = 0.5  # probability above which one class among several that cannot be excluded is called likely


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer to one row.

    Attributes:
        version: Which version answered.
        label: The most probable class; None for regression.
        value: The number predicted, in the target's unit; None for classes.
        probabilities: Class -> probability; empty for regression.
        possible: Classes that cannot be excluded at the level; empty for regression.
        low: Lower end of the interval; None where it is not known, or for classes.
        high: Upper end.
        sure: ``sure``: one class cannot be excluded; ``likely``: several, and one has more than half of the
            probability; ``not sure`` otherwise. For a number: ``likely`` with an interval, ``not sure`` without.
    """

    version: int
    label: str | None
    value: float | None
    probabilities: Mapping[str, float]
    possible: tuple[str, ...]
    low: float | None
    high: float | None
    sure: str

    def as_json(self) -> dict[str, Any]:
        """What a caller is told: ``label``, ``probabilities`` and ``possible`` of a class, or ``value``, ``low`` and
        ``high`` of a number; and ``sure``.
        """
        if self.label is None:
            return {"value": self.value, "low": self.low, "high": self.high, "sure": self.sure}
        shares, possible = dict(self.probabilities), list(self.possible)
        return {"label": self.label, "probabilities": shares, "possible": possible, "sure": self.sure}


class Personalizer:
    """Answers from one version.

    Args:
        version: Whole.
        level: Nominal coverage of sets and intervals, in (0, 1).
    """

    def __init__(self, version: Version, level: float = LEVEL) -> None:
        self.version, self.level = version, level
        self.answerer = Answerer(version.own)

    def predict(self, rows: Sequence[Mapping[str, Value]]) -> list[Prediction]:
        """An answer for each row.

        Raises:
            ContractError: A row breaks the contract; none is answered.
            ModelError: The model gives no finite number for a row.
        """
        return self.answer(self.version.contract.encode(rows))[0]

    def answer(self, inputs: Inputs, level: float | None = None) -> tuple[list[Prediction], npt.NDArray[np.float32]]:
        """What :meth:`predict` answers, and the outputs that are kept for watching.

        Args:
            inputs: ``float32[n, width]``, as the contract encodes rows.
            level: Nominal coverage, in (0, 1); None: this object's.

        Returns:
            An answer a row; and ``float32[n, C]`` calibrated probabilities, or ``float32[n, 1]`` predictions in the
            plan's scaled target.

        Raises:
            ModelError: The model gives no finite number for a row.
        """
        if not len(inputs):
            return [], np.empty((0, 0), dtype=np.float32)
        raw = self.answerer.raw(inputs)
        answers = self.answerer.read(raw, self.level if level is None else level)
        outputs = raw[:, None] if isinstance(answers, Intervals) else answers.probabilities
        told = answers.values if isinstance(answers, Intervals) else answers.probabilities
        if not (np.isfinite(raw).all() and np.isfinite(told).all()):
            raise ModelError("the model gives no finite number", remedy="Look at the row, or adapt the model again")
        return self.predictions(answers), outputs

    def predictions(self, answers: Classes | Intervals) -> list[Prediction]:
        """What a caller is told."""
        number = self.version.record.id
        if isinstance(answers, Intervals):
            ends = zip(answers.values.tolist(), answers.low.tolist(), answers.high.tolist(), strict=True)
            return [_of_number(number, *one) for one in ends]
        labels = self.version.own.labels
        best = answers.probabilities.argmax(axis=1).tolist()
        each = zip(best, answers.probabilities.tolist(), answers.sets.tolist(), strict=True)
        return [_of_class(number, labels, *one) for one in each]


def _of_class(number: int, labels: tuple[str, ...], best: int, shares: list[float], possible: list[bool]) -> Prediction:
    kept = tuple(compress(labels, possible))
    sure = "sure" if kept == (labels[best],) else "likely" if shares[best] > LIKELY else "not sure"
    return Prediction(number, labels[best], None, dict(zip(labels, shares, strict=True)), kept, None, None, sure)


def _of_number(number: int, value: float, low: float, high: float) -> Prediction:
    known = bool(np.isfinite(high))
    return Prediction(
        number, None, value, {}, (), low if known else None, high if known else None, "likely" if known else "not sure"
    )  # fmt: skip
