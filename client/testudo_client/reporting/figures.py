"""The two figures of an owner's page: how far stated probabilities can be trusted, and scores of parts of the rows."""

from __future__ import annotations

from testudo_client.judging.results import Evaluation
from testudo_client.reporting.model_values import OwnModel
from testudo_common.reporting import drawing, shown
from testudo_common.reporting.drawing import BETTER, FAINT, INK, WORSE, Drawing

MOST_SLICES = 24


def reliability(model: OwnModel | None) -> Drawing | None:
    """How often the answers of each range of stated probability were right; on the line they are as often as stated."""
    if model is None or model.outcomes is None or not model.outcomes.bins:
        return None
    bins, outcomes = model.outcomes.bins, model.outcomes
    with drawing.style("reliability"):
        figure, (panel,) = drawing.panels(1, 3.4)
        panel.plot([0, 100], [0, 100], color=FAINT, linestyle="--", linewidth=1.2)
        for one in bins:
            color = WORSE if one.right < one.stated else BETTER
            panel.plot([100 * one.stated] * 2, [100 * one.stated, 100 * one.right], color=color, linewidth=1.4)
            panel.plot(100 * one.stated, 100 * one.right, "o", color=color, markersize=6)
            panel.annotate(str(one.answers), (100 * one.stated, 100 * one.right), xytext=(7, -3),
                           textcoords="offset points", color=FAINT)  # fmt: skip
        low = 100 * min(min(one.stated, one.right) for one in bins)
        panel.set_xlim(max(0.0, low - 8), 101)
        panel.set_ylim(max(0.0, low - 8), 101)
        panel.set_xlabel("stated probability of the answer, %")
        panel.set_ylabel("answers that were right, %")
        words = ". ".join(
            f"stated {100 * one.stated:.0f} %, right {100 * one.right:.0f} %, {one.answers} answers" for one in bins
        )
        svg = drawing.render(figure, "reliability", f"Reliability diagram. {words}.")
    ece = shown.number("ece", outcomes.metrics["ece"])
    raw = "" if outcomes.raw_ece is None else f", and {shown.number('ece', outcomes.raw_ece)} before calibration"
    return Drawing(
        svg,
        f"How far its probabilities can be trusted: on the dashed line it is right as often as it says. Blue: more "
        f"often, orange: less often. ECE {ece}{raw}. Beside a dot: answers; ranges with fewer than ten are left out.",
    )


def slices(evaluation: Evaluation | None) -> Drawing | None:
    """Scores of parts of the rows, those that do worse than the rest in orange."""
    if evaluation is None:
        return None
    metric = evaluation.loss_metric
    shown_ones = [one for one in evaluation.slices if one.score.value is not None][:MOST_SLICES]
    if not shown_ones:
        return None
    scale = 100.0 if shown.is_percent(metric) else 1.0
    with drawing.style("slices"):
        figure, (panel,) = drawing.panels(1, 0.9 + 0.27 * len(shown_ones))
        for row, one in enumerate(shown_ones):
            value, low, high = one.score.value, one.score.low, one.score.high
            assert value is not None
            color = WORSE if one.verdict == "worse" else BETTER
            if low is not None and high is not None:
                panel.plot([scale * low, scale * high], [row, row], color=color, linewidth=1.6)
            panel.plot(scale * value, row, "o" if one.verdict != "worse" else "X", color=color, markersize=6.5)
        labels = [drawing.shorten(f"{one.column}: {one.value}") for one in shown_ones]
        panel.set_yticks(range(len(shown_ones)), labels)
        panel.set_ylim(len(shown_ones) - 0.5, -0.5)
        panel.tick_params(axis="y", length=0, labelcolor=INK)
        panel.grid(axis="y", visible=False)
        panel.set_xlabel(shown.metric_title(metric) + (f", {evaluation.unit}" if evaluation.unit else ""))
        words = ". ".join(
            f"{one.column} {one.value}: {shown.number(metric, one.score.value or 0.0)}, {one.verdict}"
            for one in shown_ones
        )
        svg = drawing.render(figure, "slices", f"Scores of slices. {words}.")
    left = len(evaluation.slices) - len(shown_ones)
    more = f" Not drawn: {left} more." if left else ""
    worse = any(one.verdict == "worse" for one in shown_ones)
    said = "Crosses in orange do" if worse else "None does"
    return Drawing(
        svg,
        f"{shown.sentence_case(shown.metric_name(metric))} of parts of the rows; bars are 95 % intervals. {said} worse "
        f"than all other rows, at 5 % over all parts together.{more}",
    )
