"""What each setting found, in sentences; whichever way wins is said to win. No layout, no arithmetic.

Ours is always the adapted meta-model at the headline support size; what it is held against: training from
scratch, the best baseline without federation, the best other federated way, and not adapting at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from testudo_common.markup import printable
from testudo_common.reporting.shown import DIVERGED, is_percent, metric_name, with_unit
from testudo_simulations.report.comparisons import (
    Comparison,
    Verdict,
    best_baseline,
    best_federated,
    compare,
)
from testudo_simulations.report.summaries import ArmSummary, SettingSummary
from testudo_simulations.report.wording import gain, place


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence, and whether it is good for the meta-model; None where nothing was compared."""

    text: str
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Headline:
    """What one setting found.

    Attributes:
        place: The setting as a reader says it.
        findings: Against training from scratch first, then the best baseline without federation, then others.
    """

    place: str
    findings: tuple[Finding, ...]


def headline(setting: SettingSummary) -> Headline:
    """The findings of one setting."""
    ours = setting.find("adapted", setting.headline_shots)
    where = place(setting)
    if ours is None:
        return Headline(where, (Finding(f"{where}, no adapted meta-model was measured.", None),))
    found = (
        _against_scratch(setting, ours),
        _against_baseline(setting, ours),
        *_against_federated(setting, ours),
        *_against_unadapted(setting, ours),
    )
    return Headline(where, found)


def _against_scratch(setting: SettingSummary, ours: ArmSummary) -> Finding:
    how = " (adapted without privacy)" if _openness(setting, ours) else ""
    reached = f"{place(setting)}, the adapted meta-model{how} {_reaches(setting, ours)} on clients it never saw"
    scratch = setting.find("scratch", setting.headline_shots)
    if scratch is None:
        return Finding(f"{reached}; nothing was trained from scratch beside it.", None)
    against = compare(ours, scratch, higher_is_better=setting.higher_is_better)
    theirs = f"trained from scratch{_openness(setting, scratch)} {_value(setting, scratch)}"
    return Finding(f"{reached}; {theirs}{_outcome(setting, against)}.", against.verdict)


def _against_baseline(setting: SettingSummary, ours: ArmSummary) -> Finding:
    baseline = best_baseline(setting)
    if baseline is None:
        return Finding("No other baseline without federation was measured.", None)
    against = compare(ours, baseline, higher_is_better=setting.higher_is_better)
    text = f"The best baseline without federation{_named(setting, baseline)}: {_rivalry(setting, against)}."
    return Finding(text, against.verdict)


def _against_federated(setting: SettingSummary, ours: ArmSummary) -> tuple[Finding, ...]:
    federated = best_federated(setting)
    if federated is None:
        return ()
    against = compare(ours, federated, higher_is_better=setting.higher_is_better)
    text = f"The best other federated way{_named(setting, federated)}: {_rivalry(setting, against)}."
    return (Finding(text, against.verdict),)


def _against_unadapted(setting: SettingSummary, ours: ArmSummary) -> tuple[Finding, ...]:
    """Said only where adapting made the mean worse."""
    unadapted = setting.unadapted
    if unadapted is None:
        return ()
    against = compare(ours, unadapted, higher_is_better=setting.higher_is_better)
    if against.verdict != "worse":
        return ()
    before = _value(setting, unadapted)
    return (Finding(f"Adapting made it worse: without a step the meta-model has {before}.", "worse"),)


def _value(setting: SettingSummary, arm: ArmSummary) -> str:
    return with_unit(setting.metric, arm.score.mean)


def _reaches(setting: SettingSummary, arm: ArmSummary) -> str:
    if not math.isfinite(arm.score.mean):
        return DIVERGED
    name, value = metric_name(setting.metric), _value(setting, arm)
    return f"reaches {value} {name}" if is_percent(setting.metric) else f"reaches {name} {value}"


def _openness(setting: SettingSummary, arm: ArmSummary) -> str:
    """Said only where the setting is private and the arm is not."""
    return " (not private)" if setting.privacy.unit != "none" and not arm.private else ""


def _named(setting: SettingSummary, arm: ArmSummary) -> str:
    """`` (local ridge; not private) has 64.0 %``."""
    open_arm = "; not private" if _openness(setting, arm) else ""
    return f" ({printable(arm.label)}{open_arm}) has {_value(setting, arm)}"


def _outcome(setting: SettingSummary, against: Comparison) -> str:
    """The end of the main sentence: by how much, and who won."""
    if not math.isfinite(against.gain.mean):
        return ", which is better" if against.verdict == "worse" else ""
    raw = against.gain.mean if setting.higher_is_better else -against.gain.mean
    difference = gain(setting.metric, raw) + ("" if setting.higher_is_better else " (lower is better)")
    if against.verdict == "worse":
        return f", which is better: {difference} for the meta-model"
    if against.verdict == "better":
        return f": {difference}"
    return f": {difference}, too close to call"


def _rivalry(setting: SettingSummary, against: Comparison) -> str:
    if not math.isfinite(against.gain.mean):
        return {"better": "the meta-model wins", "worse": "it wins", "tie": "no winner"}[against.verdict]
    by = gain(setting.metric, abs(against.gain.mean), signed=False)
    if against.verdict == "tie":
        return f"{by} apart, too close to call"
    return f"the meta-model wins by {by}" if against.verdict == "better" else f"it wins by {by}"
