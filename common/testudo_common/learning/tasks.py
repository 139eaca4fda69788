"""Tasks: what a client adapts to. Holds examples as arrays, and how support sets and episodes are drawn from them.

Knows no model and no file. Sources: Nichol, Achiam, Schulman 2018 (Reptile, section 2: tasks and episodes).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from testudo_common.errors import DataError

Inputs = npt.NDArray[np.float32]
Targets = npt.NDArray[np.float32] | npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled examples of one client; never printed, since they are somebody's data.

    Attributes:
        inputs: ``float32[n, *input_shape]``.
        targets: ``int64[n]`` class numbers, or ``float32[n]`` for regression.
    """

    inputs: Inputs = field(repr=False)
    targets: Targets = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise DataError(f"{len(self.inputs)} inputs but {len(self.targets)} targets")

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: npt.NDArray[np.intp] | slice) -> Examples:
        """The examples at ``rows``, in that order."""
        return Examples(self.inputs[rows], self.targets[rows])


def first_of_each_class(examples: Examples, shots: int) -> Examples:
    """The first ``shots`` examples of every class, in their order; fewer where a class has fewer."""
    rows = [np.flatnonzero(examples.targets == label)[:shots] for label in np.unique(examples.targets)]
    return examples.take(np.sort(np.concatenate([*rows, np.empty(0, dtype=np.intp)])))


def draw_episode(
    pool: Examples, ways: int, shots: int, queries: int, rng: np.random.Generator
) -> tuple[Examples, Examples]:
    """One N-way K-shot episode: classes drawn without replacement and renumbered 0..ways-1.

    Args:
        pool: Examples whose targets are class numbers, any numbers.
        ways: Classes in the episode, 2 or more.
        shots: Support examples a class, 0 or more.
        queries: Query examples a class, 0 or more; disjoint from the support.
        rng: Seeded or not; episodes are public structure, not noise.

    Returns:
        Support and query set.

    Raises:
        DataError: The pool has fewer than ``ways`` classes of ``shots + queries`` examples.
    """
    labels, counts = np.unique(pool.targets, return_counts=True)
    usable = labels[counts >= shots + queries]
    if len(usable) < ways:
        raise DataError(
            f"an episode needs {ways} classes with {shots + queries} examples each, and there are {len(usable)}",
            remedy="lower task.ways, task.shots or task.queries, or leave this client out",
        )
    chosen = rng.choice(usable, size=ways, replace=False)
    support: list[npt.NDArray[np.intp]] = []
    query: list[npt.NDArray[np.intp]] = []
    for label in chosen:
        rows = rng.permutation(np.flatnonzero(pool.targets == label))[: shots + queries]
        support.append(rows[:shots])
        query.append(rows[shots:])
    numbers = np.arange(ways, dtype=np.int64)
    return (
        Examples(pool.inputs[np.concatenate(support)], np.repeat(numbers, shots)),
        Examples(pool.inputs[np.concatenate(query)], np.repeat(numbers, queries)),
    )
