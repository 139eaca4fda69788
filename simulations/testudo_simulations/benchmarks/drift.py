"""How often watching raises a false alarm, and how soon it finds a named shift, beside the rule "PSI > 0.2".

Of each population: references of 200 rows and batches of 50, 100 and 500 of one client each, checked as
``testudo-client watch`` checks them. The population stability index (PSI) is that of credit scoring: ten bins by the
reference's deciles, and an alarm where any column or output exceeds 0.2 (Siddiqi 2006, "Credit Risk Scorecards"). Since
its false alarms depend on the size of the batch, it is also given the threshold that makes them as many as ours may be,
which its user could not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from testudo_client.reference import Reference
from testudo_client.watching.check import Against, Asked, check
from testudo_client.watching.drift import LEVEL
from testudo_common.learning.columns import InputColumn
from testudo_common.learning.tasks import Examples
from testudo_simulations.benchmarks.drift_cases import Population, Shifted, populations
from testudo_simulations.benchmarks.measure import Measurement

SIZES = (50, 100, 500)
REFERENCE = 200
BATCHES = 5  # of one reference, in a row
MOST_BATCHES = 10  # until a shift counts as not found
BATCH = 50  # rows, when looking for one
PSI_ALARM, PSI_BINS, PSI_LEAST = 0.2, 10, 1e-4
_REFERENCES = {"made up": 300, "retail": 300, "activity": 120}  # a repeat; a check of 45 columns takes longer
_SEARCHES = {"made up": 20, "retail": 20, "activity": 8}

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows with the model's answers."""

    examples: Examples
    outputs: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Alarms:
    """What was raised over batches of one size that do not drift, a reference each.

    Attributes:
        ours: ``int64[references]``: alarms in a row, from the first batch on, up to ``BATCHES``.
        theirs: The same of PSI.
        psi: ``float64[references]``: the largest of the first batch.
    """

    ours: npt.NDArray[np.int64]
    theirs: npt.NDArray[np.int64]
    psi: npt.NDArray[np.float64]


def measure_drift(repeats: int, data: Mapping[str, Path]) -> list[Measurement]:
    """False alarms, and batches until shifts are found; made-up data, and what files there are of real ones.

    Args:
        repeats: How many times as many draws.
        data: ``activity`` and ``retail`` -> file.
    """
    found: list[Measurement] = []
    for population in populations(data):
        thresholds = {}
        for size in SIZES:
            rng = np.random.default_rng([0, size])
            alarms = _without_drift(population, size, _REFERENCES[population.name] * repeats, rng)
            thresholds[size] = float(np.quantile(alarms.psi, 1.0 - LEVEL))
            found += _false_alarms(f"{population.name}, {size} rows, nothing drifts", alarms)
        for name, shift in population.shifts.items():
            rng = np.random.default_rng([1, *name.encode()])
            searches = _SEARCHES[population.name] * repeats
            found += _searched(population, name, shift, thresholds[BATCH], searches, rng)
    return found


def psi(reference: Floats, new: Floats, *, bins: int = PSI_BINS) -> float:
    """Population stability index of one column: sum of (new - old) log(new / old) over quantiles of the reference.

    Args:
        reference: ``float[m]``.
        new: ``float[n]``.
        bins: Equal values make fewer.
    """
    edges = np.unique(np.quantile(reference, np.arange(1, bins) / bins))
    shares = [
        np.maximum(
            np.bincount(np.searchsorted(edges, one, side="left"), minlength=len(edges) + 1) / len(one), PSI_LEAST
        )
        for one in (reference, new)
    ]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def _without_drift(population: Population, size: int, references: int, rng: np.random.Generator) -> _Alarms:
    alarms = _Alarms(np.zeros(references, dtype=np.int64), np.zeros(references, dtype=np.int64), np.zeros(references))
    for row in range(references):
        client = population.clients[row % len(population.clients)]
        reference = _drawn(population, client, REFERENCE, rng)
        for number in range(BATCHES):
            batch = _drawn(population, client, size, rng)
            largest = _largest_psi(population.columns, reference, batch)
            alarms.ours[row] += alarms.ours[row] == number and _flagged(population, reference, batch)
            alarms.theirs[row] += alarms.theirs[row] == number and largest > PSI_ALARM
            alarms.psi[row] = largest if number == 0 else alarms.psi[row]
            if max(alarms.ours[row], alarms.theirs[row]) <= number:
                break
    return alarms


def _false_alarms(case: str, alarms: _Alarms) -> list[Measurement]:
    ours, theirs = (100 * float((one > 0).mean()) for one in (alarms.ours, alarms.theirs))
    unlucky, always = (100 * float((one == BATCHES).mean()) for one in (alarms.ours, alarms.theirs))
    return [
        Measurement(case, "false_alarms_per_check", "%", ours, theirs, "PSI > 0.2"),
        Measurement(case, f"{BATCHES}_false_alarms_in_a_row", "% of references", unlucky, always, "PSI > 0.2"),
    ]


def _searched(
    population: Population, name: str, shift: Shifted, threshold: float, searches: int, rng: np.random.Generator
) -> list[Measurement]:
    """Batches until each detector raises an alarm, over references and the columns that the shift draws."""
    taken = np.array(
        [_batches_until_found(population, shift, (threshold, PSI_ALARM), row, rng) for row in range(searches)]
    )
    case = f"{population.name}, {name}"
    shares = 100 * (taken <= MOST_BATCHES).mean(axis=0)
    medians = np.median(taken, axis=0)  # of what was not found: one more than there were
    peer = f"PSI > {threshold:.2g}, as many false alarms"
    within = f"found_within_{MOST_BATCHES}_batches_of_{BATCH}"
    return [
        Measurement(case, within, "%", float(shares[0]), float(shares[1]), peer),
        Measurement(case, "batches_until_found", "batches", float(medians[0]), float(medians[1]), peer),
        Measurement(case, "batches_until_found", "batches", float(medians[0]), float(medians[2]), "PSI > 0.2"),
    ]


def _batches_until_found(
    population: Population, shift: Shifted, thresholds: tuple[float, ...], row: int, rng: np.random.Generator
) -> list[int]:
    """Ours, and PSI's at each of ``thresholds``; one more than ``MOST_BATCHES`` where it was not found."""
    client = population.clients[row % len(population.clients)]
    reference = _drawn(population, client, REFERENCE, rng)
    seed = int(rng.integers(2**32))  # the same column in every batch
    taken = [MOST_BATCHES + 1] * (1 + len(thresholds))
    for number in range(1, MOST_BATCHES + 1):
        drawn = client.take(rng.integers(len(client), size=BATCH))
        moved = shift(drawn, np.random.default_rng(seed))
        batch = _Batch(moved, population.answer(moved.inputs))
        largest = _largest_psi(population.columns, reference, batch)
        alarms = [
            taken[0] > number and _flagged(population, reference, batch),
            *(largest > each for each in thresholds),
        ]
        taken = [min(before, number) if alarm else before for before, alarm in zip(taken, alarms, strict=True)]
        if max(taken) <= number:
            break
    return taken


def _drawn(population: Population, client: Examples, size: int, rng: np.random.Generator) -> _Batch:
    examples = client.take(rng.integers(len(client), size=size))
    return _Batch(examples, population.answer(examples.inputs))


def _flagged(population: Population, reference: _Batch, batch: _Batch) -> bool:
    targets = reference.examples.targets.astype(np.float64)
    against = Against(
        reference=Reference(reference.examples.inputs, reference.outputs, targets),
        losses=np.empty(0),
        columns=population.columns,
        labels=population.labels,
        level=LEVEL,
    )
    told = batch.examples.targets.astype(np.float64)
    return bool(check(Asked(batch.examples.inputs, batch.outputs, batch.outputs, told), against).flagged)


def _largest_psi(columns: tuple[InputColumn, ...], reference: _Batch, batch: _Batch) -> float:
    """Over all inputs, a category's and an empty cell's as numbers of 0 and 1, and over all outputs."""
    pairs = [
        (reference.examples.inputs[:, place], batch.examples.inputs[:, place])
        for column in columns
        for place in range(column.start, column.stop)
    ]
    pairs += list(zip(reference.outputs.T, batch.outputs.T, strict=True))
    return max(psi(old, new) for old, new in pairs)
