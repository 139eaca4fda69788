"""What ``testudo-simulate frontier`` does: how large groups may be, against how many poisoned clients are outvoted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from testudo_common.errors import PlannerError
from testudo_common.files import write_atomically
from testudo_common.robustness import Choice, Point, Wish, choose, frontier
from testudo_common.secagg.terms import LEAST_MIN_GROUP

if TYPE_CHECKING:
    from rich.console import Console

_MOST_ROWS = 16  # of the table; the data and the drawing have all


def run_frontier(wish: Wish, out: Path | None, *, as_json: bool) -> None:
    """Print the frontier of a federation and what is to be chosen on it; draw it where a folder is named.

    Args:
        wish: What the owners accept, and what is to be withstood.
        out: Folder of ``frontier.svg`` and ``frontier.json``; None keeps nothing.
        as_json: Print JSON alone.

    Raises:
        PlannerError: No group is both large and small enough; said after the frontier, which shows why.
    """
    sizes = [size for size in range(1, wish.cohort + 1) if size == 1 or size >= LEAST_MIN_GROUP]
    points = frontier(wish.clients, wish.cohort, wish.dropout, wish.max_failure, sizes)
    choice, refused = None, None
    try:
        choice = choose(wish)
    except PlannerError as error:
        refused = error
    data = {
        "wish": asdict(wish),
        "points": [asdict(point) for point in points],
        "choice": None if choice is None else asdict(choice),
        "refused": None if refused is None else {"problem": refused.problem, "nearest": refused.nearest},
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "frontier.json", json.dumps(data, indent=2).encode(), durable=False)
        write_atomically(out / "frontier.svg", draw_frontier(wish, points, choice).encode(), durable=False)
    if as_json:
        typer.echo(json.dumps(data, indent=2))
    else:
        from rich.console import Console

        _print(wish, points, choice, Console())
        if out is not None:
            typer.echo(f"Drawing: {out / 'frontier.svg'}\nAs data: {out / 'frontier.json'}")
    if refused is not None:
        raise refused


def _print(wish: Wish, points: Sequence[Point], choice: Choice | None, console: Console) -> None:
    from rich.table import Table

    table = Table(
        title=f"{wish.clients} clients, {wish.cohort} a round; at most {100 * wish.dropout:.0f} % of a group drop out; "
        f"half of the rows bad at most once in {1 / wish.max_failure:,.0f} rounds",
        title_justify="left",
    )
    for head in ("clients a group", "groups", "fewest in a sum", "colluders withstood", "poisoned outvoted", "of all"):
        table.add_column(head, justify="right")
    table.add_column("infinitely many clients", justify="right")
    apart = list({point.groups: point for point in reversed(points)}.values())[::-1]  # the smallest of as many groups
    for point in apart if len(apart) <= _MOST_ROWS else [*apart[: _MOST_ROWS - 1], apart[-1]]:
        mine = choice is not None and point.group_size == choice.group_size
        cells = [
            "1 (plain)" if point.group_size == 1 else str(point.group_size),
            str(point.groups),
            str(point.survivors),
            "-" if point.colluders is None or point.group_size == 1 else str(point.colluders),
            str(point.poisoned),
            f"{100 * point.corruption:.1f} %",
            f"{100 * point.breakdown:.1f} %",
        ]
        table.add_row(*cells, style="bold green" if mine else "")
    console.print(table)
    if choice is not None:
        secure = f"secure_aggregation.group_size = {choice.group_size}"
        how = 'secure_aggregation.mode = "plain"' if choice.group_size == 1 else secure
        console.print(
            f"Against {choice.poisoned} poisoned clients ({100 * wish.corruption:.3g} %): {how}, that is "
            f"{choice.groups} rows a round with up to {choice.f} bad ones; rule {list(choice.rule)}; "
            f"{choice.spare_groups} of the others may be lost.",
            markup=False,
        )


def draw_frontier(wish: Wish, points: Sequence[Point], choice: Choice | None) -> str:
    """An SVG: poisoned clients that are outvoted, against the clients that a group hides a client among."""
    from matplotlib.figure import Figure

    from testudo_common.reporting.drawing import BETTER, FAINT, WORSE, render, standing_alone, style

    with style("frontier"):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axis = figure.subplots()
        sizes = [point.group_size for point in points]
        axis.plot(
            sizes,
            [100 * point.corruption for point in points],
            color=BETTER,
            drawstyle="steps-post",
            label="outvoted, exactly",
        )
        axis.plot(
            sizes,
            [100 * point.breakdown for point in points],
            color=FAINT,
            linestyle=":",
            label="with infinitely many clients",
        )
        axis.axhline(100 * wish.corruption, color=WORSE, linewidth=1, label="assumed poisoned")
        hiding = [point.group_size for point in points if point.survivors >= wish.min_group]
        if hiding:
            label = f"sums over {wish.min_group} clients or more"
            axis.axvspan(min(hiding), max(sizes), color=BETTER, alpha=0.08, linewidth=0, label=label)
        if choice is not None:
            axis.plot([choice.group_size], [100 * wish.corruption], "o", color=BETTER, markersize=8, label="chosen")
        axis.set_xscale("log")
        ticks = [size for size in (1, 3, 5, 10, 20, 50, 100, 200, 500, 1000) if size <= max(sizes)]
        axis.set_xticks(ticks, [str(size) for size in ticks])
        axis.minorticks_off()
        axis.set_xlabel("clients a group (privacy); 1 is plain aggregation")
        axis.set_ylabel("poisoned clients outvoted, % (robustness)")
        axis.set_title(f"{wish.clients} clients, {wish.cohort} a round")
        axis.legend(loc="upper right")
        words = f"Privacy against robustness for {wish.clients} clients, {wish.cohort} a round; the table says the same"
        return standing_alone(render(figure, "frontier", words))
