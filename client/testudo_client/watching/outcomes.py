"""Whether answers have got worse, from what turned out: against outcomes of rows that the model was not trained on.

Pure functions of arrays. One-sided: better is no alarm. Tests of two samples, as in ``drift.py``, so that their false
alarms are known; ``streams.py`` has detectors that watch one outcome after the other instead.
Source: Mann and Whitney 1947; Fisher's exact test.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from testudo_client.watching.drift import Compared

LEAST_PROBABILITY = 1e-7  # the log loss stays finite

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Answers beside what turned out to be true.

    Attributes:
        losses: ``float64[n]``: log loss, or squared error in the scaled target.
        correct: ``bool[n]``; None for regression, or where it is not known.
        surplus: ``float64[n]``: the probability of the class answered, minus 1 where it was right; None likewise.
    """

    losses: Numbers = field(repr=False)
    correct: npt.NDArray[np.bool_] | None = field(default=None, repr=False)
    surplus: Numbers | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.losses)


def outcomes_of(outputs: npt.NDArray[np.float32], targets: Numbers, *, regression: bool) -> Outcomes:
    """From answers.

    Args:
        outputs: ``float32[n, C]`` probabilities, or ``float32[n, 1]`` predictions in the scaled target.
        targets: ``float64[n]``: class numbers, or scaled targets.
        regression: Which of the two.
    """
    exact = outputs.astype(np.float64)
    if regression:
        return Outcomes(np.square(exact[:, 0] - targets))
    true = targets.astype(np.int64)
    losses = -np.log(np.maximum(exact[np.arange(len(true)), true], LEAST_PROBABILITY))
    correct = exact.argmax(axis=1) == true
    return Outcomes(losses, correct, exact.max(axis=1) - correct)


def outcome_tests(reference: Outcomes, new: Outcomes) -> list[Compared]:
    """Whether losses grew; of classes also whether fewer answers are right, and whether it is surer than right."""
    tests = [_greater("loss", reference.losses, new.losses)]
    if reference.correct is not None and new.correct is not None:
        tests.append(_fewer("accuracy", reference.correct, new.correct))
    if reference.surplus is not None and new.surplus is not None:
        tests.append(_greater("calibration", reference.surplus, new.surplus))
    return tests


def _greater(name: str, reference: Numbers, new: Numbers) -> Compared:
    from scipy.stats import mannwhitneyu

    difference = float(new.mean() - reference.mean())
    if np.ptp(np.concatenate([reference, new])) == 0.0:  # all the same
        return Compared("outcomes", name, "Mann-Whitney", difference, 1.0)
    p = float(mannwhitneyu(new, reference, alternative="greater").pvalue)
    return Compared("outcomes", name, "Mann-Whitney", difference, p)


def _fewer(name: str, reference: npt.NDArray[np.bool_], new: npt.NDArray[np.bool_]) -> Compared:
    from scipy.stats import fisher_exact

    counts = [[int(side.sum()), int((~side).sum())] for side in (new, reference)]
    p = float(fisher_exact(counts, alternative="less").pvalue)
    return Compared("outcomes", name, "Fisher", float(new.mean() - reference.mean()), p)
