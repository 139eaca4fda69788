"""Whether a candidate is put in use: only if it is better than everything that could be used instead.

Pure. Losses of the same examples are compared pair by pair, each scored by a model that was not made from it. A
difference has to stand out from its own standard error, so that a lucky handful of examples puts no worse model in use.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Numbers = npt.NDArray[np.float64]
CHANCE = 0.05  # that a mean difference of nothing is taken for better


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says.

    Attributes:
        promoted: Whether to put the candidate in use.
        reason: In a sentence.
    """

    promoted: bool
    reason: str


def judge(candidate: Numbers, others: Mapping[str, Numbers], chance: float = CHANCE) -> Verdict:
    """Compare the losses of a candidate with those of each other way to answer.

    Args:
        candidate: ``float64[n]``, one an example.
        others: Name -> ``float64[n]`` of the same examples; NaN where one was not scored.
        chance: Of being taken for better without being it: level of a one-sided paired t-test (Student 1908).
    """
    if not np.isfinite(candidate).all():
        return Verdict(False, "adapting diverged")
    for name, losses in others.items():
        there = np.isfinite(losses)
        gain = losses[there] - candidate[there]
        if len(gain) < 2:
            return Verdict(False, f"too few examples to compare with {name}")
        error = float(gain.std(ddof=1)) / math.sqrt(len(gain))
        if not gain.mean() > stdtrit(len(gain) - 1, 1 - chance) * error:
            how = "not better than" if gain.mean() <= 0 else "not clearly better than"
            return Verdict(False, f"{how} {name}, on {len(gain)} examples that neither was made from")
    return Verdict(True, f"better than {', '.join(others)}, on examples that none of them was made from")
