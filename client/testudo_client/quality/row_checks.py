"""Checks across rows: duplicates, contradictions, classes, what leaks the answer, and the order of time.

Pure functions of encoded rows. In training, a row and its duplicates always fall into the same half (``split.py``);
few-shot adaptation takes the first rows and is scored on later ones, which is where a duplicate flatters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from testudo_client.quality.findings import Finding, Severity, first
from testudo_client.table import Table, order_keys
from testudo_common.errors import DataError
from testudo_common.learning.columns import InputColumn
from testudo_common.learning.tasks import Examples, Targets

DOMINANT = 0.9  # share of one class
SHARE_ACROSS = 0.01
ENOUGH = 20  # rows below which one column may tell the target by chance
BIN_ROWS, MOST_BINS = 5, 20
NEARLY_PERFECT = 0.99
GAP = 3.0  # usual steps


def duplicates(examples: Examples, table: Table) -> Iterator[Finding]:
    """Rows that say the same as an earlier one, in every cell or in all that the model sees."""
    whole = _repeats([bytes(str(row), "utf-8") for row in table.rows])
    seen = _repeats(_records(examples, with_target=True))
    if whole:
        yield Finding(
            Severity.WARN,
            "duplicates",
            f"{_rows(whole)} in every cell as an earlier one",
            "Take them out, unless it did happen twice",
            count=len(whole),
            lines=_lines(table, whole),
        )
    if more := sorted(set(seen) - set(whole)):
        yield Finding(
            Severity.NOTE,
            "duplicates",
            f"{_rows(more)} as an earlier one in all that the model sees",
            "Expected where columns are few; else check the export",
            count=len(more),
            lines=_lines(table, more),
        )


def contradictions(examples: Examples, table: Table) -> Iterator[Finding]:
    """Rows with the same inputs and another class."""
    if examples.targets.dtype == np.float32:
        return
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, record in enumerate(_records(examples, with_target=False)):
        groups[record].append(row)
    rows = sorted(row for group in groups.values() if len(set(examples.targets[group].tolist())) > 1 for row in group)
    if rows:
        share = len(rows) / len(examples)
        verb = "row has" if len(rows) == 1 else "rows have"
        yield Finding(
            Severity.WARN if share > SHARE_ACROSS else Severity.NOTE,
            "contradictions",
            f"{len(rows)} {verb} the same inputs as another one, and another class",
            "No model can get both right: correct the labels, or add the column that tells them apart",
            count=len(rows),
            lines=_lines(table, rows),
        )


def across_halves(examples: Examples, columns: Sequence[InputColumn], table: Table) -> Iterator[Finding]:
    """Rows of the later half whose inputs were in the earlier one: support and query of a few-shot evaluation."""
    records = _records(examples, with_target=True)
    early = set(records[: len(records) // 2])
    rows = [row for row in range(len(records) // 2, len(records)) if records[row] in early]
    if not rows or len(rows) <= SHARE_ACROSS * len(records):
        return
    only_categories = all(column.kind == "category" for column in columns)
    yield Finding(
        Severity.NOTE if only_categories else Severity.WARN,
        "across_halves",
        f"{len(rows)} rows of the later half stand in the earlier half as well",
        "A score on later rows would flatter the model: take duplicates out",
        count=len(rows),
        lines=_lines(table, rows),
    )


def classes(examples: Examples, labels: Sequence[str], target: str, shots: int) -> Iterator[Finding]:
    """Whether there are two classes, enough of each, and not nearly all of one."""
    counts = np.bincount(examples.targets[examples.targets >= 0].astype(np.int64), minlength=len(labels))
    present = int((counts > 0).sum())
    if present < 2:
        yield Finding(
            Severity.STOP,
            "classes",
            "all rows have one and the same class",
            "Bring rows of at least two classes",
            target,
        )
        return
    if absent := [label for label, count in zip(labels, counts, strict=True) if count == 0]:
        yield Finding(
            Severity.WARN,
            "classes",
            f"no row is of {', '.join(map(repr, absent))}",
            "Your own model will not learn what you have not seen: its answers of it stay the federation's",
            target,
        )
    if few := [f"{label!r} ({count})" for label, count in zip(labels, counts, strict=True) if 0 < count < shots]:
        yield Finding(
            Severity.WARN,
            "few_per_class",
            f"fewer than {shots} rows are of {', '.join(few)}",
            f"Bring more, or adapt on fewer than {shots} a class",
            target,
        )
    share = float(counts.max() / counts.sum())
    if share > DOMINANT:
        yield Finding(
            Severity.WARN,
            "balance",
            f"{share:.0%} of the rows are {labels[int(counts.argmax())]!r}",
            "Always guessing it looks accurate: judge by balanced accuracy",
            target,
            count=int(counts.max()),
        )


def telling_columns(examples: Examples, columns: Sequence[InputColumn], target: str) -> Iterator[Finding]:
    """Columns that by themselves tell the target nearly perfectly, as one does that was filled in afterwards."""
    if len(examples) < ENOUGH:
        return
    for column in columns:
        places, bins = _binned(column, examples.inputs)
        told = _told(places, bins, examples.targets)
        if told >= NEARLY_PERFECT:
            yield Finding(
                Severity.WARN,
                "tells_target",
                f"by itself it tells {target!r} in {told:.1%}",
                "Is it known when the question is asked? If it was filled in afterwards, take it out",
                column.name,
            )


def order(table: Table, column: str) -> Iterator[Finding]:
    """Whether the column of time is one, in order, without equal times and without gaps."""
    try:
        keys = np.array(order_keys(table, column))
    except DataError as error:
        yield Finding(Severity.STOP, "order", error.problem, error.remedy or "Write numbers or ISO dates", column)
        return
    steps = np.diff(np.sort(keys))
    if (np.diff(keys) < 0).any():
        yield Finding(Severity.NOTE, "order", "the rows are not in its order", "They are sorted before use", column)
    if equal := int((steps == 0).sum()):
        yield Finding(
            Severity.WARN,
            "order",
            f"{equal} rows have the same as another one",
            "Their order is that of the file",
            column,
            equal,
        )
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    if usual and (gaps := int((steps > GAP * usual).sum())):
        yield Finding(
            Severity.WARN,
            "order",
            f"{gaps} gap{'s' if gaps > 1 else ''} of more than {GAP:g} usual steps",
            "Is a part missing? What was learnt before a gap may no longer hold",
            column,
            gaps,
        )


def _binned(column: InputColumn, inputs: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int64], int]:
    """``int64[n]``: which bin a row's cell is in, and how many there are; an empty cell is one of its own."""
    block = inputs[:, column.values]
    if column.kind == "category":
        places, bins = block.argmax(axis=1).astype(np.int64), column.width
    else:
        bins = max(1, min(MOST_BINS, len(inputs) // BIN_ROWS))
        edges = np.quantile(block[:, 0], np.arange(1, bins) / bins)
        places = np.searchsorted(edges, block[:, 0], side="left").astype(np.int64)
    return np.where(column.present(inputs), places, bins), bins + 1


def _told(places: npt.NDArray[np.int64], bins: int, targets: Targets) -> float:
    """How much of the target the bins tell, in 0..1."""
    if targets.dtype == np.float32:
        return _explained(places, bins, targets.astype(np.float32))
    return _guessed(places, bins, targets.astype(np.int64))


def _guessed(places: npt.NDArray[np.int64], bins: int, targets: npt.NDArray[np.int64]) -> float:
    """Accuracy of the most frequent class of each bin; 0 where that beats the most frequent of all too little."""
    counts = np.zeros((bins, int(targets.max()) + 1), dtype=np.int64)
    np.add.at(counts, (places, targets), 1)
    told, base = counts.max(axis=1).sum() / len(targets), counts.sum(axis=0).max() / len(targets)
    return float(told) if 1 - told <= 0.1 * (1 - base) and base < 1 else 0.0


def _explained(places: npt.NDArray[np.int64], bins: int, targets: npt.NDArray[np.float32]) -> float:
    """Share of the target's variance between bins."""
    exact = targets.astype(np.float64)
    count = np.bincount(places, minlength=bins)
    mean = np.bincount(places, exact, bins) / np.maximum(count, 1)
    variance = exact.var()
    return float(1 - np.square(exact - mean[places]).mean() / variance) if variance > 0 else 0.0


def _records(examples: Examples, *, with_target: bool) -> list[bytes]:
    tail = [target.tobytes() if with_target else b"" for target in examples.targets]
    return [row.tobytes() + end for row, end in zip(examples.inputs, tail, strict=True)]


def _repeats(records: Sequence[bytes]) -> list[int]:
    """Places of records that stood before."""
    seen: set[bytes] = set()
    places = []
    for place, record in enumerate(records):
        if record in seen:
            places.append(place)
        seen.add(record)
    return places


def _lines(table: Table, rows: Sequence[int]) -> tuple[int, ...]:
    return first([table.lines[row] for row in rows])


def _rows(rows: Sequence[int]) -> str:
    return "1 row is the same" if len(rows) == 1 else f"{len(rows)} rows are the same"
