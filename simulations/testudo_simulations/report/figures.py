"""The four figures of the page: all arms, few-shot curves, the curve over rounds, and client by client.

Each takes the settings of one headline metric and returns None where the report has nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from testudo_common.reporting import drawing
from testudo_common.reporting.drawing import BETTER, FAINT, INK, WORSE, Drawing
from testudo_common.reporting.shown import is_percent, metric_name, metric_title, number, sentence_case
from testudo_simulations.report.comparisons import BeforeAfter, before_after
from testudo_simulations.report.looks import Look, looks
from testudo_simulations.report.summaries import ArmSummary, SettingSummary, without_privacy
from testudo_simulations.report.wording import open_adaptation, place, support, support_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Settings = Sequence[SettingSummary]


def arms(settings: Settings, key: str) -> Drawing | None:
    """Every arm at the headline support size: a dot, its spread over seeds, and the number."""
    shown = [setting for setting in settings if setting.at(setting.headline_shots)]
    if not shown:
        return None
    look = looks(shown)
    names = list(dict.fromkeys(arm.name for setting in shown for arm in setting.at(setting.headline_shots)))
    with drawing.style(key):
        figure, axes = drawing.panels(len(shown), 0.75 + 0.27 * len(names), sharex=True)
        for panel, setting in zip(axes, shown, strict=True):
            _draw_arms(panel, setting, names, look)
        for panel in axes:
            panel.set_yticks(range(len(names)), [look[name].label for name in names])
            panel.set_ylim(len(names) - 0.5, -0.5)
            panel.tick_params(axis="y", length=0, labelcolor=INK)
            panel.set_xlabel(metric_title(shown[0].metric))
            panel.tick_params(axis="x", labelbottom=True)  # shared axes would hide those of all but one row
        low, high = axes[0].get_xlim()
        axes[0].set_xlim(low, high + 0.26 * (high - low))  # the numbers' own column
        words = ". ".join(_arms_in_words(setting) for setting in shown)
        svg = drawing.render(figure, key, f"Dot chart, one panel a setting. {words}.")
    seeds = max(len(setting.runs) for setting in shown)
    bars = f" Bars: one standard deviation over {seeds} seeds." if seeds > 1 else ""
    hollow = any(_hollow(setting, arm) for setting in shown for arm in setting.at(setting.headline_shots))
    return Drawing(
        svg,
        f"{sentence_case(metric_name(shown[0].metric))} on clients that never trained, "
        f"{_direction(shown[0])}.{bars}{' Hollow: adapted without differential privacy.' if hollow else ''} "
        "The shaded row is the adapted meta-model.",
    )


def _draw_arms(panel: Axes, setting: SettingSummary, names: list[str], look: dict[str, Look]) -> None:
    scale = 100.0 if is_percent(setting.metric) else 1.0
    panel.set_title(drawing.shorten(place(setting), 30))
    panel.grid(axis="x", visible=False)
    panel.grid(axis="y", linestyle=":")
    if "adapted" in names:
        row = names.index("adapted")
        panel.axhspan(row - 0.5, row + 0.5, color="#e8f1f8", zorder=0)
    for row, name in enumerate(names):
        arm, style = setting.find(name, setting.headline_shots), look[name]
        if arm is None:
            continue
        bold = "bold" if arm.name == "adapted" else "normal"
        panel.text(0.99, row, number(setting.metric, arm.score.mean), ha="right", va="center",
                   transform=panel.get_yaxis_transform(), fontweight=bold)  # fmt: skip
        if math.isfinite(arm.score.mean):
            panel.errorbar(
                scale * arm.score.mean, row,
                xerr=None if arm.score.std is None else scale * arm.score.std,
                fmt=style.marker, color=style.color, markersize=6.5, elinewidth=1.6, capsize=2.5,
                markerfacecolor="white" if _hollow(setting, arm) else style.color,
            )  # fmt: skip


def few_shot(settings: Settings, key: str) -> Drawing | None:
    """The headline metric against the number of support examples, at equal distances."""
    shown = [setting for setting in settings if len(setting.shot_sizes) > 1]
    if not shown:
        return None
    look = looks(shown)
    with drawing.style(key):
        columns = 4 if max(len(one.label) for one in look.values()) <= 28 else 3
        rows_of_legend = math.ceil(len(look) / columns)
        figure, axes = drawing.panels(len(shown), 2.7, extra_inches=0.1 + 0.2 * rows_of_legend)
        drawn: dict[str, Any] = {}
        for panel, setting in zip(axes, shown, strict=True):
            _draw_few_shot(panel, setting, look, drawn)
        axes[0].set_ylabel(metric_title(shown[0].metric))
        figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=columns)
        words = ". ".join(_few_shot_in_words(setting) for setting in shown)
        svg = drawing.render(figure, key, f"Curves over the number of support examples. {words}.")
    return Drawing(
        svg,
        f"{sentence_case(metric_name(shown[0].metric))} against support examples (a class; for regression: a "
        f"client), {_direction(shown[0])}. Dashed: the meta-model without a step. {open_adaptation(shown)}"
        f"{' Hollow: no DP.' if any(map(without_privacy, shown)) else ''}",
    )


def _draw_few_shot(panel: Axes, setting: SettingSummary, look: dict[str, Look], drawn: dict[str, Any]) -> None:
    scale = 100.0 if is_percent(setting.metric) else 1.0
    sizes = setting.shot_sizes
    panel.set_title(drawing.shorten(place(setting), 30))
    panel.set_xticks(range(len(sizes)), [support(shots) for shots in sizes])
    panel.set_xlim(-0.3, len(sizes) - 0.7)
    panel.set_xlabel("support examples")
    panel.grid(axis="x", visible=False)
    for name in dict.fromkeys(arm.name for arm in setting.arms):
        points = [(x, arm) for x, shots in enumerate(sizes) if (arm := setting.find(name, shots)) is not None]
        style, ours = look[name], name == "adapted"
        line = panel.errorbar(
            [x for x, _ in points],
            [scale * arm.score.mean for _, arm in points],
            yerr=[scale * (arm.score.std or 0.0) for _, arm in points],
            color=style.color, marker=style.marker, markersize=6 if ours else 4.5,
            linewidth=2.6 if ours else 1.3, linestyle="--" if name == "meta" else "-",
            elinewidth=0.9, zorder=4 if ours else 3,
        )  # fmt: skip
        drawn.setdefault(style.label, line)
        hollow = [(x, scale * arm.score.mean) for x, arm in points if _hollow(setting, arm)]
        panel.plot(*(zip(*hollow, strict=True) if hollow else ([], [])), style.marker, color=style.color,
                   markersize=6 if ours else 4.5, markerfacecolor="white", zorder=5)  # fmt: skip


def over_rounds(settings: Settings, key: str) -> Drawing | None:
    """The headline metric on unseen clients after so many rounds, before and after adaptation."""
    shown = [setting for setting in settings if setting.curve]
    if not shown:
        return None
    from matplotlib.ticker import MaxNLocator

    scale = 100.0 if is_percent(shown[0].metric) else 1.0
    with drawing.style(key):
        figure, axes = drawing.panels(len(shown), 2.4, extra_inches=0.3)
        for panel, setting in zip(axes, shown, strict=True):
            rounds = [point.round for point in setting.curve]
            for label, color, marker, spreads in (
                ("before adaptation", "#56B4E9", "D", [point.before for point in setting.curve]),
                ("after adaptation", "#0072B2", "o", [point.after for point in setting.curve]),
            ):
                means = [scale * spread.mean for spread in spreads]
                widths = [scale * (spread.std or 0.0) for spread in spreads]
                dashes = "--" if marker == "D" else "-"
                panel.plot(
                    rounds,
                    means,
                    dashes,
                    color=color,
                    marker=marker,
                    markersize=4.5,
                    label=label,
                    linewidth=2,
                )
                low, high = ([m + sign * w for m, w in zip(means, widths, strict=True)] for sign in (-1, 1))
                panel.fill_between(rounds, low, high, color=color, alpha=0.18, linewidth=0)
            panel.set_title(drawing.shorten(place(setting), 30))
            panel.set_xlabel("rounds")
            panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes[0].set_ylabel(metric_title(shown[0].metric))
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        words = ". ".join(_curve_in_words(setting) for setting in shown)
        svg = drawing.render(figure, key, f"Curves over rounds of training. {words}.")
    band = " Band: one standard deviation over seeds." if max(len(s.runs) for s in shown) > 1 else ""
    return Drawing(
        svg,
        f"Measured during training on a sample of the unseen clients, {_direction(shown[0])}; the end of a curve need "
        f"not equal the tables.{band}",
    )


def client_by_client(settings: Settings, key: str) -> Drawing | None:
    """Every unseen client of every run before and after adaptation; those it made worse stand out."""
    paired = [(setting, pairs) for setting in settings if (pairs := before_after(setting))]
    if not paired:
        return None
    with drawing.style(key):
        figure, axes = drawing.panels(len(paired), 2.6, extra_inches=0.3)
        for panel, (setting, pairs) in zip(axes, paired, strict=True):
            _draw_clients(panel, setting, pairs)
        axes[0].set_ylabel(metric_title(paired[0][0].metric))
        figure.legend(handles=_client_legend(), loc="outside lower center", ncols=3)
        words = ". ".join(_hurt_in_words(setting, pairs) for setting, pairs in paired)
        svg = drawing.render(figure, key, f"Each unseen client before and after adaptation. {words}.")
    many = " and seed" if max(len(setting.runs) for setting, _ in paired) > 1 else ""
    return Drawing(
        svg,
        f"One line a client{many}, sorted by its value after adaptation, {_direction(paired[0][0])}. "
        f"{'. '.join(_hurt_in_words(setting, pairs) for setting, pairs in paired)}.",
    )


def _draw_clients(panel: Axes, setting: SettingSummary, pairs: Sequence[BeforeAfter]) -> None:
    scale = 100.0 if is_percent(setting.metric) else 1.0
    size = max(1.6, min(5.0, 190 / len(pairs)))
    for hurt, color, marker in ((False, BETTER, "o"), (True, WORSE, "X")):
        chosen = [(rank, pair) for rank, pair in enumerate(pairs, 1) if pair.hurt is hurt]
        ranks = [rank for rank, _ in chosen]
        before = [scale * pair.before for _, pair in chosen]
        after = [scale * pair.after for _, pair in chosen]
        panel.vlines(ranks, before, after, color=color, linewidth=max(0.6, size / 4), alpha=0.7)
        panel.plot(ranks, before, "o", markersize=size, markerfacecolor="white", markeredgecolor=FAINT,
                   markeredgewidth=0.8)  # fmt: skip
        panel.plot(ranks, after, marker, markersize=size + (1.2 if hurt else 0), color=color, markeredgewidth=0)
    panel.set_title(drawing.shorten(place(setting), 30))
    panel.set_xlabel("unseen clients, sorted")
    panel.set_xticks([])
    panel.grid(axis="x", visible=False)


def _client_legend() -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], marker="o", color="none", markerfacecolor="white", markeredgecolor=FAINT, label="before"),
        Line2D([], [], marker="o", color=BETTER, markersize=5, label="after: not worse"),
        Line2D([], [], marker="X", color=WORSE, markersize=6, markeredgewidth=0, label="after: worse"),
    ]


def _hollow(setting: SettingSummary, arm: ArmSummary) -> bool:
    """Whether the arm adapts without privacy in a setting that has some."""
    return setting.privacy.unit != "none" and not arm.private and arm.name != "meta"


def _direction(setting: SettingSummary) -> str:
    return "higher is better" if setting.higher_is_better else "lower is better"


def _arms_in_words(setting: SettingSummary) -> str:
    values = ", ".join(
        f"{arm.label} {number(setting.metric, arm.score.mean)}" for arm in setting.at(setting.headline_shots)
    )
    return f"{place(setting)}, {support_title(setting.headline_shots).lower()}: {values}"


def _few_shot_in_words(setting: SettingSummary) -> str:
    ours = [arm for shots in setting.shot_sizes if (arm := setting.find("adapted", shots)) is not None]
    values = ", ".join(f"{support(arm.shots)}: {number(setting.metric, arm.score.mean)}" for arm in ours)
    return f"{place(setting)}, the adapted meta-model has {values or 'no value'}"


def _curve_in_words(setting: SettingSummary) -> str:
    first, last = setting.curve[0], setting.curve[-1]
    values = [number(setting.metric, s.mean) for s in (first.before, last.before, first.after, last.after)]
    return (
        f"{place(setting)}, from round {first.round} to {last.round}: before adaptation {values[0]} to "
        f"{values[1]}, after it {values[2]} to {values[3]}"
    )


def _hurt_in_words(setting: SettingSummary, pairs: Sequence[BeforeAfter]) -> str:
    hurt = sum(pair.hurt for pair in pairs)
    return f"{place(setting)}, adaptation made {hurt} of {len(pairs)} worse"
