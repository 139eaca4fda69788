"""What a simulation's report answers for: model cards, calibration, and evidence that goes when it is taken away."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from report_factory import arm, report, run

from helpers import make_plan
from page_outline import check_page
from testudo_common.reporting.cards import Part
from testudo_common.reporting.rmf import rmf_lines
from testudo_simulations.report import write_report
from testudo_simulations.report.accountability import calibration, card_of, evidence
from testudo_simulations.report.html import to_html
from testudo_simulations.report.summaries import summarise
from testudo_simulations.results import ClientScore, RunResult

PLAN = make_plan('privacy.unit="example"', "privacy.noise_multiplier=1.25", "rounds.max_participations=4")


def measured(**changes: Any) -> RunResult:
    """A run of a plan that can be read, with calibration errors."""
    scores = [ClientScore(client=f"u{i}", metrics={"accuracy": 0.8, "ece": 0.1 + 0.02 * i}) for i in range(2)]
    adapted = arm("adapted", (0.8, 0.8), shots=5).model_copy(update={"scores": scores})
    found = run([adapted, arm("meta", (0.6, 0.7), shots=0)], spent=7.0)
    return found.model_copy(update={"plan": PLAN.model_dump(mode="json"), **changes})


def lines_of(found: RunResult) -> dict[str, list[str]]:
    lines = rmf_lines(evidence(summarise(report(found))))
    return {line.id: [piece.kind.value for piece in line.evidence] for line in lines}


def test_the_card_of_a_run_says_what_was_measured_and_spent(tmp_path: Path) -> None:
    found = measured()
    card = card_of(found)
    assert card is not None
    parts = {part.title: str(part.facts) for part in card.parts}
    assert "accuracy 80.0 %, mean of 2 clients" in parts[Part.ANALYSES]
    assert "epsilon 7.00 of 8 spent" in parts[Part.ETHICS]
    assert "trained in a simulation" in parts[Part.CAVEATS]
    assert parts[Part.FACTORS] == "()"
    write_report(report(found), tmp_path)
    assert (tmp_path / "model-card.md").read_text().startswith("# Model card: ")


def test_a_plan_of_another_version_gets_no_card_and_no_evidence_of_one() -> None:
    found = run([arm("adapted", (0.5,))])
    assert card_of(found) is None
    assert "This version cannot read the plan: there is no card." in to_html(report(found))
    assert not lines_of(found)["MEASURE 2.9"]


def test_a_run_that_diverged_is_said_to_have() -> None:
    card = card_of(measured(arms=[arm("adapted", (math.nan,))]))
    assert card is not None
    assert "accuracy diverged, mean of 1 client" in str(card.parts)


@pytest.mark.parametrize(
    ("changes", "emptied"),
    [
        ({"audit": None}, {"MEASURE 2.8"}),
        ({"arms": [arm("adapted", (0.5,))]}, {"MEASURE 2.5"}),
        ({"statement": {}}, {"MEASURE 2.10", "MANAGE 1.4"}),
        ({"plan": {"name": "of another version"}}, {"MAP 1.1", "MEASURE 2.9"}),
    ],
)
def test_taking_the_evidence_away_empties_the_line(changes: dict[str, Any], emptied: set[str]) -> None:
    before, after = lines_of(measured()), lines_of(measured(**changes))
    assert {line for line in before if before[line] and not after[line]} == emptied


def test_what_a_simulation_cannot_show_is_empty() -> None:
    lines = lines_of(measured())
    for line in ("GOVERN 1.2", "MAP 3.5", "MAP 4.1", "MEASURE 2.4", "MEASURE 2.11", "MANAGE 2.4", "MANAGE 4.1"):
        assert not lines[line], line


def test_calibration_is_shown_only_where_it_was_measured() -> None:
    page = to_html(report(measured()))
    check_page(page)
    assert "ECE, by number of support examples" in page
    assert "0.110" in page, "the mean of 0.10 and 0.12"
    assert "coverage, by number" not in page
    assert calibration(summarise(report(run([arm("adapted", (0.5,))])))) == ""
