"""How a model stands named shifts of the rows it is asked about. The shifts are ``testudo_common.learning.shifts``.

Only what is asked is shifted: the model was made before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from testudo_client.judging.answered import Answered
from testudo_client.judging.comparing import change_of
from testudo_client.judging.results import Score, ShiftScore
from testudo_client.judging.scoring import point_metrics
from testudo_common.learning.columns import InputColumn
from testudo_common.learning.shifts import SHIFTS, Shift
from testudo_common.learning.tasks import Examples

DRAWS = 5  # of the column, rows and noise that a shift touches; what is stated is their mean
Asked = Callable[[Callable[[Examples], Examples]], Answered]
"""Answers to all rows after a change; called with the identity for rows as they are."""


def shift_scores(ask: Asked, columns: Sequence[InputColumn], seed: int) -> tuple[ShiftScore, ...]:
    """One a named shift that the columns allow.

    Args:
        ask: Answers to the rows, changed.
        columns: That may be touched; the same ones are drawn for every client.
        seed: Of what is drawn.
    """
    plain = ask(_unchanged)
    return tuple(_score(shift, ask, columns, seed, plain) for shift in SHIFTS.values() if shift.fits(columns))


def _score(shift: Shift, ask: Asked, columns: Sequence[InputColumn], seed: int, plain: Answered) -> ShiftScore:
    drawn = [ask(change) for change in _changes(shift, columns, seed)]
    metrics = [point_metrics(one) for one in drawn]
    return ShiftScore(
        shift=shift.name,
        about=shift.what.format(severity=shift.severity),
        metrics={name: Score(value=_mean([one[name] for one in metrics])) for name in metrics[0]},
        change=change_of(drawn, plain),
    )


def _changes(shift: Shift, columns: Sequence[InputColumn], seed: int) -> Iterator[Callable[[Examples], Examples]]:
    for draw in range(DRAWS):

        def change(examples: Examples, draw: int = draw) -> Examples:
            return shift(examples, columns, np.random.default_rng([seed, draw]))

        yield change


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _unchanged(examples: Examples) -> Examples:
    return examples
