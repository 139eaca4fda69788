"""Detectors that look at one outcome's loss after the other: ADWIN and Page-Hinkley, from River.

They find a change within a stream and need no reference, but have no false alarm rate a check: their thresholds hold
for a step. So the tests of ``outcomes.py`` are the default and these are asked for. Nothing of theirs is kept: losses
are played again from the first outcome of a version on, which gives the same answer at every check and after a restart.
Sources: Bifet and Gavalda 2007 (ADWIN); Page 1954 (cumulative sums).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from testudo_common.errors import UsageError

Stream = Literal["adwin", "page-hinkley"]


@dataclass(frozen=True, slots=True)
class Change:
    """What a detector found.

    Attributes:
        seen: Losses that it was shown.
        at: How many of them it had seen when it last found that they had grown; None: it never did.
    """

    seen: int
    at: int | None


def changed(losses: npt.NDArray[np.float64], stream: Stream) -> Change:
    """Play losses to a detector.

    Args:
        losses: ``float64[n]``, in the order of the questions.
        stream: Which detector.

    Raises:
        UsageError: River is not installed.
    """
    detector, at = _detector(stream), None
    for place, loss in enumerate(losses.tolist(), 1):
        before = detector.estimation if stream == "adwin" else 0.0
        detector.update(loss)
        if detector.drift_detected and (stream == "page-hinkley" or detector.estimation > before):
            at = place
    return Change(len(losses), at)


def _detector(stream: Stream) -> Any:
    try:
        drift: Any = importlib.import_module("river.drift")
    except ImportError as error:
        raise UsageError(
            f"{stream} needs River, which is not installed",
            where="--stream",
            remedy="pip install 'testudo-fl[monitor]', or leave --stream out: the test of losses needs nothing more",
        ) from error
    return drift.ADWIN() if stream == "adwin" else drift.PageHinkley(mode="up")
