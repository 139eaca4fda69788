"""From a Report to the numbers that both views show. Pure functions; holds no wording and no drawing.

Two kinds of spread are kept apart: *between seeds* (``Spread``: mean and sample standard deviation of each
run's mean over clients) and *between clients* (percentiles over clients, pooled over seeds).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from testudo_simulations.results import (
    Arm,
    AuditSummary,
    Cost,
    PrivacySummary,
    Report,
    RobustSummary,
    RunResult,
    SecureSummary,
)


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over runs; ``std`` is the sample standard deviation (n - 1), None for fewer than two runs."""

    mean: float
    std: float | None
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of one value a run; a value that is not finite makes the mean not a number."""
        if not values or not all(math.isfinite(value) for value in values):
            return cls(math.nan, None, len(values))
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """One arm at one support size, over all runs of a setting.

    Attributes:
        by_run: Position of the run in its setting -> mean of the headline metric over that run's clients.
        percentiles: 10th, 50th and 90th over clients, pooled over seeds; not a number where any score is.
        clients: Scores pooled, so clients x seeds.
        metrics: Every metric, the headline one included.
    """

    name: str
    label: str
    family: Literal["meta", "federated", "baseline"]
    shots: int | None
    private: bool
    score: Spread
    by_run: Mapping[int, float]
    percentiles: tuple[float, float, float]
    clients: int
    share_hurt: float | None
    metrics: Mapping[str, Spread]


@dataclass(frozen=True, slots=True)
class CurveSummary:
    """The headline metric on unseen clients after ``round`` rounds, over the runs that measured it there."""

    round: int
    before: Spread
    after: Spread


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A client that was left out, why, and how often: runs for ``left_out``, rounds for ``refused``."""

    client: str
    reason: str
    times: int


@dataclass(frozen=True, slots=True)
class SettingSummary:
    """All runs of one setting and one headline metric.

    Attributes:
        privacy: That of the run that spent most.
        secure: Sums over the runs; CPU seconds are means, the smallest sum the smallest of all.
        robust: Of the first run, with the fewest rows and bad ones of any, and who was outvoted in any.
        audit: Of the first run whose log did not hold, or else of the first: every run has a log of its own.
        cost: Sums over the runs; memory is the largest.
        left_out: Clients that never were in the federation.
        refused: Clients whose reply was not used in some rounds.
    """

    setting: str
    metric: str
    higher_is_better: bool
    runs: tuple[RunResult, ...]
    arms: tuple[ArmSummary, ...]
    curve: tuple[CurveSummary, ...]
    privacy: PrivacySummary
    secure: SecureSummary
    robust: RobustSummary
    audit: AuditSummary | None
    cost: Cost
    left_out: tuple[Exclusion, ...]
    refused: tuple[Exclusion, ...]

    @property
    def shot_sizes(self) -> tuple[int | None, ...]:
        """Support sizes in the report, ascending; None (all of the support set) last."""
        sizes = {arm.shots for arm in self.arms}
        numbered = sorted(size for size in sizes if size is not None)
        return (*numbered, None) if None in sizes else tuple(numbered)

    @property
    def headline_shots(self) -> int | None:
        """The support size that headlines speak of: all, or the largest there is."""
        sizes = self.shot_sizes
        return sizes[-1] if sizes else None

    def at(self, shots: int | None) -> tuple[ArmSummary, ...]:
        """The arms measured at one support size, in the report's order."""
        return tuple(arm for arm in self.arms if arm.shots == shots)

    def find(self, name: str, shots: int | None) -> ArmSummary | None:
        """The arm of that name; of two, the one that is private if and only if the setting is."""
        found = [arm for arm in self.at(shots) if arm.name == name]
        wanted = self.privacy.unit != "none"
        return next((arm for arm in found if arm.private == wanted), found[0] if found else None)

    @property
    def unadapted(self) -> ArmSummary | None:
        """The meta-model without a step, which has no support size of its own."""
        candidates = (self.headline_shots, 0, *self.shot_sizes)
        return next((arm for shots in candidates if (arm := self.find("meta", shots)) is not None), None)


def summarise(report: Report) -> tuple[SettingSummary, ...]:
    """One summary a setting (and metric), in the order of first appearance."""
    groups: dict[tuple[str, str], list[RunResult]] = {}
    for run in report.runs:
        groups.setdefault((run.setting, run.metric), []).append(run)
    return tuple(_setting(runs) for runs in groups.values())


def rows_by_shots(setting: SettingSummary) -> list[tuple[ArmSummary | None, ...]]:
    """One row an arm, one cell a support size in ``shot_sizes``; None where it was not measured.

    An arm may be private at one size and not at another: that is one row. Two arms of one name at the same
    size are two rows.
    """
    rows: dict[tuple[str, int], dict[int | None, ArmSummary]] = {}
    for arm in setting.arms:
        nth = 0
        while arm.shots in rows.get((arm.name, nth), {}):
            nth += 1
        rows.setdefault((arm.name, nth), {})[arm.shots] = arm
    return [tuple(row.get(shots) for shots in setting.shot_sizes) for row in rows.values()]


def without_privacy(setting: SettingSummary) -> tuple[int | None, ...]:
    """Support sizes at which nothing adapts privately, in a setting whose training is private."""
    if setting.privacy.unit == "none":
        return ()
    adapting = {shots: [arm for arm in setting.at(shots) if arm.name != "meta"] for shots in setting.shot_sizes}
    return tuple(shots for shots, arms in adapting.items() if arms and not any(arm.private for arm in arms))


def _setting(runs: list[RunResult]) -> SettingSummary:
    arms: dict[tuple[str, int | None, bool], dict[int, Arm]] = {}
    for position, run in enumerate(runs):
        for arm in run.arms:
            arms.setdefault((arm.name, arm.shots, arm.private), {})[position] = arm
    first = runs[0]
    return SettingSummary(
        setting=first.setting,
        metric=first.metric,
        higher_is_better=first.higher_is_better,
        runs=tuple(runs),
        arms=tuple(_arm(by_run, first.metric) for by_run in arms.values()),
        curve=_curve(runs),
        privacy=max((run.privacy for run in runs), key=_spent),
        secure=_together([run.secure for run in runs]),
        robust=_weakest([run.robust for run in runs]),
        audit=_least_trusted([run.audit for run in runs]),
        cost=_total([run.cost for run in runs]),
        left_out=_count(pair for run in runs for pair in run.excluded_clients),
        refused=_count(pair for run in runs for record in run.rounds for pair in record.excluded),
    )


def _arm(by_run: Mapping[int, Arm], metric: str) -> ArmSummary:
    first = next(iter(by_run.values()))
    names = dict.fromkeys(name for arm in by_run.values() for score in arm.scores for name in score.metrics)
    means = {
        name: {
            position: _mean([score.metrics.get(name, math.nan) for score in arm.scores])
            for position, arm in by_run.items()
        }
        for name in dict.fromkeys([metric, *names])
    }
    pooled = [score.metrics.get(metric, math.nan) for arm in by_run.values() for score in arm.scores]
    hurt = [arm.share_hurt for arm in by_run.values() if arm.share_hurt is not None]
    return ArmSummary(
        name=first.name,
        label=first.label,
        family=first.family,
        shots=first.shots,
        private=first.private,
        score=Spread.of(list(means[metric].values())),
        by_run=means[metric],
        percentiles=(_percentile(pooled, 10), _percentile(pooled, 50), _percentile(pooled, 90)),
        clients=len(pooled),
        share_hurt=fmean(hurt) if hurt else None,
        metrics={name: Spread.of(list(values.values())) for name, values in means.items()},
    )


def _curve(runs: list[RunResult]) -> tuple[CurveSummary, ...]:
    points: dict[int, list[tuple[float, float]]] = {}
    for run in runs:
        for point in run.curve:
            points.setdefault(point.round, []).append((point.before, point.after))
    return tuple(
        CurveSummary(number, Spread.of([b for b, _ in pairs]), Spread.of([a for _, a in pairs]))
        for number, pairs in sorted(points.items())
    )


def _spent(privacy: PrivacySummary) -> tuple[float, float]:
    """Order of accounts by what they spent, of examples first; no bound at all is the most."""
    example = math.inf if privacy.unit == "none" or privacy.epsilon is None else privacy.epsilon
    return example, math.inf if privacy.client is None else privacy.client.epsilon


def _together(found: Sequence[SecureSummary]) -> SecureSummary:
    clients = [one.client_cpu_seconds for one in found if one.client_cpu_seconds is not None]
    servers = [one.server_cpu_seconds for one in found if one.server_cpu_seconds is not None]
    return SecureSummary(
        mode=found[0].mode,
        groups_opened=sum(one.groups_opened for one in found),
        groups_lost=sum(one.groups_lost for one in found),
        smallest_sum=min(one.smallest_sum for one in found),
        attempts=sum(one.attempts for one in found),
        barred=sorted({client for one in found for client in one.barred}),
        client_cpu_seconds=fmean(clients) if clients else None,
        server_cpu_seconds=fmean(servers) if servers else None,
        plain_bytes_up=sum(one.plain_bytes_up for one in found),
        plain_bytes_down=sum(one.plain_bytes_down for one in found),
    )


def _weakest(found: Sequence[RobustSummary]) -> RobustSummary:
    return RobustSummary(
        rule=found[0].rule,
        corruption=found[0].corruption,
        withstood=min(one.withstood for one in found),
        rows=min(one.rows for one in found),
        outvoted=sorted({client for one in found for client in one.outvoted}),
    )


def _least_trusted(found: Sequence[AuditSummary | None]) -> AuditSummary | None:
    return next((one for one in found if one is not None and not one.verified), found[0])


def _total(costs: Sequence[Cost]) -> Cost:
    return Cost(
        cpu_seconds=sum(cost.cpu_seconds for cost in costs),
        training_cpu_seconds=sum(cost.training_cpu_seconds for cost in costs),
        wall_seconds=sum(cost.wall_seconds for cost in costs),
        bytes_down=sum(cost.bytes_down for cost in costs),
        bytes_up=sum(cost.bytes_up for cost in costs),
        peak_memory_bytes=max(cost.peak_memory_bytes for cost in costs),
    )


def _count(pairs: Iterable[tuple[str, str]]) -> tuple[Exclusion, ...]:
    return tuple(Exclusion(client, reason, n) for (client, reason), n in Counter(pairs).items())


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan


def _percentile(values: Sequence[float], percent: float) -> float:
    """Linear interpolation between order statistics, as ``numpy.percentile`` does by default."""
    if not values or not all(math.isfinite(value) for value in values):
        return math.nan
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])
