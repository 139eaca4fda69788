"""What was measured, as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from testudo_simulations.benchmarks.simulation.children import Cost
from testudo_simulations.benchmarks.simulation.figures import MEGABYTE
from testudo_simulations.benchmarks.simulation.measured import TRAINED_CLIENTS, Cell, Measured, growths
from testudo_simulations.benchmarks.simulation.workload import BATCH, EXAMPLES, GROUP

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_tables(found: Measured, console: Console) -> None:
    """One for each part that was measured; one thread for each peer but Ray, which takes the cores there are."""
    rounds = f"median of {found.repeats} rounds in turn, one thread"
    if found.training:
        title = f"Training alone: {TRAINED_CLIENTS} clients x {EXAMPLES} examples, batch {BATCH}, one epoch; {rounds}"
        table = _table(title, "", "seconds", "CPU seconds", "ours / its")
        for name, cells in found.training.items():
            _add_costs(table, name, cells)
        console.print(table)
    for kind, by_size in found.rounds.items():
        _print_sizes(f"{kind.capitalize()}, MLP: every client in each; {rounds}", by_size, console)
    if found.secure:
        title = f"Secure rounds: groups of {GROUP}, 99,985 parameters; {rounds}"
        _print_sizes(title, found.secure, console)
    if found.digits:
        table = _table(
            "The digits scenario, its own rounds", "seconds to start", "seconds", "CPU seconds", "ours / its"
        )
        _add_costs(table, "a round", found.digits, started=True)
        console.print(table)


def _table(title: str, *numbers: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column("who")
    for head in filter(None, numbers):
        table.add_column(head, justify="right")
    return table


def _add_costs(table: Table, name: str, cells: Mapping[str, Cell], *, started: bool = False) -> None:
    ours = next(iter(cells.values()))
    assert isinstance(ours, Cost)
    for label, cell in cells.items():
        if not isinstance(cell, Cost):
            table.add_row(name, label, cell.reason)
        else:
            ratio = "" if cell is ours else f"{ours.cpu_seconds / cell.cpu_seconds:.3f}"
            start = [f"{cell.start_seconds:.1f}"] if started else []
            table.add_row(name, label, *start, f"{cell.seconds:.3f}", f"{cell.cpu_seconds:.3f}", ratio)
        name = ""
    table.add_section()


def _print_sizes(title: str, by_size: Mapping[int, Mapping[str, Cell]], console: Console) -> None:
    heads = ("seconds a round", "rounds a second", "CPU ms a client", "peak MB", "above idle")
    table = _table(title, *heads)
    for size, cells in by_size.items():
        name = f"{size:,} clients"
        for label, cell in cells.items():
            if isinstance(cell, Cost):
                table.add_row(name, label, *_numbers(size, cell))
            else:
                table.add_row(name, label, cell.reason)
            name = ""
        table.add_section()
    console.print(table)
    for label, growth in growths(by_size).items():
        console.print(
            f"{label}: CPU seconds = {growth.fixed_seconds:.2g} + {growth.seconds_each:.2g} x clients^"
            f"{growth.exponent:.2f}, {growth.name}; no size is more than {100 * growth.largest_deviation:.0f} % off",
            markup=False,
        )


def _numbers(size: int, cost: Cost) -> tuple[str, ...]:
    return (
        f"{cost.seconds:.3g}",
        f"{1.0 / cost.seconds:.3g}",
        f"{1000.0 * cost.cpu_seconds / size:.3g}",
        f"{cost.peak_bytes / MEGABYTE:,.0f}",
        f"{(cost.peak_bytes - cost.idle_bytes) / MEGABYTE:,.0f}",
    )
