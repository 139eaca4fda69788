"""An evaluation as a terminal shows it: a headline sentence, then tables. Computes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from testudo_client.judging.comparing import MIN_CLIENTS, MIN_ROWS
from testudo_client.judging.results import Comparison, Evaluation, Score, ScoreTable

_NAMES = {
    "accuracy": "accuracy", "balanced_accuracy": "balanced", "precision": "precision", "recall": "recall", "f1": "F1",
    "ece": "ECE", "ece_raw": "ECE raw", "brier": "Brier", "coverage": "coverage", "set_size": "set size",
    "rmse": "RMSE", "mae": "MAE", "mse": "MSE", "interval_width": "interval width",
}  # fmt: skip
_SHOWN = {
    "accuracy": ("accuracy", "balanced_accuracy", "f1", "ece", "ece_raw", "coverage", "set_size"),
    "mae": ("rmse", "mae", "coverage", "interval_width"),
}
_VERDICTS = {
    "better": "better than", "not worse": "not worse than", "worse": "worse than",
    "not shown": "not shown to be as good as",
}  # fmt: skip


def print_evaluation(found: Evaluation, console: Console) -> None:
    """The whole of it; every interval is of 95 %."""
    console.print(escape(headline_sentence(found)), soft_wrap=True)
    console.print(_scores(found))
    if found.slices:
        console.print(_slices(found))
    if found.shifts:
        console.print(_shifts(found))
    for one in found.comparisons:
        console.print(escape(comparison_sentence(one)), soft_wrap=True)
    for warning in found.warnings:
        console.print(f"[yellow]Note:[/yellow] {escape(warning)}", soft_wrap=True)


def headline_sentence(found: Evaluation) -> str:
    """What came out, in one sentence."""
    last = found.tables[-1]
    metric, score = found.headline, last.metrics[found.headline]
    unit = f" {found.unit}" if found.unit and metric in ("rmse", "mae") else ""
    where = f"{last.rows} rows" if last.clients == 1 else f"{last.clients} clients with {last.rows} rows"
    if last.arm == "in_use":
        return f"Version {found.model.version} on {where}: {_NAMES[metric]} {shown(score)}{unit}."
    start = [one for one in found.tables if one.arm == "before"][-1].metrics[metric]
    return (
        f"Meta-model of round {found.model.round} on {where}: {_NAMES[metric]} {shown(score)}{unit} after adapting on "
        f"{_size(last.shots)} that are not among them, {shown(start)}{unit} before."
    )


def comparison_sentence(one: Comparison) -> str:
    """One comparison, with what the verdict rests on."""
    fewest = MIN_CLIENTS if one.clients > 1 else MIN_ROWS
    counted = one.clients if one.clients > 1 else one.rows
    few = f", and {fewest} are the least" if counted < fewest else ""
    return (
        f"Adapted on {_size(one.shots)}: {_VERDICTS[one.verdict]} the model of round {one.before.round}; "
        f"{_NAMES[one.metric]} {_number(one.value)} against {_number(one.value_before)}, "
        f"gain {shown(one.gain, signed=True)}, "
        f"margin {one.margin:.3g}, {one.rows} rows of {one.clients} client{'s' if one.clients != 1 else ''}{few}."
    )


def _size(shots: int | None) -> str:
    return "all its examples" if shots is None else f"{shots} shot{'s' if shots != 1 else ''}"


def shown(score: Score, *, signed: bool = False) -> str:
    """A number with its interval."""
    if score.low is None or score.high is None:
        return _number(score.value, signed=signed)
    ends = f"{_number(score.low, signed=signed)} to {_number(score.high, signed=signed)}"
    return f"{_number(score.value, signed=signed)} ({ends})"


def _number(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:{'+' if signed else ''}{'.3f' if abs(value) < 10 else '.4g'}}"


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _scores(found: Evaluation) -> Table:
    """A column each way to answer and support size; of the model as published, only around the last support set."""
    start = [one for one in found.tables if one.arm == "before"][-1:]
    columns = [*start, *(one for one in found.tables if one.arm != "before")]
    names = [name for name in _SHOWN[found.loss_metric] if any(name in one.metrics for one in columns)]
    if found.headline not in names:
        names.insert(0, found.headline)
    rows = [[_NAMES[name], *(_stacked(one.metrics.get(name)) for one in columns)] for name in names]
    if any(one.percentiles for one in columns):
        rows.append(["10/50/90 %\nof clients", *("\n".join(map(_number, one.percentiles)) for one in columns)])
        rows.append(["hurt", *("" if one.hurt is None else f"{100 * one.hurt:.0f} %" for one in columns)])
    return _table("Scores, with 95 % intervals", ["", *map(_arm, columns)], rows)


def _stacked(score: Score | None) -> str:
    return "-" if score is None else shown(score).replace(" (", "\n(")


def _arm(one: ScoreTable) -> str:
    return {"before": "as published", "adapted": f"adapted on\n{_size(one.shots)}", "in_use": "in use"}[one.arm]


def _slices(found: Evaluation) -> Table:
    rows = [
        [
            one.column,
            one.value,
            str(one.rows),
            shown(one.score),
            _number(one.rest),
            "" if one.p_value is None else f"{one.p_value:.2g}",
            one.verdict,
        ]
        for one in found.slices
    ]
    columns = ["column", "part", "rows", _NAMES[found.loss_metric], "the rest", "p (Holm)", ""]
    return _table("Slices", columns, rows)


def _shifts(found: Evaluation) -> Table:
    metric = found.loss_metric
    rows = [
        [one.shift, one.about, _number(one.metrics[metric].value), shown(one.change, signed=True)]
        for one in found.shifts
    ]
    return _table("Under named shifts", ["shift", "", _NAMES[metric], "change"], rows)
