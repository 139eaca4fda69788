"""Checks of one column at a time: cells that cannot be used, empty ones, constants, far-off values, row numbers.

Pure functions of a table's text; what a cell holds is never told.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from testudo_client.quality.findings import Finding, Severity, first
from testudo_client.table import CellFault, Table, is_absent, parse_number
from testudo_common.plan.sections import Column

MOST_MISSING = 0.5
NEARLY_ALL = 0.99
FAR_FROM_PLAN = 20.0  # scales from the plan's centre: more than any standardised number of a like population
FAR_FROM_OWN = 30.0  # interquartile ranges beyond the quartiles: more than a long tail of a few hundred rows
ENOUGH = 8  # rows below which an order says nothing


def unusable_cells(faults: Sequence[CellFault]) -> Iterator[Finding]:
    """One finding a column and kind of fault."""
    grouped: dict[tuple[str, str], list[int]] = defaultdict(list)
    for fault in faults:
        grouped[fault.column, fault.problem].append(fault.line)
    for (column, problem), lines in grouped.items():
        cells = "a cell is" if len(lines) == 1 else f"{len(lines)} cells are"
        remedy = (
            "Fill them in, or take their rows out" if problem == "empty" else "Correct them, or take their rows out"
        )
        yield Finding(Severity.STOP, "cells", f"{cells} {problem}", remedy, column, len(lines), first(lines))


def missing_cells(column: Column, table: Table) -> Iterator[Finding]:
    """Of a column whose cells may be empty; those of others are unusable."""
    empty = [line for line, cell in zip(table.lines, table.cells(column.name), strict=True) if not cell]
    if not (column.missing and empty):
        return
    share = len(empty) / len(table)
    bad = share > MOST_MISSING
    yield Finding(
        Severity.WARN if bad else Severity.NOTE,
        "missing",
        f"{share:.0%} of its cells are empty",
        "A model learns little from it: find out why" if bad else "The plan allows it",
        column.name,
        len(empty),
        first(empty),
    )


def constant(column: Column, table: Table) -> Iterator[Finding]:
    """A column that says the same of nearly every row."""
    cells = [cell for cell in table.cells(column.name) if not is_absent(cell)]
    if len(cells) < ENOUGH:
        return
    most = Counter(cells).most_common(1)[0][1] / len(cells)
    if most == 1.0:
        problem = "holds one and the same value in every row"
    elif most >= NEARLY_ALL:
        problem = f"holds one and the same value in {most:.1%} of its cells"
    else:
        return
    yield Finding(
        Severity.WARN, "constant", problem, "It tells your rows apart not at all: was it exported right?", column.name
    )


def far_off(column: Column, table: Table) -> Iterator[Finding]:
    """Numbers that lie so far off that they are another unit, a slip, or a code for "missing"."""
    if column.kind != "number":
        return
    pairs = [(line, parse_number(cell)) for line, cell in zip(table.lines, table.cells(column.name), strict=True)]
    lines = np.array([line for line, value in pairs if value is not None], dtype=np.int64)
    values = np.array([value for _, value in pairs if value is not None], dtype=np.float64)
    if column.transform == "log":
        lines, values = lines[values > 0], np.log(values[values > 0])
    if len(values) < ENOUGH:
        return
    scales = np.abs(values - column.center) / column.scale
    unit = f" ({column.unit})" if column.unit else ""
    if (far := lines[scales > FAR_FROM_PLAN].tolist()) and column.scale != 1.0:
        problem = f"{_cells(far)} more than {FAR_FROM_PLAN:g} of the plan's scales from its centre"
        yield Finding(
            Severity.WARN,
            "far_from_plan",
            problem,
            f"Check the unit{unit} against the plan",
            column.name,
            len(far),
            first(far),
        )
    low, high = np.quantile(values, (0.25, 0.75))
    beyond = np.maximum(low - values, values - high) > FAR_FROM_OWN * (high - low)
    if high > low and (off := lines[beyond].tolist()):
        same = len(off) > 1 and len(set(values[beyond].tolist())) == 1
        remedy = "All the same: a code for no value? Leave those cells empty" if same else "Check them for slips"
        problem = f"{_cells(off)} more than {FAR_FROM_OWN:g} interquartile ranges from the rest"
        yield Finding(Severity.WARN, "far_off", problem, remedy, column.name, len(off), first(off))


def row_number(column: Column, table: Table) -> Iterator[Finding]:
    """A number that grows with every row of the file, as a number of the row or a date does."""
    if column.kind != "number":
        return
    values = [parse_number(cell) for cell in table.cells(column.name)]
    known = np.array([np.nan if value is None else value for value in values])
    if len(known) >= ENOUGH and (np.diff(known) > 0).all():  # false where one is no number
        yield Finding(
            Severity.WARN,
            "row_number",
            "grows with every row, as a row number or a time does",
            "If it is one, take it out of the plan: it names the row and predicts nothing new",
            column.name,
        )


def _cells(lines: Sequence[int]) -> str:
    return "1 value lies" if len(lines) == 1 else f"{len(lines)} values lie"
