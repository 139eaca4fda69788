"""One check: questions and answers since the last one, and outcomes, against a version's reference. Pure.

At the default level at most 4 checks of 100 flag anything while nothing drifts, whatever they test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from testudo_client.reference import Reference
from testudo_client.watching.drift import LEAST, Compared, corrected, input_tests, output_tests
from testudo_client.watching.outcomes import Outcomes, outcome_tests, outcomes_of
from testudo_client.watching.policy import Checked
from testudo_client.watching.streams import Change, Stream, changed
from testudo_common.learning.columns import InputColumn


@dataclass(frozen=True, slots=True)
class Asked:
    """What a version was asked and answered; never printed.

    Attributes:
        inputs: ``float32[n, d]``: questions since the last check.
        outputs: ``float32[n, C or 1]``: answers to them.
        told: ``float32[k, C or 1]``: the newest answers whose outcome is known.
        targets: ``float64[k]``: those outcomes, class numbers or scaled targets.
    """

    inputs: npt.NDArray[np.float32] = field(repr=False)
    outputs: npt.NDArray[np.float32] = field(repr=False)
    told: npt.NDArray[np.float32] = field(repr=False)
    targets: npt.NDArray[np.float64] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Against:
    """What it is compared with, and how.

    Attributes:
        reference: Of the version.
        losses: ``float64[k]``: out-of-fold losses of the version, where the reference has no targets.
        columns: Which inputs are whose.
        labels: Classes; none for regression.
        level: Of the check.
        stream: A detector of River's besides; None: none.
    """

    reference: Reference = field(repr=False)
    losses: npt.NDArray[np.float64] = field(repr=False)
    columns: Sequence[InputColumn]
    labels: Sequence[str]
    level: float
    stream: Stream | None = None

    @property
    def outcomes(self) -> Outcomes | None:
        """Of rows that the model was not trained on; None where too few are known."""
        outputs, targets = self.reference.outputs, self.reference.targets
        if outputs is not None and targets is not None and len(targets) >= LEAST:
            return outcomes_of(outputs, targets, regression=not self.labels)
        return Outcomes(self.losses) if len(self.losses) >= LEAST else None


@dataclass(frozen=True, slots=True)
class Found:
    """What a check found.

    Attributes:
        rows: Questions it looked at.
        labelled: Outcomes it looked at; 0 where they were too few to test.
        tests: All of them, corrected together.
        level: Up to which adjusted p they flag.
        change: What the detector of a stream said; None: none was asked.
        untested: Why something was not tested, in words.
    """

    rows: int
    labelled: int
    tests: tuple[Compared, ...]
    level: float
    change: Change | None
    untested: tuple[str, ...]

    @property
    def flagged(self) -> tuple[Compared, ...]:
        """Tests that flag, the surest first."""
        return tuple(sorted((test for test in self.tests if test.adjusted <= self.level), key=_adjusted))

    @property
    def drifted(self) -> bool:
        """Whether inputs or outputs are not what they were."""
        return any(test.family != "outcomes" for test in self.flagged)

    @property
    def worse(self) -> bool | None:
        """Whether outcomes are worse; None where too few are known."""
        by_stream = self.change is not None and self.change.at is not None
        if not self.labelled:
            return True if by_stream else None
        return by_stream or any(test.family == "outcomes" for test in self.flagged)

    @property
    def event(self) -> Checked:
        """For the policy."""
        return Checked(self.drifted, self.worse)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; no value of a cell is in it."""
        return {
            "rows": self.rows,
            "labelled": self.labelled,
            "level": self.level,
            "drifted": self.drifted,
            "worse": self.worse,
            "tests": [test.as_dict() for test in self.tests],
            "stream_changed_at": None if self.change is None else self.change.at,
            "untested": list(self.untested),
        }


def check(asked: Asked, against: Against) -> Found:
    """Test everything that there is enough of, and correct it together.

    Raises:
        UsageError: A stream was asked for, and River is not installed.
    """
    reference, tests, untested = against.reference, [], []
    if len(reference.inputs) >= LEAST:
        tests += input_tests(reference.inputs, asked.inputs, against.columns)
    else:
        untested.append(f"inputs: the reference has {len(reference.inputs)} rows, and it takes {LEAST}")
    if reference.outputs is not None and len(reference.outputs) >= LEAST:
        tests += output_tests(reference.outputs, asked.outputs, against.labels)
    else:
        untested.append("answers: there are none to rows that it was not trained on, to compare with")
    expected, known = against.outcomes, len(asked.targets)
    labelled = 0
    if expected is None:
        untested.append("outcomes: none are known of rows that it was not trained on")
    elif known < LEAST:
        untested.append(f"outcomes: {known} are known, and it takes {LEAST}")
    else:
        labelled = known
        tests += outcome_tests(expected, outcomes_of(asked.told, asked.targets, regression=not against.labels))
    change = None
    if against.stream is not None and known:
        losses = outcomes_of(asked.told, asked.targets, regression=not against.labels).losses
        change = changed(losses, against.stream)
    return Found(len(asked.inputs), labelled, corrected(tests), against.level, change, tuple(untested))


def _adjusted(test: Compared) -> float:
    return test.adjusted
