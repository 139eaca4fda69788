"""What comes first, in plain words: one sentence, how sure, what left, at most five numbers, and what to do."""

from __future__ import annotations

import math
from collections.abc import Sequence

from testudo_client.reporting.card import metric_said
from testudo_client.reporting.model_values import OwnModel, VersionLine
from testudo_client.reporting.values import MOST_NUMBERS, Glance, LogTold, Number, PlanLeft, Problem, Spent
from testudo_common.reporting import shown

NOTHING_LEFT = "Nothing: no round was taken part in, and no data of yours was ever sent."
_OF_100 = 100


def glance_of(
    model: OwnModel | None,
    version: VersionLine | None,
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
        spent: The ledger.
        left: What left, one a plan.
        logs: Audit logs.
        problems: What could not be read.
        advice: What those that watch say.
    """
    return Glance(
        headline=_headline(model, version),
        sure=None if model is None else model.sure,
        left=left_in_words(left),
        numbers=tuple(_numbers(model, version, spent, left))[:MOST_NUMBERS],
        advice=(*advice, *_advice(model, version, spent, logs, problems)),
    )


def _headline(model: OwnModel | None, version: VersionLine | None) -> str:
    if model is None or version is None:
        return "No model of your own is in use yet."
    if model.forecast is not None:
        return _forecast(model)
    measured = _measured(model, version)
    if measured is None:
        return f"Your model answers {model.target}; how well has not been measured."
    metrics, rows, where = measured
    if "accuracy" in metrics:
        right = f"{_of_hundred(metrics['accuracy'])} of 100 answers are right"
        return f"Your model answers {model.target}: {right}, on {rows} {where}{_beside(model, version, 'accuracy')}."
    if "mae" in metrics or "rmse" in metrics:
        name = "mae" if "mae" in metrics else "rmse"
        off = f"is off by {_error(model, name, metrics[name])} on average"
        return f"Your model of {model.target} {off}, on {rows} {where}{_beside(model, version, name)}."
    return f"Your model answers {model.target}: {', '.join(metric_said(*one) for one in metrics.items())}."


def _forecast(model: OwnModel) -> str:
    found = model.forecast
    assert found is not None
    sentence = f"The last {found.answers} forecasts of {model.target}: {_figure(found.mean)}{_unit(model)} on average"
    if found.low is None or found.high is None:
        return f"{sentence}; how far off they may be is not known yet."
    ends = f"{_figure(found.low)} and {_figure(found.high)}"
    return f"{sentence}; {_of_hundred(model.level)} times of 100 the truth should lie between about {ends}."


def _measured(model: OwnModel, version: VersionLine) -> tuple[dict[str, float], int, str] | None:
    """What is closest to use: outcomes that were told, or else the rows held out at promotion."""
    if model.outcomes is not None:
        return model.outcomes.metrics, model.outcomes.answers, "answers whose outcome you told"
    if version.contenders:
        mine = next((one for one in version.contenders if one.name == version.kind), version.contenders[0])
        return mine.metrics, mine.rows, "of your rows that it was not trained on"
    return None


def _beside(model: OwnModel, version: VersionLine, metric: str) -> str:
    """The honest bar, on the same rows: what the most frequent answer, or the mean, would have got."""
    value = None
    if model.outcomes is not None:
        value = model.outcomes.bar if metric in {"accuracy", "mae"} else None
    else:
        value = next((one.metrics.get(metric) for one in version.contenders if one.name == "majority"), None)
    if value is None:
        return ""
    if metric == "accuracy":
        return f"; always giving the most frequent answer gets {_of_hundred(value)}"
    return f"; always giving the mean is off by {_error(model, metric, value)}"


def _numbers(
    model: OwnModel | None, version: VersionLine | None, spent: Spent | None, left: Sequence[PlanLeft]
) -> list[Number]:
    numbers = []
    measured = None if model is None or version is None else _measured(model, version)
    if model is not None and measured is not None:
        name = next((one for one in ("accuracy", "mae", "rmse") if one in measured[0]), None)
        if name is not None:
            value = measured[0][name]
            right = name == "accuracy"
            said = f"{shown.number(name, value)} %" if right else _error(model, name, value)
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


def left_in_words(left: Sequence[PlanLeft]) -> str:
    """What left this computer, for somebody who asks in passing."""
    rounds, scored = sum(one.rounds for one in left), sum(one.scored for one in left)
    if not rounds and not scored:
        return NOTHING_LEFT
    known = [one.bytes_up for one in left if one.bytes_up is not None]
    size = f", {shown.size(sum(known))} at the most" if known and len(known) == len(left) else ""
    hidden = all(one.seen.startswith("sums") for one in left)
    how = "only inside sums over groups of owners" if hidden else "each by itself"
    scores = f" and scores of {scored}" if scored else ""
    one = rounds == 1
    return (
        f"Updates of a shared model in {rounds} round{'' if one else 's'}{scores}{size}; "
        f"the server saw them {how}. No row of your data was sent."
    )


def _advice(
    model: OwnModel | None,
    version: VersionLine | None,
    spent: Spent | None,
    logs: Sequence[LogTold],
    problems: Sequence[Problem],
) -> list[str]:
    said = []
    if model is None or version is None:
        said.append("Make a model of your own: testudo-client adapt.")
    elif model.outcomes is None:
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


def _error(model: OwnModel, metric: str, value: float) -> str:
    """An error in the target's unit; held-out scores are in the scaled target, and of a logarithm a share is left."""
    if model.outcomes is not None:
        return f"{shown.number(metric, value)}{_unit(model)}"
    scaled = value * model.error_scale
    if model.relative:
        return f"about {100 * math.expm1(scaled):.0f} %"
    return f"{shown.number(metric, scaled)}{_unit(model)}"


def _unit(model: OwnModel) -> str:
    return f" {model.unit}" if model.unit else ""


def _figure(value: float) -> str:
    """Without decimals where it is large, with thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.3g}"
