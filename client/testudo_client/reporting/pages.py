"""An owner's report as one offline HTML page: no script, nothing loaded. Measures nothing."""

from __future__ import annotations

from testudo_client.reporting import account_sections, figures, sections
from testudo_client.reporting.evaluation_section import evaluation
from testudo_client.reporting.values import OwnerReport
from testudo_common.markup import Markup, join, table, tag
from testudo_common.reporting.cards import NOT_STATED, Card, as_markup
from testudo_common.reporting.page import page, section
from testudo_common.reporting.rmf import rmf_section
from testudo_common.reporting.roles import roles_section
from testudo_common.reporting.shown import moment


def to_html(report: OwnerReport, *, glance_only: bool = False) -> str:
    """The page.

    Args:
        report: Of one owner.
        glance_only: Only what a small business reads.
    """
    title = f"Report of {report.owner}"
    header = tag("header", tag("h1", title), tag("p", f"Made {moment(report.created)} by Testudo {report.software}"))
    stays = "It is made from your own folder and stays with you. This page loads and runs nothing."
    footer = tag("footer", tag("p", f"The same, for programs: report.json beside it. {stays}"))
    if glance_only:
        return page(title, header, tag("main", sections.glance(report)), footer)
    main = tag(
        "main",
        sections.glance(report),
        sections.model(report, figures.reliability(report.model)),
        sections.versions(report),
        evaluation(report, figures.slices(report.evaluation)),
        account_sections.watch(report),
        account_sections.data(report),
        account_sections.left(report),
        account_sections.ledger(report),
        account_sections.refused(report),
        account_sections.audit(report),
        account_sections.cost(report),
        _cards(report),
        rmf_section(report.rmf),
        roles_section(report.roles),
        account_sections.problems(report),
    )
    return page(title, header, main, footer)


def _cards(report: OwnerReport) -> str:
    made = []
    if report.card is not None:
        made.append(section(report.card.title, as_markup(report.card), anchor="model-card"))
    if report.data_card is not None:
        made.append(_data_card(report.data_card))
    return join(*made)


def _data_card(card: Card) -> Markup:
    """Fields in a table: that one is empty is told in its own line."""
    rows = [[part.title, part.facts[0][1] if part.facts else tag("span", NOT_STATED, class_="empty")]
            for part in card.parts]  # fmt: skip
    made = table(["", "Says"], rows, caption="What you wrote in data-card.toml", numbers=range(0))
    return section(card.title, made, anchor="data-card")
