"""How a model stands named shifts of the rows it is asked about. The shifts are ``testudo_common.learning.shifts``.

Only what is asked is shifted: the model was made before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from testudo_client.judging.answered import Answered
from testudo_client.judging.comparing import change_of
from testudo_client.judging.results import Score, ShiftScore
from testudo_client.judging.scoring import point_metrics
from testudo_common.learning.columns import InputColumn
from testudo_common.learning.shifts import SHIFTS, Shift
from testudo_common.learning.tasks import Examples

DRAWS = 5  # of the column, rows and noise that a shift touches; what is stated is their mean
Change = Callable[[Examples], Examples]
Ask = Callable[[Sequence[Change]], Sequence[Answered]]
"""Answers to all rows after each change."""


def shift_scores(ask: Ask, columns: Sequence[InputColumn], seed: int) -> tuple[ShiftScore, ...]:
    """One a named shift that the columns allow.

    Args:
        ask: Answers to the rows, changed; called once, so that a model is adapted once.
        columns: That may be touched; the same ones are drawn for every client.
        seed: Of what is drawn.
    """
    shifts = [shift for shift in SHIFTS.values() if shift.fits(columns)]
    changes = [_change(shift, columns, seed, draw) for shift in shifts for draw in range(DRAWS)]
    plain, *drawn = ask([unchanged, *changes])
    return tuple(_score(shift, drawn[DRAWS * n : DRAWS * (n + 1)], plain) for n, shift in enumerate(shifts))


def _score(shift: Shift, drawn: Sequence[Answered], plain: Answered) -> ShiftScore:
    metrics = [point_metrics(one) for one in drawn]
    return ShiftScore(
        shift=shift.name,
        about=shift.what.format(severity=shift.severity),
        metrics={name: Score(value=_mean([one[name] for one in metrics])) for name in metrics[0]},
        change=change_of(drawn, plain),
    )


def _change(shift: Shift, columns: Sequence[InputColumn], seed: int, draw: int) -> Change:
    def change(examples: Examples) -> Examples:
        return shift(examples, columns, np.random.default_rng([seed, draw]))

    return change


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def unchanged(examples: Examples) -> Examples:
    """No shift."""
    return examples
