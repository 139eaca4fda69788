"""Seconds and memory of a round against its clients, both on logarithms, a line a peer."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from testudo_simulations.benchmarks.simulation.children import Cost
from testudo_simulations.benchmarks.simulation.figures import MEGABYTE
from testudo_simulations.benchmarks.simulation.measured import Cell, Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOKS = {
    "Testudo": ("#0072B2", "o", "-"),
    "Testudo, DP-SGD": ("#0072B2", "D", "--"),
    "PyTorch loop": ("#595959", "s", "-"),
    "Opacus loop": ("#CC79A7", "P", "--"),
    "pfl-research": ("#E69F00", "^", "-"),
    "Flower on Ray": ("#009E73", "v", "-"),
    "with masks": ("#0072B2", "o", "-"),
    "mask-free": ("#56B4E9", "D", "--"),
}
_MEMORY_TICKS = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)


def draw(found: Measured) -> str | None:
    """An SVG: a row for whole rounds, and one for secure rounds; None where neither was measured."""
    from testudo_common.reporting.drawing import panels, render, standing_alone, style

    whole: dict[int, dict[str, Cell]] = {}
    for by_size in found.rounds.values():
        for size, cells in by_size.items():
            whole.setdefault(size, {}).update(cells)
    named = {"Whole rounds, 6,010 parameters": whole, "Secure rounds, 99,985 parameters": found.secure}
    rows = {title: by_size for title, by_size in named.items() if by_size}
    if not rows:
        return None
    with style("simulation"):
        figure, axes = panels(2 * len(rows), 3.3, sharey=False)
        for number, (title, by_size) in enumerate(rows.items()):
            _draw_seconds(axes[2 * number], title, by_size)
            _draw_memory(axes[2 * number + 1], by_size)
        words = "Line charts: seconds a round, and peak memory, against clients a round; the tables say the same"
        return standing_alone(render(figure, "simulation", words))


def _draw_seconds(panel: Axes, title: str, by_size: Mapping[int, Mapping[str, Cell]]) -> None:
    _draw(panel, by_size, _seconds)
    panel.set_title(title)
    panel.set_ylabel("seconds a round")


def _draw_memory(panel: Axes, by_size: Mapping[int, Mapping[str, Cell]]) -> None:
    from testudo_common.reporting.drawing import FAINT

    costs = [cell for cells in by_size.values() for cell in cells.values() if isinstance(cell, Cost)]
    _draw(panel, by_size, _megabytes)
    idle = statistics.median(cost.idle_bytes for cost in costs) / MEGABYTE
    panel.axhline(idle, color=FAINT, linestyle=":", linewidth=1, label="imports alone")
    lowest, highest = 100.0, 5.0 * max(map(_megabytes, costs))  # room for the legend
    ticks = [tick for tick in _MEMORY_TICKS if lowest <= tick <= highest]
    panel.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    panel.set_ylim(lowest, highest)
    panel.set_title("Peak memory")
    panel.set_ylabel("MB")
    panel.legend(loc="upper left", ncols=2)


def _seconds(cost: Cost) -> float:
    return cost.seconds


def _megabytes(cost: Cost) -> float:
    return cost.peak_bytes / MEGABYTE


def _draw(panel: Axes, by_size: Mapping[int, Mapping[str, Cell]], value: Callable[[Cost], float]) -> None:
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    panel.set_xscale("log")
    panel.set_yscale("log")
    for label, (color, marker, line) in _LOOKS.items():
        points = [(size, value(cell)) for size, cells in by_size.items() if isinstance(cell := cells.get(label), Cost)]
        if points:
            sizes, values = zip(*points, strict=True)
            panel.plot(sizes, values, color=color, marker=marker, linestyle=line, markersize=5, label=label)
    panel.set_xlabel("clients a round")
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_minor_formatter(NullFormatter())
