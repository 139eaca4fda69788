"""Seconds and memory of a round against its clients, both on logarithms, a line a peer."""

from __future__ import annotations

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


def draw(found: Measured) -> str | None:
    """An SVG: a row for whole rounds, and one for secure rounds; None where neither was measured."""
    from testudo_simulations.report.drawing import panels, render, standing_alone, style

    whole: dict[int, dict[str, Cell]] = {}
    for by_size in found.rounds.values():
        for size, cells in by_size.items():
            whole.setdefault(size, {}).update(cells)
    rows = [
        (title, by_size)
        for title, by_size in (
            ("Whole rounds: MLP of 6,010 parameters", whole),
            ("Secure rounds: groups of 16, 99,985 parameters", found.secure),
        )
        if by_size
    ]
    if not rows:
        return None
    with style("simulation"):
        figure, axes = panels(2 * len(rows), 3.3, sharey=False)
        for number, (title, by_size) in enumerate(rows):
            seconds, memory = axes[2 * number : 2 * number + 2]
            _draw(seconds, by_size, _seconds)
            _draw(memory, by_size, _megabytes)
            seconds.set_title(title)
            seconds.set_ylabel("seconds a round")
            memory.set_ylabel("peak memory, MB")
            seconds.legend(loc="upper left")
        words = "Line charts: seconds a round, and peak memory, against clients a round; the tables say the same"
        return standing_alone(render(figure, "simulation", words))


def _seconds(cost: Cost) -> float:
    return cost.seconds


def _megabytes(cost: Cost) -> float:
    return cost.peak_bytes / MEGABYTE


def _draw(panel: Axes, by_size: Mapping[int, Mapping[str, Cell]], value: Callable[[Cost], float]) -> None:
    from matplotlib.ticker import StrMethodFormatter

    labels = [label for label in _LOOKS if any(label in cells for cells in by_size.values())]
    for label in labels:
        points = [(size, value(cell)) for size, cells in by_size.items() if isinstance(cell := cells.get(label), Cost)]
        color, marker, line = _LOOKS[label]
        if points:
            panel.plot(
                *zip(*points, strict=True), color=color, marker=marker, linestyle=line, markersize=5, label=label
            )
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("clients a round")
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
