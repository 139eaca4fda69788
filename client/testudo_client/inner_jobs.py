"""Inner loops that are ready to run, each with the rows of its steps drawn: what a simulator trains many of at once.

The rows are drawn as :func:`~testudo_common.learning.inner_loop.run_inner_loop` and
:func:`~testudo_client.train.run_private_inner_loop` draw them, from the same generators in the same order: whoever runs
the job takes the same steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from testudo_client.train import Mechanism, expected_number, poisson_rows
from testudo_common.learning.inner_loop import InnerLoop
from testudo_common.learning.learner import batches
from testudo_common.learning.tasks import Examples

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class InnerJob:
    """One inner loop of one client.

    Attributes:
        examples: What it trains on.
        rows: Of each step, numbers of examples. A Poisson sample may be empty: then the step is noise alone.
        learning_rate: Of plain SGD.
        mechanism: Of a private loop; None without privacy.
        expected_batch: What a private step's noisy sum is divided by; 0 without privacy.
    """

    examples: Examples
    rows: tuple[Rows, ...] = field(repr=False)
    learning_rate: float
    mechanism: Mechanism | None = field(default=None, repr=False)
    expected_batch: float = 0.0


def plain_job(examples: Examples, loop: InnerLoop, rng: np.random.Generator) -> InnerJob:
    """What ``run_inner_loop`` would do; without examples, nothing."""
    rows = tuple(batches(len(examples), loop.sample_rate, loop.steps, rng)) if len(examples) else ()
    return InnerJob(examples, rows, loop.learning_rate)


def private_job(
    examples: Examples, loop: InnerLoop, mechanism: Mechanism, expected_examples: float | None = None
) -> InnerJob:
    """What ``run_private_inner_loop`` would do.

    Raises:
        DataError: As there.
    """
    expected = loop.sample_rate * expected_number(examples, expected_examples)
    rows = tuple(poisson_rows(len(examples), loop, mechanism.sampling))
    return InnerJob(examples, rows, loop.learning_rate, mechanism, expected)
