"""The sections of an owner's page, from values to Markup: what a business reads first, then everything else."""

from __future__ import annotations

from testudo_client.judging.results import Score
from testudo_client.reporting.card import ARMS, CONTENDERS, metric_said, metrics_line, scores_line
from testudo_client.reporting.model_values import OwnModel, Sureness
from testudo_client.reporting.values import OwnerReport
from testudo_common.markup import Markup, join, table, tag
from testudo_common.reporting import shown
from testudo_common.reporting.drawing import Drawing
from testudo_common.reporting.page import details, figure, section, unbroken

NONE_IN_USE = "No model of your own is in use."


def glance(report: OwnerReport) -> Markup:
    """What comes first."""
    told = report.glance
    tiles = [tag("div", tag("dt", one.name), tag("dd", unbroken(one.shown)), class_="tile") for one in told.numbers]
    parts = [tag("p", unbroken(told.headline), class_="headline"), tag("dl", *tiles, class_="tiles")]
    if told.sure is not None:
        parts.append(sureness(told.sure, report.model))
    parts += [tag("h3", "What left this computer"), tag("p", unbroken(told.left))]
    if told.advice:
        parts += [tag("h3", "What to do"), tag("ul", *(tag("li", line) for line in told.advice))]
    return section("In short", *parts, anchor="glance")


def sureness(sure: Sureness, model: OwnModel | None) -> Markup:
    """How sure it was, in words and as a bar whose parts are named beside it, not by colour alone."""
    regression = model is not None and model.task == "regression"
    level = f"{100 * sure.level:.0f} %"
    meaning = {} if regression else {"sure": (sure.sure, f"one answer is left at {level}")}
    meaning |= {
        "likely": (sure.likely, f"with an interval at {level}" if regression
                   else "several are possible, one has more than half of the probability"),
        "not sure": (sure.not_sure, "too little is known for an interval" if regression
                     else "several are possible: a person should decide"),
    }  # fmt: skip
    bar = [
        tag("span", class_=f"part {name.replace(' ', '-')}", style=f"width:{100 * share:.1f}%")
        for name, (share, _) in meaning.items()
        if share > 0
    ]
    keys = [
        tag("li", tag("span", class_=f"key {name.replace(' ', '-')}", aria_hidden="true"),
            tag("b", unbroken(f"{name}: {100 * share:.0f} %")), f" {said}")
        for name, (share, said) in meaning.items()
    ]  # fmt: skip
    heading = tag("h3", f"How sure it was, over {sure.answers:,} answers")
    return join(heading, tag("div", *bar, class_="bar", aria_hidden="true"), tag("ul", *keys, class_="keys"))


def model(report: OwnerReport, reliability: Drawing | None) -> Markup:
    """The model in use: what it answers, from what, and what turned out."""
    found = report.model
    if found is None:
        return section("Your model", tag("p", NONE_IN_USE), anchor="model")
    half = "too few rows for an interval" if found.half_width is None else "with intervals"
    facts = [
        ["Version", str(found.version)],
        ["Of the plan", found.plan],
        ["Answers", f"{found.target}{f', in {found.unit}' if found.unit else ''}"],
        ["From", ", ".join(found.columns)],
        ["Sets and intervals", f"at {100 * found.level:g} %, from {found.scores} rows it was not trained on"],
    ]
    if found.task == "regression":
        facts.append(["Numbers", half])
    else:
        warmer = (
            "left as they are"
            if found.temperature == 1
            else "made less sure"
            if found.temperature > 1
            else "made more sure"
        )
        facts.append(["Temperature", f"{found.temperature:.3g}: its probabilities are {warmer}"])
    parts = [table(["", "Says"], facts, caption="The model in use", numbers=range(0))]
    if found.outcomes is None:
        parts.append(tag("p", "Too few outcomes were told to say how often it is right in use."))
    else:
        parts += _outcomes(found)
    return section("Your model", *parts, figure(reliability), anchor="model")


def _outcomes(found: OwnModel) -> list[Markup]:
    outcomes = found.outcomes
    assert outcomes is not None
    rows = [
        [shown.metric_name(name), metric_said(name, value).removeprefix(f"{shown.metric_name(name)} ")]
        for name, value in outcomes.metrics.items()
        if name != "coverage"
    ]
    covered = f"{100 * outcomes.metrics['coverage']:.1f} % (nominal {100 * found.level:g} %)"
    rows.append(["truth was not excluded", covered])
    if outcomes.raw_ece is not None:
        rows.append(["ECE before calibration", shown.number("ece", outcomes.raw_ece)])
    caption = f"What turned out, of {outcomes.answers:,} answers whose outcome you told"
    return [table(["", "Value"], rows, caption=caption)]


def versions(report: OwnerReport) -> Markup:
    """All versions, why each was promoted or not, and what was compared."""
    if not report.versions:
        return section("Versions", tag("p", "There are none yet."), anchor="versions")
    rows = [
        [
            tag("strong", f"{one.id} (in use)") if one.in_use else str(one.id),
            shown.moment(one.created),
            "promoted" if one.promoted else "not promoted",
            one.reason,
            str(one.rows),
            f"epsilon {shown.epsilon(one.epsilon)}" if one.private else "none: it stays with you",
        ]
        for one in report.versions
    ]
    head = ["Version", "Made", "", "Why", "Rows", "Privacy of those rows"]
    parts = [table(head, rows, caption="Versions of your own model, the newest first", numbers=range(4, 5))]
    for one in report.versions:
        if one.contenders:
            compared = [
                [
                    CONTENDERS.get(way.name, way.name),
                    unbroken(metrics_line(way.metrics)),
                    f"{way.loss:.4g}",
                    str(way.rows),
                ]
                for way in one.contenders
            ]
            title = f"What was compared for version {one.id}, on rows that none of them was trained on"
            made = table(["", "Scores", "Loss", "Rows"], compared, caption=title, numbers=range(2, 4))
            parts.append(made if one.in_use else details(f"Version {one.id}: what was compared", made))
    if report.model is not None and report.model.task == "regression":
        said = "RMSE, MAE and loss here are in the model's scaled target, by which all ways are compared."
        parts.append(tag("p", said, class_="note"))
    if report.changes:
        put = [[shown.moment(change.time), str(change.version), change.action] for change in report.changes]
        made = table(["When", "Version", ""], put, caption="What was put in use when", numbers=range(1, 2))
        parts.append(details("History", made))
    return section("Versions", *parts, anchor="versions")


def evaluation(report: OwnerReport, slices: Drawing | None) -> Markup:
    """What the harness found."""
    found = report.evaluation
    if found is None:
        said = "No evaluation was made. testudo-client evaluate makes one, on rows that the model has not seen."
        return section("Evaluation", tag("p", said), anchor="evaluation")
    version = "" if found.model.version is None else f", own version {found.model.version}"
    judged = f"{found.plan}, after round {found.model.round}{version}, on {found.source}"
    parts = [tag("p", f"{judged}; {shown.moment(found.created)}.")]
    if report.evaluation_of_other:
        parts.append(tag("p", "It is of another model than the one in use, so that nothing else here rests on it.",
                         class_="warning"))  # fmt: skip
    parts += [tag("p", warning, class_="warning") for warning in found.warnings]
    tables = [
        [
            ARMS[one.arm],
            shown.MISSING if one.shots is None else str(one.shots),
            str(one.rows),
            unbroken(scores_line(one.metrics)),
        ]
        for one in found.tables
    ]
    caption = "Scores, with 95 % intervals"
    parts.append(table(["", "Examples", "Rows", "Scores"], tables, caption=caption, numbers=range(1, 3)))
    if slices is not None:
        parts.append(figure(slices))
    if found.slices:
        rows = [
            [f"{one.column}: {one.value}", str(one.rows), scores_line({found.loss_metric: one.score}),
             shown.MISSING if one.rest is None else shown.number(found.loss_metric, one.rest), one.verdict]
            for one in found.slices
        ]  # fmt: skip
        head = ["Slice", "Rows", "Score", "All others", ""]
        made = table(head, rows, caption="By parts of the rows", numbers=range(1, 2))
        parts.append(details("Slices in numbers", made) if slices is not None else made)
    if found.shifts:
        rows = [
            [one.shift.replace("_", " "), one.about, _change(found.loss_metric, one.change)]
            for one in found.shifts
        ]  # fmt: skip
        parts.append(
            table(
                ["Shift", "What it does", f"Change of {shown.metric_name(found.loss_metric)}"],
                rows,
                caption="Under named shifts",
                numbers=range(0),
            )
        )
    if found.comparisons:
        rows = [
            [shown.MISSING if one.shots is None else str(one.shots), shown.metric_name(one.metric),
             scores_line({one.metric: one.gain}), str(one.rows), one.verdict]
            for one in found.comparisons
        ]  # fmt: skip
        head = ["Examples", "Metric", "Gain", "Rows", "Verdict"]
        parts.append(table(head, rows, caption="Against the model before", numbers=range(3, 4)))
    return section("Evaluation", *parts, anchor="evaluation")


def _change(metric: str, change: Score) -> Markup:
    """What a shift does to a metric, without its name, which stands above."""
    return unbroken(scores_line({metric: change}).removeprefix(f"{shown.metric_name(metric)} "))
