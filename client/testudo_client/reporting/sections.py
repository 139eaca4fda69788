"""The sections of an owner's page, from values to Markup: what a business reads first, then everything else."""

from __future__ import annotations

from testudo_client.reporting.card import CONTENDERS, metric_said
from testudo_client.reporting.model_values import OwnModel, Sureness, VersionLine
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
            f"{'Promoted' if one.promoted else 'Not promoted'}: {one.reason}",
            str(one.rows),
            shown.moment(one.created),
            f"epsilon {shown.epsilon(one.epsilon)}" if one.private else "none: it stays with you",
        ]
        for one in report.versions
    ]
    head = ["Version", "What became of it", "Rows", "Made", "Privacy of those rows"]
    parts = [table(head, rows, caption="Versions of your own model, the newest first", numbers=range(2, 3))]
    for one in report.versions:
        if one.contenders:
            made = _compared(one)
            parts.append(made if one.in_use else details(f"Version {one.id}: what was compared", made))
    if report.model is not None and report.model.task == "regression":
        said = "RMSE, MAE and loss here are in the model's scaled target, by which all ways are compared."
        parts.append(tag("p", said, class_="note"))
    if report.changes:
        put = [[shown.moment(change.time), str(change.version), change.action] for change in report.changes]
        made = table(["When", "Version", ""], put, caption="What was put in use when", numbers=range(1, 2))
        parts.append(details("History", made))
    return section("Versions", *parts, anchor="versions")


def _compared(version: VersionLine) -> Markup:
    """What the gate compared: ways down, metrics across."""
    names = list(dict.fromkeys(name for way in version.contenders for name in way.metrics))
    rows = [
        [
            CONTENDERS.get(way.name, way.name),
            *(shown.number(name, way.metrics[name]) if name in way.metrics else shown.MISSING for name in names),
            f"{way.loss:.4g}",
            str(way.rows),
        ]
        for way in version.contenders
    ]
    title = f"What was compared for version {version.id}, on rows that none of them was trained on"
    return table(["", *map(shown.metric_title, names), "Loss", "Rows"], rows, caption=title)
