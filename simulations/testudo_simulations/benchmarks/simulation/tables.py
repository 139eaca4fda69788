"""What was measured, as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from testudo_simulations.benchmarks.simulation.children import Cost
from testudo_simulations.benchmarks.simulation.figures import MEGABYTE
from testudo_simulations.benchmarks.simulation.measured import TRAINED_CLIENTS, Cell, Measured, NotRun, growths
from testudo_simulations.benchmarks.simulation.workload import BATCH, EXAMPLES, GROUP

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_tables(found: Measured, console: Console) -> None:
    """One for each part that was measured; one thread for each peer but Ray, which takes the cores there are."""
    rounds = f"median of {found.repeats} rounds in turn, one thread"
    if found.training:
        title = f"Training alone: {TRAINED_CLIENTS} clients x {EXAMPLES} examples, batch {BATCH}, one epoch; {rounds}"
        _print_costs(title, found.training, console)
    for kind, by_size in found.rounds.items():
        _print_sizes(f"{kind[0].upper()}{kind[1:]}: MLP, every client in each; {rounds}", by_size, console)
    if found.secure:
        title = f"Secure rounds: groups of {GROUP}, 99,985 parameters; {rounds}"
        _print_sizes(title, found.secure, console)
    if found.digits:
        _print_costs("The digits scenario; the start has its first round", {"digits": found.digits}, console)


def _table(title: str, *heads: str) -> Table:
    """The first two columns are text, the others numbers."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number > 1 else "left", no_wrap=number < 2)
    return table


def _print_costs(title: str, by_name: Mapping[str, Mapping[str, Cell]], console: Console) -> None:
    table = _table(title, "", "who", "s to start", "s a round", "ours / its", "CPU s", "ours / its")
    for name, cells in by_name.items():
        ours = next(iter(cells.values()))
        assert isinstance(ours, Cost)
        for label, cell in cells.items():
            numbers: tuple[str, ...] = ()
            if isinstance(cell, Cost):
                wall, cpu = ours.seconds / cell.seconds, ours.cpu_seconds / cell.cpu_seconds
                ratios = ("", "") if cell is ours else (f"{wall:.3g}", f"{cpu:.3g}")
                start = f"{cell.start_seconds:.3g}"
                numbers = (start, f"{cell.seconds:.3g}", ratios[0], f"{cell.cpu_seconds:.3g}", ratios[1])
            table.add_row(name if cell is ours else "", label, *numbers)
        table.add_section()
    console.print(table)
    _print_not_run(by_name, console)


def _print_sizes(title: str, by_size: Mapping[int, Mapping[str, Cell]], console: Console) -> None:
    table = _table(title, "clients", "who", "s a round", "rounds /s", "CPU ms a client", "peak MB", "above idle")
    for size, cells in by_size.items():
        for number, (label, cell) in enumerate(cells.items()):
            numbers = _numbers(size, cell) if isinstance(cell, Cost) else ()
            table.add_row("" if number else f"{size:,}", label, *numbers)
        table.add_section()
    console.print(table)
    _print_not_run({f"{size:,} clients": cells for size, cells in by_size.items()}, console)
    for label, growth in growths(by_size).items():
        console.print(
            f"{label}: CPU s = {growth.fixed_seconds:.2g} + {growth.seconds_each:.2g} x clients^{growth.exponent:.2f}, "
            f"{growth.name}; no size is more than {100 * growth.largest_deviation:.0f} % off",
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


def _print_not_run(by_name: Mapping[str, Mapping[str, Cell]], console: Console) -> None:
    """A line for each reason that somebody was not run for, with where."""
    reasons: dict[str, list[str]] = {}
    for name, cells in by_name.items():
        for label, cell in cells.items():
            if isinstance(cell, NotRun):
                reasons.setdefault(f"{label}: {cell.reason}", []).append(name)
    for reason, names in reasons.items():
        console.print(f"{reason} ({', '.join(names)})", markup=False)
