"""Which arm is better, by how much, and for which clients. Pure functions of summaries; holds no wording."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from testudo_simulations.report.summaries import ArmSummary, SettingSummary, Spread
from testudo_simulations.results import RunResult

Verdict = Literal["better", "worse", "tie"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ours against another arm, paired by run; ``gain`` is positive where ours is better.

    ``tie``: with several runs, the mean gain is no larger than its standard deviation over them.
    """

    ours: ArmSummary
    theirs: ArmSummary
    gain: Spread
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """One client of one run: the headline metric of the meta-model as it is, and once adapted."""

    client: str
    before: float
    after: float
    hurt: bool


def best(arms: Iterable[ArmSummary], *, higher_is_better: bool) -> ArmSummary | None:
    """The arm with the best mean; None when no mean is finite."""
    finite = [arm for arm in arms if math.isfinite(arm.score.mean)]
    sign = 1 if higher_is_better else -1
    return max(finite, key=lambda arm: sign * arm.score.mean, default=None)


def compare(ours: ArmSummary, theirs: ArmSummary, *, higher_is_better: bool) -> Comparison:
    """Pair two arms by run. An arm that diverged loses against one that did not."""
    sign = 1 if higher_is_better else -1
    shared = [run for run in ours.by_run if run in theirs.by_run]
    gain = Spread.of([sign * (ours.by_run[run] - theirs.by_run[run]) for run in shared])
    if not math.isfinite(gain.mean):
        finite = math.isfinite(ours.score.mean), math.isfinite(theirs.score.mean)
        verdict: Verdict = {(True, False): "better", (False, True): "worse"}.get(finite, "tie")  # type: ignore[assignment]
    elif abs(gain.mean) <= (gain.std or 0.0):
        verdict = "tie"
    else:
        verdict = "better" if gain.mean > 0 else "worse"
    return Comparison(ours, theirs, gain, verdict)


def best_baseline(setting: SettingSummary) -> ArmSummary | None:
    """The best way without any federation at the headline support size, training from scratch aside."""
    others = [a for a in setting.at(setting.headline_shots) if a.family == "baseline" and a.name != "scratch"]
    return best(others, higher_is_better=setting.higher_is_better)


def best_federated(setting: SettingSummary) -> ArmSummary | None:
    """The best other federated way at the headline support size."""
    others = [arm for arm in setting.at(setting.headline_shots) if arm.family == "federated"]
    return best(others, higher_is_better=setting.higher_is_better)


def before_after(setting: SettingSummary) -> tuple[BeforeAfter, ...]:
    """Each unseen client of each run before and after adaptation, at the headline support size."""
    meta, adapted = setting.unadapted, setting.find("adapted", setting.headline_shots)
    if meta is None or adapted is None:
        return ()
    sign = 1 if setting.higher_is_better else -1
    pairs: list[BeforeAfter] = []
    for run in setting.runs:
        first, second = _scores(run, meta), _scores(run, adapted)
        for client in first.keys() & second.keys():
            before, after = first[client], second[client]
            if math.isfinite(before) and math.isfinite(after):
                pairs.append(BeforeAfter(client, before, after, sign * (after - before) < 0))
    return tuple(sorted(pairs, key=lambda pair: (pair.after, pair.before, pair.client)))


def _scores(run: RunResult, like: ArmSummary) -> dict[str, float]:
    """Client -> headline metric under the arm of this run that ``like`` summarises."""
    for arm in run.arms:
        if (arm.name, arm.shots, arm.private) == (like.name, like.shots, like.private):
            return {score.client: score.metrics.get(run.metric, math.nan) for score in arm.scores}
    return {}
