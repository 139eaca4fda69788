"""An owner's report as a page, in the terminal and as Markdown: nothing loaded, hostile names, both readers."""

from __future__ import annotations

import html
import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from own_models import CLINIC, NOON, SHOP, plan_of
from owner_folders import shop, whole_clinic
from page_outline import check_page, outline
from testudo_client.judging.results import Evaluation
from testudo_client.reporting.gather import gather
from testudo_client.reporting.pages import to_html
from testudo_client.reporting.terminal import print_report
from testudo_client.reporting.values import OwnerReport
from testudo_common.reporting.cards import NOT_STATED, Card, CardPart, Part, as_markdown, as_markup, model_card
from testudo_common.reporting.plan_card import facts_of_plan

HOSTILE = '$_{$</svg><script>alert("1")</script>\x1b[2J\u202e$x_{[bold]https://elsewhere'


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> OwnerReport:
    folder = tmp_path_factory.mktemp("clinic")
    whole_clinic(folder)
    return gather(folder, NOON, software="0")


def terminal(report: OwnerReport, **options: Any) -> str:
    buffer = io.TextIOWrapper(io.BytesIO(), encoding=options.pop("encoding", "utf-8"))
    print_report(report, Console(file=buffer, width=80, force_terminal=False), **options)
    buffer.seek(0)
    return buffer.read()


def read(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def hostile(report: OwnerReport) -> OwnerReport:
    """Every text that a table, a plan or another party could have chosen."""

    def poisoned(value: Any) -> Any:
        match value:
            case str():
                return HOSTILE
            case list() | tuple():
                return [poisoned(one) for one in value]
            case _:
                return value

    made = report.model_dump()
    for name in ("owner", "roles"):
        made[name] = HOSTILE if isinstance(made[name], str) else dict.fromkeys(made[name], HOSTILE)
    made["glance"].update(headline=HOSTILE, left=HOSTILE, advice=[HOSTILE])
    made["model"].update(plan=HOSTILE, target=HOSTILE, unit=HOSTILE, columns=[HOSTILE])
    for version in made["versions"]:
        version.update(reason=HOSTILE, kind=HOSTILE)
    for one in made["refused"]:
        one.update(reason=HOSTILE, sentence=HOSTILE)
    for one in made["left"]:
        one.update(plan=HOSTILE, seen=HOSTILE)
    made["evaluation"].update(plan=HOSTILE, source=HOSTILE, warnings=[HOSTILE])
    for one in made["evaluation"]["slices"]:
        one.update(column=HOSTILE, value=HOSTILE)
    made["problems"] = [{"part": HOSTILE, "sentence": HOSTILE}]
    card = {"title": HOSTILE, "parts": [{"title": HOSTILE, "facts": [[HOSTILE, HOSTILE], ["", HOSTILE]]}]}
    made["card"] = made["data_card"] = card
    made["data"] = {"rows": 1, "plan_digest": HOSTILE, "columns": [
        {"name": HOSTILE, "role": HOSTILE, "kind": HOSTILE, "unit": HOSTILE, "usable": 1, "missing": 0, "unusable": 0}
    ]}  # fmt: skip
    made["logs"] = [{"origin": HOSTILE, "plan": HOSTILE, "entries": 1, "rounds": 1, "holds": False,
                     "checks": poisoned([["a", "b", "c"]]), "receipts": 1, "root": "00", "file": HOSTILE}]  # fmt: skip
    made["rmf"] = [{"id": "GOVERN 1.2", "says": HOSTILE, "evidence": [
        {"kind": "policy", "says": HOSTILE, "file": HOSTILE, "digest": HOSTILE, "anchor": "ledger"}
    ]}]  # fmt: skip
    return OwnerReport.model_validate(made)


def test_the_page_loads_nothing_runs_nothing_and_can_be_read_without_eyes(found: OwnerReport) -> None:
    page = to_html(found)
    check_page(page)
    assert page.count("<svg ") == 2
    assert to_html(found) == page


def test_hostile_names_are_shown_escaped_and_without_control_characters(found: OwnerReport) -> None:
    bad = hostile(found)
    page = to_html(bad)
    check_page(page.replace("https://elsewhere", "elsewhere"))
    assert "&lt;script&gt;alert(" in page
    for text in (page, terminal(bad), as_markdown(bad.card)):  # type: ignore[arg-type]
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "[bold]" in terminal(bad)


def test_markdown_shows_hostile_names_as_they_are() -> None:
    card = Card(title="# <b>x</b>", parts=(CardPart(title="a", facts=(("[x](y)", "`z`\n# top\n<script>"),)),))
    assert as_markdown(card) == "# # \\<b\\>x\\</b\\>\n\n## a\n\n- **\\[x\\](y)**: \\`z\\` # top \\<script\\>\n"


def test_a_business_sees_the_first_section_only(found: OwnerReport, tmp_path: Path) -> None:
    page = to_html(found, glance_only=True)
    assert re.findall(r"<h2>([^<]*)</h2>", page) == ["In short"]
    assert outline(page).headings[0] == 1
    assert "How sure it was, over 400 answers" in read(page)
    assert "Audit log" not in terminal(found, glance_only=True)
    shop(tmp_path)
    forecast = read(to_html(gather(tmp_path, NOON, software="0"), glance_only=True))
    assert "with an interval at 90 %" in forecast
    assert "sure: " not in forecast.replace("not sure: ", "")


def test_both_views_say_the_same_numbers(found: OwnerReport) -> None:
    page, said = read(to_html(found)), " ".join(terminal(found).split())
    for one in found.glance.numbers:
        assert one.shown in page.replace("\xa0", " ")
        assert one.shown in said
    assert found.glance.headline in said
    assert "epsilon 1.35 of 10" in page


def test_every_link_leads_to_its_section(found: OwnerReport) -> None:
    page = to_html(found)
    links = set(re.findall(r'<a href="#([^"]+)"', page))
    assert links >= {"ledger", "versions", "model-card", "evaluation", "left", "model", "cost", "refused"}
    assert all(f'id="{link}"' in page for link in links)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_terminal_keeps_to_80_columns_and_to_the_encoding(found: OwnerReport, encoding: str) -> None:
    assert max(map(len, terminal(hostile(found), encoding=encoding).splitlines())) <= 80


def test_an_evaluation_that_computed_nothing(found: OwnerReport) -> None:
    bare = found.evaluation
    assert bare is not None
    none = {"value": None, "low": None, "high": None}
    changed = bare.model_dump()
    changed["slices"][0]["score"] = changed["shifts"][0]["change"] = none
    changed["tables"][0]["metrics"]["accuracy"] = none
    page = read(to_html(found.model_copy(update={"evaluation": Evaluation.model_validate(changed)})))
    assert "accuracy, % not known" in page


# Cards.


def test_a_model_card_has_all_nine_parts_in_order_and_says_what_is_not_stated() -> None:
    card = model_card("of nothing")
    assert [part.title for part in card.parts] == [part.value for part in Part]
    assert len(card.parts) == 9
    assert as_markdown(card).count(NOT_STATED) == str(as_markup(card)).count(NOT_STATED) == 9


@pytest.mark.parametrize("tables", [CLINIC, SHOP])
def test_a_plan_says_what_it_holds_and_no_more(tables: dict[str, Any]) -> None:
    plan = plan_of(tables)
    facts = facts_of_plan(plan)
    assert Part.ANALYSES not in facts
    assert Part.EVALUATION not in facts
    said = str(facts)
    assert plan.digest in said
    assert ("Privacy", "none by noise: the model may give away what it was trained on") in facts[Part.ETHICS]


def test_a_private_plan_says_its_ceiling() -> None:
    plan = plan_of(CLINIC, 'privacy.unit="example"', "privacy.epsilon=3", "rounds.max_participations=2")
    assert "epsilon at most 3 for one client" in str(facts_of_plan(plan)[Part.ETHICS])
