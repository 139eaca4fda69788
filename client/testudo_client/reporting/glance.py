"""What comes first, in plain words: one sentence, how sure, what left, at most five numbers, and what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from testudo_client.judging.results import Evaluation
from testudo_client.reporting.model_values import OwnModel, VersionLine
from testudo_client.reporting.values import MOST_NUMBERS, Glance, LogTold, Number, PlanLeft, Problem, Spent
from testudo_common.audit.wording import counted
from testudo_common.reporting import shown

NOTHING_LEFT = "Nothing: no round of a federation was taken part in from this folder, and no row of your data was sent."
NOT_KNOWN = "Not known: what keeps count of it could not be read."
COUNTED_IN = frozenset({"policy", "ledger", "what left"})
"""Parts of the folder without which nobody can say what left."""
_OF_100 = 100


def glance_of(
    model: OwnModel | None,
    version: VersionLine | None,
    evaluation: Evaluation | None,
    spent: Spent | None,
    left: Sequence[PlanLeft],
    logs: Sequence[LogTold],
    problems: Sequence[Problem],
    advice: Sequence[str],
) -> Glance:
    """The first section.

    Args:
        model: In use; None: none is.
        version: The same, as a record.
        evaluation: Of this model; None: there is none.
        spent: The ledger.
        left: What left, one a plan.
        logs: Audit logs.
        problems: What could not be read.
        advice: What those that watch say.
    """
    return Glance(
        headline=_headline(model, version, evaluation),
        sure=None if model is None else model.sure,
        left=left_in_words(left, known=not any(one.part in COUNTED_IN for one in problems)),
        numbers=tuple(_numbers(model, version, evaluation, spent, left))[:MOST_NUMBERS],
        advice=(*advice, *_advice(model, version, spent, logs, problems)),
    )


def _headline(model: OwnModel | None, version: VersionLine | None, evaluation: Evaluation | None) -> str:
    if version is None:
        return "No model of your own is in use yet."
    if model is None:
        return f"Version {version.id} of your own model is in use, and cannot be read."
    if model.forecast is not None:
        return _forecast(model)
    measured = _measured(model, version, evaluation)
    if measured is None:
        return f"Your model answers {model.target}; how well has not been measured."
    where = f"on {measured.rows:,} {measured.where}"
    if measured.metric == "accuracy":
        right = f"{_of_hundred(measured.value)} of 100 answers are right"
        return f"Your model answers {model.target}: {right}, {where}{_beside(model, measured)}."
    off = f"off by {_error(model, measured)} on average"
    return f"Your model of {model.target} is {off}, {where}{_beside(model, measured)}."


def _forecast(model: OwnModel) -> str:
    found = model.forecast
    assert found is not None
    sentence = f"The last {found.answers} forecasts of {model.target} average {_figure(found.mean)}{_unit(model)}"
    if found.low is None or found.high is None:
        return f"{sentence}; how far off they may be is not known yet."
    often = f"{_of_hundred(model.level)} times of 100"
    return (
        f"{sentence}; the ranges in which the truth should lie, {often}, average "
        f"{_figure(found.low)} to {_figure(found.high)}."
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """How well it does, and on what.

    Attributes:
        metric: ``accuracy``, ``mae`` or ``rmse``.
        value: Of it.
        rows: It was measured on.
        where: Which rows these are.
        bar: The same of always giving the most frequent answer, or the mean, on the same rows; None: not known.
        scaled: Whether an error is in the model's scaled target.
    """

    metric: str
    value: float
    rows: int
    where: str
    bar: float | None
    scaled: bool


def _measured(model: OwnModel, version: VersionLine, evaluation: Evaluation | None) -> _Measured | None:
    """What is closest to use: outcomes that were told, else an evaluation, else the rows held out at promotion."""
    if model.outcomes is not None:
        found, metrics = model.outcomes, model.outcomes.metrics
        return _first(metrics, found.answers, "answers whose outcome you told", found.bar, scaled=False)
    tables = [] if evaluation is None else [one for one in evaluation.tables if one.arm == "in_use"]
    if tables:
        metrics = {name: score.value for name, score in tables[0].metrics.items() if score.value is not None}
        return _first(metrics, tables[0].rows, "of your rows that it was evaluated on", None, scaled=False)
    if not version.contenders:
        return None
    mine = next((one for one in version.contenders if one.name == version.kind), version.contenders[0])
    simple = next((one.metrics for one in version.contenders if one.name == "majority"), {})
    found_here = _first(mine.metrics, mine.rows, "of your rows that it was not trained on", None, scaled=True)
    return None if found_here is None else replace(found_here, bar=simple.get(found_here.metric))


def _first(metrics: Mapping[str, float], rows: int, where: str, bar: float | None, *, scaled: bool) -> _Measured | None:
    name = next((one for one in ("accuracy", "mae", "rmse") if one in metrics), None)
    return None if name is None else _Measured(name, metrics[name], rows, where, bar, scaled)


def _beside(model: OwnModel, measured: _Measured) -> str:
    """The honest bar, on the same rows."""
    if measured.bar is None:
        return ""
    if measured.metric == "accuracy":
        return f"; always giving the most frequent answer gets {_of_hundred(measured.bar)}"
    return f"; always giving the mean is off by {_error(model, replace(measured, value=measured.bar))}"


def _numbers(
    model: OwnModel | None,
    version: VersionLine | None,
    evaluation: Evaluation | None,
    spent: Spent | None,
    left: Sequence[PlanLeft],
) -> list[Number]:
    numbers = []
    measured = None if model is None or version is None else _measured(model, version, evaluation)
    if model is not None and measured is not None:
        right = measured.metric == "accuracy"
        said = f"{shown.number('accuracy', measured.value)} %" if right else _error(model, measured)
        numbers.append(Number(name="right" if right else "off by, on average", shown=said))
    if model is not None and model.sure is not None:
        numbers.append(Number(name="answers given", shown=f"{model.sure.answers:,}"))
    if version is not None:
        numbers.append(Number(name="of your rows it was made from", shown=f"{version.rows:,}"))
    rounds = sum(one.rounds for one in left)
    numbers.append(Number(name="rounds taken part in", shown=str(rounds)))
    if spent is not None:
        numbers += [
            Number(name=f"epsilon spent, of {room.allowed:g} allowed", shown=shown.epsilon(room.spent))
            for room in spent.ceilings[:1]
        ]
    return numbers


def left_in_words(left: Sequence[PlanLeft], *, known: bool) -> str:
    """What left this computer, for somebody who asks in passing; ``known``: whether all that counts it was read."""
    if not known:
        return NOT_KNOWN
    trained, scored = sum(one.trained for one in left), sum(one.scored for one in left)
    what = [f"updates of a shared model in {counted(trained, 'round')}"] if trained else []
    what += [f"scores of it in {counted(scored, 'round')}"] if scored else []
    if not what:
        return NOTHING_LEFT
    sizes = [one.bytes_up for one in left if one.bytes_up is not None]
    size = f", about {shown.size(sum(sizes))}" if sizes and len(sizes) == len(left) else ""
    said = shown.sentence_case(" and ".join(what))
    return f"{said}{size}; {_seen(left)}. No row of your data was sent."


def _seen(left: Sequence[PlanLeft]) -> str:
    """What the server saw of it, at the worst of all plans."""
    if any(not one.seen for one in left):
        return "what the server saw of them is not known, since no copy of the plan is kept"
    hidden = all(one.seen.startswith("sums") for one in left)
    return f"the server saw them {'only inside sums over groups of owners' if hidden else 'each by itself'}"


def _advice(
    model: OwnModel | None,
    version: VersionLine | None,
    spent: Spent | None,
    logs: Sequence[LogTold],
    problems: Sequence[Problem],
) -> list[str]:
    said = []
    if version is None:
        said.append("Make a model of your own: testudo-client adapt.")
    elif model is not None and model.sure is not None and model.outcomes is None:
        said.append("Tell it what turned out to be true, so that its answers can be checked.")
    if any(not log.holds for log in logs):
        said.append("An audit log does not hold: find out what the federation did before you take further part.")
    if spent is not None and any(
        room.allowed is not None and (room.spent is None or room.spent >= room.allowed) for room in spent.ceilings
    ):
        said.append("A ceiling on epsilon is reached: nothing more is trained on this data.")
    if problems:
        said.append(f"Parts of the folder could not be read: {', '.join(one.part for one in problems)}.")
    return said


def _of_hundred(share: float) -> int:
    return round(_OF_100 * share)


def _error(model: OwnModel, measured: _Measured) -> str:
    """An error in the target's unit; of a logarithm, a share of the true number."""
    if not measured.scaled:
        return f"{shown.number(measured.metric, measured.value)}{_unit(model)}"
    scaled = measured.value * model.error_scale
    if model.relative:
        return f"about {100 * math.expm1(scaled):.0f} %"
    return f"{shown.number(measured.metric, scaled)}{_unit(model)}"


def _unit(model: OwnModel) -> str:
    return f" {model.unit}" if model.unit else ""


def _figure(value: float) -> str:
    """Without decimals where it is large, with thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.3g}"
