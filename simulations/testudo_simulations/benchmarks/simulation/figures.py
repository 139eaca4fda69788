"""The same as the ratios of all benchmarks: one figure of ours beside one of a peer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from testudo_simulations.benchmarks.measure import Measurement, Seconds, compared
from testudo_simulations.benchmarks.simulation.children import Cost
from testudo_simulations.benchmarks.simulation.measured import TRAINED_CLIENTS, Cell, Measured, growths

MEGABYTE = 1e6


def measurements(found: Measured) -> list[Measurement]:
    """Everything that was measured; a peer that was not run has no reference, and its name says why."""
    made: list[Measurement] = []
    for name, cells in found.training.items():
        (_, ours), *peers = cells.items()
        assert isinstance(ours, Cost)
        for label, cell in peers:
            reference = Seconds(cell.seconds, cell.cpu_seconds) if isinstance(cell, Cost) else None
            case = f"train {TRAINED_CLIENTS} clients, {name}"
            made += compared(case, Seconds(ours.seconds, ours.cpu_seconds), reference, _name(label, cell))
    for kind, by_size in [*found.rounds.items(), *([("secure rounds", found.secure)] if found.secure else [])]:
        for size, cells in by_size.items():
            made += _of_size(f"{kind}, {size} clients", size, cells)
        for label, growth in growths(by_size).items():
            case = f"{kind}, growth of CPU seconds with clients, {label}"
            made.append(Measurement(case, "exponent", "", growth.exponent, 1.0, "linear"))
            off = 100 * growth.largest_deviation
            made.append(Measurement(case, "largest_deviation_of_fit", "%", off, None, "none: of the fit"))
    made += _of_digits(found.digits)
    return made


def _of_size(case: str, size: int, cells: Mapping[str, Cell]) -> Iterator[Measurement]:
    (_, ours), *peers = cells.items()
    assert isinstance(ours, Cost)
    for label, cell in peers:
        theirs, name = cell if isinstance(cell, Cost) else None, _name(label, cell)
        values = {} if theirs is None else _values(size, theirs)
        for (metric, unit), value in _values(size, ours).items():
            yield Measurement(case, metric, unit, value, values.get((metric, unit)), name)


def _values(size: int, cost: Cost) -> dict[tuple[str, str], float]:
    """(metric, unit) -> of one size."""
    return {
        ("rounds_per_second", "/s"): 1.0 / cost.seconds,
        ("cpu_milliseconds_a_client", "ms"): 1000.0 * cost.cpu_seconds / size,
        ("peak_megabytes", "MB"): cost.peak_bytes / MEGABYTE,
        ("megabytes_above_idle", "MB"): (cost.peak_bytes - cost.idle_bytes) / MEGABYTE,
    }


def _of_digits(cells: Mapping[str, Cell]) -> list[Measurement]:
    if not cells:
        return []
    (_, ours), (label, theirs) = cells.items()
    assert isinstance(ours, Cost)
    there, name = theirs if isinstance(theirs, Cost) else None, _name(label, theirs)
    reference = None if there is None else Seconds(there.seconds, there.cpu_seconds)
    started = None if there is None else there.start_seconds
    return [
        *compared("a round of digits", Seconds(ours.seconds, ours.cpu_seconds), reference, name),
        Measurement("start of digits, with its first round", "wall_seconds", "s", ours.start_seconds, started, name),
    ]


def _name(label: str, cell: Cell) -> str:
    return label if isinstance(cell, Cost) else f"{label}, {cell.reason}"
