"""The one core behind every way to ask an own model: check rows against its contract, answer, say how sure.

Listens nowhere and logs nothing. A version is loaded whole and exchanged in one step: whoever began with the old one
ends with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from testudo_client.personal.contract import Value
from testudo_client.personal.own_model import LEVEL, Answerer, Classes, Intervals
from testudo_client.personal.versions import Version

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
        """
        if not rows:
            return []
        return self.predictions(self.answerer.answer(self.version.contract.encode(rows), self.level))

    def predictions(self, answers: Classes | Intervals) -> list[Prediction]:
        """What a caller is told."""
        number = self.version.record.id
        if isinstance(answers, Intervals):
            ends = zip(answers.values.tolist(), answers.low.tolist(), answers.high.tolist(), strict=True)
            return [_of_number(number, *one) for one in ends]
        return [self._of_class(number, *one) for one in zip(answers.probabilities, answers.sets, strict=True)]

    def _of_class(self, number: int, probabilities: np.ndarray, possible: np.ndarray) -> Prediction:
        labels = self.version.own.labels
        best = int(probabilities.argmax())
        kept = tuple(label for label, one in zip(labels, possible.tolist(), strict=True) if one)
        sure = "sure" if kept == (labels[best],) else "likely" if probabilities[best] > LIKELY else "not sure"
        told = dict(zip(labels, probabilities.astype(float).tolist(), strict=True))
        return Prediction(number, labels[best], None, told, kept, None, None, sure)


def _of_number(number: int, value: float, low: float, high: float) -> Prediction:
    known = bool(np.isfinite(high))
    return Prediction(
        number, None, value, {}, (), low if known else None, high if known else None, "likely" if known else "not sure"
    )  # fmt: skip
