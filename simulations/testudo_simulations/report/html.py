"""A Report as one offline HTML page: no script, nothing loaded. The same report gives the same bytes."""

from __future__ import annotations

from pathlib import Path

from testudo_common.files import write_atomically
from testudo_common.markup import Markup, join, tag
from testudo_common.reporting.page import figure, page, section
from testudo_common.reporting.rmf import rmf_lines, rmf_section
from testudo_common.reporting.roles import roles_section
from testudo_simulations.report import audit, figures, sections
from testudo_simulations.report.accountability import ROLES_HERE, calibration, cards, evidence
from testudo_simulations.report.summaries import SettingSummary, summarise
from testudo_simulations.report.wording import facts, notes
from testudo_simulations.results import Report


def write_html(report: Report, path: Path) -> None:
    """Write the page in one step, so that no reader sees half of it.

    Args:
        report: Of one or several runs.
        path: The file; replaced if it is there.
    """
    write_atomically(path, to_html(report).encode())


def to_html(report: Report) -> str:
    """The page."""
    settings = summarise(report)
    header = tag(
        "header",
        tag("h1", report.title),
        *(tag("p", line) for line in facts(report)),
        tag("p", f"Made {report.created}"),
    )
    if not settings:
        nothing = section("What was found", tag("p", "No run was finished, so there is nothing to report."))
        return page(report.title, header, tag("main", nothing))
    by_metric: dict[str, list[SettingSummary]] = {}
    for setting in settings:
        by_metric.setdefault(setting.metric, []).append(setting)
    main = tag(
        "main",
        sections.found(settings),
        *(_results(group, f"m{number}") for number, group in enumerate(by_metric.values())),
        calibration(settings),
        sections.privacy(settings),
        sections.secure(settings),
        audit.audit(settings),
        sections.left_out(settings),
        sections.cost(settings),
        sections.small_print(report, settings),
        cards(report),
        rmf_section(rmf_lines(evidence(settings))),
        roles_section(ROLES_HERE),
    )
    footer = tag("footer", tag("p", "Made by Testudo from report.json beside it. This page loads and runs nothing."))
    return page(report.title, header, main, footer)


def _results(settings: list[SettingSummary], key: str) -> Markup:
    """Figures and tables of the settings that share a headline metric."""
    reading = tag("p", " ".join(notes(tuple(settings))) + " Bold is best.", class_="note")
    parts = [
        section(
            "All ways side by side",
            figure(figures.arms(settings, f"{key}-arms")),
            *(sections.arm_table(setting) for setting in settings),
            reading,
            anchor=f"{key}-results",
        )
    ]
    if (few_shot := figures.few_shot(settings, f"{key}-shots")) is not None:
        tables = sections.shots_tables(settings)
        parts.append(section("With few examples", figure(few_shot), tables))
    if (rounds := figures.over_rounds(settings, f"{key}-rounds")) is not None:
        parts.append(section("Over the rounds", figure(rounds)))
    if (clients := figures.client_by_client(settings, f"{key}-clients")) is not None:
        parts.append(section("Client by client", figure(clients)))
    return join(*parts)
