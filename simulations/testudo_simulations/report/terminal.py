"""A Report in the terminal: what was found first, then the numbers. Meant for 80 columns; computes nothing.

Names come from plans and clients, so that every text is stripped of control characters and none is read
as markup; where the terminal cannot show a character, it gets the nearest ASCII.
"""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from testudo_common.reporting import shown
from testudo_common.reporting.screen import Screen
from testudo_simulations.report import wording
from testudo_simulations.report.comparisons import best
from testudo_simulations.report.headlines import headline
from testudo_simulations.report.summaries import ArmSummary, SettingSummary, rows_by_shots, summarise
from testudo_simulations.results import Report

MARKS = {"better": "+", "worse": "-", "tie": "=", None: " "}
STYLES = {"better": "green", "worse": "red", "tie": "yellow", None: ""}
MOST_NAMES = 6
WIDE_CELLS = 5


def print_summary(report: Report, console: Console) -> None:
    """Print the report.

    Args:
        report: Of one or several runs.
        console: Where to; its width and encoding are kept to.
    """
    screen = Screen(console)
    settings = summarise(report)
    console.print()
    console.print(screen.rule(report.title, heavy=True))
    if not settings:
        console.print(screen.text("No run was finished, so there is nothing to report."))
        return
    for fact in wording.facts(report):
        console.print(screen.text(fact, "dim"))
    console.print()
    _print_headlines(settings, screen)
    for setting in settings:
        _print_setting(setting, screen)
    notes = " ".join(["Bold is best.", *wording.notes(settings)])
    console.print(Padding(screen.text(notes, "dim"), (1, 0, 0, 0)))


def _print_headlines(settings: tuple[SettingSummary, ...], screen: Screen) -> None:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for setting in settings:
        for position, found in enumerate(headline(setting).findings):
            mark = screen.text(MARKS[found.verdict], f"bold {STYLES[found.verdict]}")
            grid.add_row(mark, screen.text(found.text, "bold" if position == 0 else ""))
    screen.console.print(grid)


def _print_setting(setting: SettingSummary, screen: Screen) -> None:
    screen.console.print()
    screen.console.print(screen.rule(wording.place(setting)))
    screen.console.print(Padding(_arm_table(setting, screen), (1, 0)))
    if len(setting.shot_sizes) > 1:
        screen.console.print(_shots_table(setting, screen))
        if said := wording.open_adaptation([setting]):
            screen.console.print(screen.text(said, "dim"))
        screen.console.print()
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    grid.add_row("Privacy", screen.text(wording.privacy_line(setting.privacy)))
    grid.add_row("Secure sums", screen.text(wording.secure_line(setting.secure, setting.cost)))
    grid.add_row("Poisoning", screen.text(wording.robust_line(setting.robust, setting.secure)))
    grid.add_row("Audit log", screen.text(wording.audit_line(setting.audit)))
    runs = len(setting.runs)
    left_out = wording.exclusions(setting.left_out, "runs", usual=runs, most=MOST_NAMES)
    grid.add_row("Left out", screen.text(left_out or "no client"))
    if setting.refused:
        grid.add_row("Refused", screen.text(wording.exclusions(setting.refused, "rounds", usual=0, most=MOST_NAMES)))
    total = f" ({runs} runs)" if runs > 1 else ""
    grid.add_row("Cost", screen.text(f"{wording.cost_line(setting.cost)}{total}"))
    screen.console.print(grid)


def _arm_table(setting: SettingSummary, screen: Screen) -> Table:
    """Every arm at the headline support size."""
    shots = setting.headline_shots
    table = _table(screen.text(wording.support_title(shots), "bold"), screen.shape)
    private = setting.privacy.unit != "none"
    if private:
        table.add_column("adapted")
    table.add_column(screen.text(shown.metric_title(setting.metric)), justify="right", no_wrap=True, min_width=12)
    for column in ("p10", "p50", "p90", "hurt"):
        table.add_column(column, justify="right", no_wrap=True, min_width=6)
    arms = setting.at(shots)
    winner = best(arms, higher_is_better=setting.higher_is_better)
    for arm in arms:
        cells = [
            arm.label,
            *([wording.adaptation(arm)] if private else []),
            wording.with_spread(setting.metric, arm.score),
            *(shown.number(setting.metric, value) for value in arm.percentiles),
            shown.MISSING if arm.share_hurt is None else f"{100 * arm.share_hurt:.0f} %",
        ]
        table.add_row(*(screen.text(cell, "bold" if arm is winner else "") for cell in cells))
    return table


def _shots_table(setting: SettingSummary, screen: Screen) -> Table:
    """Arms by support size; the spread is left out where the columns would not fit."""
    sizes = setting.shot_sizes
    name = shown.metric_title(setting.metric)
    table = _table(screen.text(f"By number of support examples: {name}", "bold"), screen.shape)
    for shots in sizes:
        table.add_column(wording.support(shots), justify="right", no_wrap=True)
    winners = [best(setting.at(shots), higher_is_better=setting.higher_is_better) for shots in sizes]
    for row in rows_by_shots(setting):
        label = next(arm.label for arm in row if arm is not None)
        cells = [
            screen.text(_cell(setting, arm, wide=len(sizes) <= WIDE_CELLS), "bold" if arm and arm is won else "")
            for arm, won in zip(row, winners, strict=True)
        ]
        table.add_row(screen.text(label), *cells)
    return table


def _table(title: Text, shape: box.Box) -> Table:
    """A table with one column yet, for the arms' labels; one blank between columns, to fit 80."""
    table = Table(box=shape, title=title, title_justify="left", padding=0, pad_edge=False, show_edge=False)
    table.add_column("", min_width=16, overflow="fold")
    return table


def _cell(setting: SettingSummary, arm: ArmSummary | None, *, wide: bool) -> str:
    if arm is None:
        return shown.MISSING
    if wide:
        return wording.with_spread(setting.metric, arm.score).replace(" ± ", "±")
    return shown.number(setting.metric, arm.score.mean)
