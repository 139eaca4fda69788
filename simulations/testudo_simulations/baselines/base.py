"""What a set of fitted baselines is to ``run_baselines``: names, labels, and one function that predicts.

The baselines of one task kind share work (a pooled forest, a standardisation), so they predict together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testudo_common.learning.tasks import Examples, Inputs

Floats = npt.NDArray[np.float64]
Pair = tuple[Examples, Examples]
# shots (None: the whole support set) -> client id -> its (support, query) pairs
Splits = Mapping[int | None, Mapping[str, list[Pair]]]
Predict = Callable[[Examples, Inputs], Mapping[str, Floats]]


@dataclass(frozen=True, slots=True)
class Panel:
    """Baselines fitted on the pooled training clients, ready to see a new client.

    Attributes:
        labels: Name of a baseline -> what a reader sees, in the order of the report.
        predict: From a client's support set and query inputs to name -> predictions: probabilities
            ``float64[n, C]``, or ``float64[n]`` in the unit of the targets. A baseline that can do nothing
            with this support set, such as a local one with an empty set, is not in the answer.
    """

    labels: Mapping[str, str]
    predict: Predict


def pooled(training: Mapping[str, Examples]) -> tuple[Floats, npt.NDArray[np.intp]]:
    """All training inputs, flattened, ``float64[n, p]``, and whose they are: ``intp[n]``, clients by id."""
    sets = [training[client] for client in sorted(training)]
    owners = np.repeat(np.arange(len(sets)), [len(examples) for examples in sets])
    return np.concatenate([flat(examples.inputs) for examples in sets]), owners


def pooled_rows(training: Mapping[str, Examples], rows: npt.NDArray[np.intp]) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Some of them, and their classes: ``float64[n, p]`` and ``int64[n]``. One client is looked at at a time.

    Args:
        training: Client id -> its examples.
        rows: ``intp[n]``, rising numbers of rows of all clients together, clients by id.
    """
    inputs, targets, first = [], [], 0
    for client in sorted(training):
        examples = training[client]
        start, stop = np.searchsorted(rows, [first, first + len(examples)])
        chosen = rows[start:stop] - first
        inputs.append(flat(examples.inputs[chosen]))
        targets.append(examples.targets[chosen].astype(np.int64))
        first += len(examples)
    return np.concatenate(inputs), np.concatenate(targets)


def flat(inputs: Inputs) -> Floats:
    """``float64[n, p]``: every input as one row."""
    return inputs.reshape(len(inputs), int(np.prod(inputs.shape[1:]))).astype(np.float64)
