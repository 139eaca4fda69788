"""A matrix as people read it: a table in the terminal, and a heat map. The numbers are matrix.py's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from testudo_simulations.attacks.matrix import BACKDOOR_LIMIT, Matrix, Summary, breakdown_of, summary_of
from testudo_simulations.attacks.suite import BACKDOORS, NO_ATTACK

if TYPE_CHECKING:
    from rich.console import Console

_LOST = "lost"


def in_words(matrix: Matrix, summary: Summary, *, backdoor: bool) -> str:
    """A cell: score and half of its range over seeds; for a backdoor, its success too."""
    score = _number(matrix, summary.score)
    text = f"{score} ±{_number(matrix, summary.spread)}" if len(matrix.seeds) > 1 and score != _LOST else score
    if backdoor and summary.backdoor is not None:
        text += f" / {100 * summary.backdoor:.0f}"
    return text


def _number(matrix: Matrix, value: float) -> str:
    if not np.isfinite(value):
        return _LOST
    return f"{100 * value:.1f}" if matrix.higher_is_better else f"{value:.3g}"


def print_matrix(matrix: Matrix, console: Console) -> None:
    """A table for each number of poisoned clients."""
    from rich.table import Table

    for count in matrix.poisoned:
        table = Table(
            title=f"{matrix.name}: {count} of {matrix.clients} clients poisoned; {matrix.metric} after adaptation"
            + (", %" if matrix.higher_is_better else ""),
            title_justify="left",
        )
        table.add_column("defence", no_wrap=True)
        for attack in matrix.attacks:
            table.add_column(_title(attack), justify="right")
        for defence in matrix.defences:
            row = [defence]
            for attack in matrix.attacks:
                summary = summary_of(matrix, attack, defence, count)
                if summary is None:
                    row.append("")
                    continue
                words = in_words(matrix, summary, backdoor=attack in BACKDOORS)
                row.append(f"[green]{words}[/]" if summary.holds else f"[bold red]{words} ![/]")
            table.add_row(*row)
        console.print(table)
    console.print(legend(matrix))
    for line in _naming(matrix):
        console.print(line)


def _title(attack: str) -> str:
    return "no\nattack" if attack == NO_ATTACK else attack.replace("_", "\n")


def legend(matrix: Matrix) -> str:
    """How to read the numbers, and where each defence breaks."""
    clean = summary_of(matrix, NO_ATTACK, matrix.defences[0], matrix.poisoned[0])
    stays = "at most 3 points under" if matrix.higher_is_better else "at most a tenth over"
    seeds = f"Seed {matrix.seeds[0]}"
    if len(matrix.seeds) > 1:
        seeds = f"Seeds {', '.join(map(str, matrix.seeds))}: mean, ± half of the range"
    reference = "" if clean is None else f" ({_number(matrix, clean.clean)} with the first defence's head and tasks)"
    broken = []
    for defence in matrix.defences:
        count = breakdown_of(matrix, defence)
        broken.append(f"{defence}: {'none of these' if count is None else count}")
    lines = [f"! is not {stays} the clean run: the plain mean with nobody poisoned{reference}. {seeds}."]
    if BACKDOORS.intersection(matrix.attacks):
        lines[0] += (
            " A backdoor's second number is the share of triggered examples taken for its class, in %; ! from "
            f"{100 * BACKDOOR_LIMIT:.0f}."
        )
    others = "an attack other than a backdoor" if BACKDOORS.intersection(matrix.attacks) else "an attack"
    lines.append(f"Poisoned clients at which {others} breaks a defence: {'; '.join(broken)}.")
    return "\n".join(lines)


def _naming(matrix: Matrix) -> list[str]:
    """Where strikes named poisoned clients and after how many rounds, and who was listed as outvoted."""
    lines = []
    for count in matrix.poisoned:
        for defence in matrix.defences:
            for attack in matrix.attacks:
                summary = summary_of(matrix, attack, defence, count)
                if summary is None or not (summary.named or summary.outvoted or summary.unlike):
                    continue
                said = []
                if summary.rounds_to_name is not None:
                    named = f"strikes named {100 * summary.named:.0f} % of the poisoned"
                    said.append(f"{named}, in the median before round {summary.rounds_to_name:.0f}")
                if summary.outvoted or summary.unlike:
                    shares = (
                        f"{100 * summary.outvoted:.0f} % of the poisoned, {100 * summary.unlike:.0f} % of the honest"
                    )
                    said.append(f"listed as outvoted: {shares}")
                what = "nobody poisoned" if attack == NO_ATTACK else f"{count} x {attack}"
                lines.append(f"{what} against {defence}: {'; '.join(said)}.")
    framed = sum(len(cell.framed) for cell in matrix.cells)
    return [*lines, f"Honest clients named by strikes: {framed}."] if lines or framed else []


def heat_map(matrix: Matrix) -> str:
    """An SVG: a panel for each number of poisoned clients, defences by attacks, coloured by what was lost.

    Blue stays with the clean run; white is 3 points under it, and the redder the worse. For a backdoor the colour is
    of its success.
    """
    from matplotlib.figure import Figure

    from testudo_common.reporting.drawing import INK, render, standing_alone, style

    rows, columns = len(matrix.defences), len(matrix.attacks)
    with style("attacks"):
        figure = Figure(
            figsize=(2.6 + 0.92 * columns, (1.5 + 0.36 * rows) * len(matrix.poisoned)), layout="constrained"
        )
        axes = figure.subplots(len(matrix.poisoned), 1, squeeze=False)[:, 0]
        for axis, count in zip(axes, matrix.poisoned, strict=True):
            losses = np.full((rows, columns), np.nan)
            for row, defence in enumerate(matrix.defences):
                for column, attack in enumerate(matrix.attacks):
                    summary = summary_of(matrix, attack, defence, count)
                    if summary is None:
                        continue
                    losses[row, column] = loss = _loss(matrix, summary, backdoor=attack in BACKDOORS)
                    words = in_words(matrix, summary, backdoor=attack in BACKDOORS)
                    color = "white" if loss > 0.55 else INK
                    axis.text(column, row, words, ha="center", va="center", fontsize=7, color=color)
            axis.imshow(losses, cmap="RdBu_r", vmin=-1.0, vmax=1.0, aspect="auto")
            axis.set_xticks(range(columns), [_title(name) for name in matrix.attacks], fontsize=8)
            axis.set_yticks(range(rows), matrix.defences, fontsize=8)
            axis.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
            axis.grid(visible=False)
            axis.set_title(f"{matrix.name}, {count} of {matrix.clients} clients poisoned", pad=8)
        words = f"Attacks and defences on {matrix.name}; the same numbers are in the table"
        return standing_alone(render(figure, "attacks", words))


def _loss(matrix: Matrix, summary: Summary, *, backdoor: bool) -> float:
    """-1 to 1: under 0 the defence holds, 1 is everything lost."""
    if not np.isfinite(summary.score):
        return 1.0
    if backdoor and summary.backdoor is not None and summary.backdoor >= BACKDOOR_LIMIT:
        return summary.backdoor
    lost = summary.clean - summary.score if matrix.higher_is_better else summary.score / summary.clean - 1.0
    limit = 0.03 if matrix.higher_is_better else 0.1
    if lost <= limit:
        return -0.25 - 0.1 * min(1.0, max(0.0, (limit - lost) / limit))
    return float(min(1.0, 0.15 + (lost - limit) / 0.4))
