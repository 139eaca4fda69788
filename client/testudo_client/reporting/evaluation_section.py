"""What the evaluation harness found, as a section of an owner's page: scores, slices, shifts, and a comparison."""

from __future__ import annotations

from testudo_client.judging.results import Evaluation, Score, ScoreTable
from testudo_client.reporting.card import ARMS, scores_line
from testudo_client.reporting.values import OwnerReport
from testudo_common.markup import Markup, table, tag
from testudo_common.reporting import shown
from testudo_common.reporting.drawing import Drawing
from testudo_common.reporting.page import details, figure, section, unbroken

NONE_MADE = "No evaluation was made. testudo-client evaluate makes one, on rows that the model has not seen."
OF_ANOTHER = "It is of another model than the one in use, so that nothing else here rests on it."


def evaluation(report: OwnerReport, slices: Drawing | None) -> Markup:
    """The section."""
    found = report.evaluation
    if found is None:
        return section("Evaluation", tag("p", NONE_MADE), anchor="evaluation")
    version = "" if found.model.version is None else f", own version {found.model.version}"
    judged = f"{found.plan}, after round {found.model.round}{version}, on {found.source}"
    parts = [tag("p", f"{judged}; {shown.moment(found.created)}.")]
    if report.evaluation_of_other:
        parts.append(tag("p", OF_ANOTHER, class_="warning"))
    parts += [tag("p", warning, class_="warning") for warning in found.warnings]
    if found.tables:
        parts.append(_scores(found))
    parts.append(figure(slices))
    if found.slices:
        parts.append(details("Slices in numbers", _slices(found)) if slices is not None else _slices(found))
    if found.shifts:
        parts.append(_shifts(found))
    if found.comparisons:
        parts.append(_comparisons(found))
    return section("Evaluation", *parts, anchor="evaluation")


def _scores(found: Evaluation) -> Markup:
    """Metrics down, ways to answer across."""
    names = list(dict.fromkeys(name for one in found.tables for name in one.metrics))
    rows = [
        [shown.metric_title(name), *(_score(name, one.metrics[name]) if name in one.metrics else shown.MISSING
                                     for one in found.tables)]
        for name in names
    ]  # fmt: skip
    caption = "Scores, with 95 % intervals"
    return table(["", *map(_title, found.tables)], rows, caption=caption)


def _title(one: ScoreTable) -> str:
    few = "" if one.shots is None else f", {one.shots} examples"
    return f"{shown.sentence_case(ARMS[one.arm])}{few} ({one.rows} rows)"


def _score(name: str, score: Score) -> str:
    if score.value is None:
        return "not known"
    if score.low is None or score.high is None:
        return shown.number(name, score.value)
    ends = f"{shown.number(name, score.low)} to {shown.number(name, score.high)}"
    return f"{shown.number(name, score.value)} ({ends})"


def _slices(found: Evaluation) -> Markup:
    name = found.loss_metric
    rows = [
        [f"{one.column}: {one.value}", str(one.rows), _score(name, one.score),
         shown.MISSING if one.rest is None else shown.number(name, one.rest), one.verdict]
        for one in found.slices
    ]  # fmt: skip
    head = ["Slice", "Rows", shown.sentence_case(shown.metric_title(name)), "All others", ""]
    return table(head, rows, caption="By parts of the rows", numbers=range(1, 4))


def _shifts(found: Evaluation) -> Markup:
    name = found.loss_metric
    rows = [[one.shift.replace("_", " "), one.about, _score(name, one.change)] for one in found.shifts]
    head = ["Shift", "What it does", f"Change of {shown.metric_title(name)}"]
    return table(head, rows, caption="Under named shifts", numbers=range(2, 3))


def _comparisons(found: Evaluation) -> Markup:
    rows = [
        [shown.MISSING if one.shots is None else str(one.shots), unbroken(scores_line({one.metric: one.gain})),
         str(one.rows), one.verdict]
        for one in found.comparisons
    ]  # fmt: skip
    head = ["Examples", "Gain", "Rows", "Verdict"]
    return table(head, rows, caption="Against the model before", numbers=range(2, 3))
