"""Adapts a published meta-model to every unseen client at once, and asks each adapted model about that client's rows.

Scores nothing: what comes out is what ``testudo_client.judging`` scores. Adapts and calibrates as a client would by
itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from testudo_client.judging.answered import Answered
from testudo_client.judging.robustness import Change, unchanged
from testudo_client.personal.adapting import support_size
from testudo_client.personal.few_shot import FewShot, folds_of
from testudo_client.personal.own_model import LEVEL, Classes, Intervals
from testudo_client.personal.sureness import sureness
from testudo_common.learning.calibration import nearest_prior, tempered
from testudo_common.learning.conformal import Conformal
from testudo_common.learning.inner_loop import InnerLoop, LocalCentre
from testudo_common.learning.tasks import Examples, Targets
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import TableData
from testudo_common.publication import PublishedModel
from testudo_simulations.adaptation import Adaptation, Adapter, Outputs
from testudo_simulations.evaluation import Pairs, make_splits
from testudo_simulations.federations.base import Federation

_PAIRS_AT_ONCE = 32  # whose changed queries are held at once
_SMALLEST = np.finfo(np.float32).tiny


def clients_pairs(federation: Federation) -> dict[int | None, Mapping[str, Pairs]]:
    """Support and query sets of every unseen client at every support size above 0.

    Each size is scored on the same rows, save for episodes, which are drawn for each. None as size: the whole support
    set, where a client has a query set apart from it.
    """
    plan = federation.plan
    found: dict[int | None, Mapping[str, Pairs]] = {}
    largest = max(plan.evaluation.shots)
    for size, clients in make_splits(federation).items():
        if size == 0:
            continue
        found[size] = {
            name: _later_rows(federation.unseen[name].support, size, largest)
            if plan.task.kind != "few_shot" and federation.unseen[name].query is None and size is not None
            else pairs
            for name, pairs in clients.items()
        }
    return found


def _later_rows(support: Examples, size: int, largest: int) -> Pairs:
    return [(support.take(slice(0, size)), support.take(slice(largest, None)))]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Answers of all clients' models.

    Attributes:
        answered: Rows of the clients whose model answers, one client after the other; ``clients`` are places.
        raw: The same before calibration.
        diverged: Places of the clients whose training diverged; their rows are left out.
    """

    answered: Answered = field(repr=False)
    raw: Answered = field(repr=False)
    diverged: tuple[int, ...]

    def without(self, clients: Sequence[int]) -> Answered:
        """Without the rows of some clients."""
        return self.answered.take(np.flatnonzero(~np.isin(self.answered.clients, clients)))


@dataclass(frozen=True, slots=True)
class _Job:
    """A model to make, and what to ask it: one client's rows, once a change, or a fold of its support set."""

    support: Examples
    asked: tuple[Examples, ...]

    def adaptation(self, plan: FederationPlan, loop: InnerLoop) -> Adaptation:
        centre = LocalCentre.of(self.support, plan.task.local_centring)
        inputs = np.concatenate([centre.subtract(one).inputs for one in self.asked])
        return Adaptation(centre.subtract(self.support), inputs, loop, np.random.default_rng(plan.seed))

    def raw(self, plan: FederationPlan, outputs: Outputs) -> list[Outputs]:
        """Logits, or predictions in the scaled target, of each of what was asked."""
        if plan.task.kind == "regression":
            found = outputs + np.float32(LocalCentre.of(self.support, plan.task.local_centring).target)
        else:
            found = np.log(np.maximum(outputs, _SMALLEST))
        return np.split(found, np.cumsum([len(one) for one in self.asked])[:-1])


@dataclass(frozen=True, slots=True)
class _Told:
    """What one model answered.

    Attributes:
        place: Of its client.
        targets: What was true, after each change.
        raw: Logits, or predictions in the scaled target, after each change; None where its training diverged.
        temperature: Of its probabilities.
        conformal: Of its sets or intervals.
    """

    place: int
    targets: tuple[Targets, ...] = field(repr=False)
    raw: tuple[Outputs, ...] | None = field(repr=False)
    temperature: float
    conformal: Conformal = field(repr=False)


class AskedClients:
    """All unseen clients at one support size.

    Args:
        adapter: All at once, or each by itself.
        clients: Name -> its pairs.
        shots: Support size.
        level: Nominal coverage.
    """

    def __init__(self, adapter: Adapter, clients: Mapping[str, Pairs], shots: int | None, level: float = LEVEL) -> None:
        self._adapter, self._shots, self._level = adapter, shots, level
        self._pairs = [(place, *pair) for place, own in enumerate(clients.values()) for pair in own]

    def as_published(self, published: PublishedModel) -> Outcome:
        """What the model itself answers, around each client's means where the plan centres."""
        plan, nobody = published.plan, Conformal.of(np.empty(0))
        jobs = [_Job(support, (query,)) for _, support, query in self._pairs]
        outputs = self._outputs(published, jobs, FewShot.of(plan, steps=0).loop)
        told = [
            _told(place, job, plan, output, (1.0, nobody))
            for (place, *_), job, output in zip(self._pairs, jobs, outputs, strict=True)
        ]
        return _outcomes(plan, told, self._level)[0]

    def adapted(self, published: PublishedModel, changes: Sequence[Change] = (unchanged,)) -> list[Outcome]:
        """What every client's own model answers, after each change of what it is asked; each is made once."""
        told: list[_Told] = []
        for first in range(0, len(self._pairs), _PAIRS_AT_ONCE):
            told += self._adapted(published, changes, self._pairs[first : first + _PAIRS_AT_ONCE])
        return _outcomes(published.plan, told, self._level)

    def _adapted(
        self, published: PublishedModel, changes: Sequence[Change], pairs: Sequence[tuple[int, Examples, Examples]]
    ) -> Iterator[_Told]:
        plan = published.plan
        jobs = [_Job(support, tuple(change(query) for change in changes)) for _, support, query in pairs]
        folds = [_folds(support) for _, support, _ in pairs]
        every = [job for own, parts in zip(jobs, folds, strict=True) for job in (own, *(part for _, part in parts))]
        outputs = self._outputs(published, every, FewShot.of(plan).loop)
        for (place, *_), job, parts in zip(pairs, jobs, folds, strict=True):
            output = next(outputs)
            raw: Outputs | None = None
            for rows, part in parts:
                (answers,) = part.raw(plan, next(outputs))
                raw = np.empty((len(job.support), *answers.shape[1:]), dtype=np.float32) if raw is None else raw
                raw[rows] = answers
            usable = raw if raw is not None and np.isfinite(raw).all() else None
            prior = nearest_prior(published.priors, self._prior_shots(plan, job.support))
            sure = sureness(plan, prior, usable, job.support if usable is not None else job.support.take(slice(0, 0)))
            yield _told(place, job, plan, output, sure)

    def _outputs(self, published: PublishedModel, jobs: Sequence[_Job], loop: InnerLoop) -> Iterator[Outputs]:
        plan = published.plan
        return self._adapter.outputs(published.model, (job.adaptation(plan, loop) for job in jobs))

    def _prior_shots(self, plan: FederationPlan, support: Examples) -> float:
        if self._shots is not None:
            return self._shots
        return support_size(support, regression=plan.task.kind == "regression")


def _told(place: int, job: _Job, plan: FederationPlan, output: Outputs, sure: tuple[float, Conformal]) -> _Told:
    targets = tuple(one.targets for one in job.asked)
    return _Told(place, targets, tuple(job.raw(plan, output)) if np.isfinite(output).all() else None, *sure)


def _outcomes(plan: FederationPlan, told: Sequence[_Told], level: float) -> list[Outcome]:
    """One a change."""
    diverged = {one.place for one in told if one.raw is None}
    kept = [one for one in told if one.place not in diverged]
    plain = [replace(one, temperature=1.0) for one in kept]
    return [
        Outcome(_together(plan, kept, turn, level), _together(plan, plain, turn, level), tuple(sorted(diverged)))
        for turn in range(len(told[0].targets))
    ]


def _folds(support: Examples) -> list[tuple[npt.NDArray[np.intp], _Job]]:
    """Rows left out, and the job that answers them; none for a single example."""
    if len(support) < 2:
        return []
    places = folds_of(support)
    rows = [np.flatnonzero(places == fold) for fold in np.unique(places)]
    return [(one, _Job(support.take(np.delete(np.arange(len(support)), one)), (support.take(one),))) for one in rows]


def _together(plan: FederationPlan, told: Sequence[_Told], turn: int, level: float) -> Answered:
    """Rows of all clients in one, after one of the changes."""
    raw = [one.raw[turn] for one in told if one.raw is not None]
    targets = [one.targets[turn] for one in told]
    clients = np.repeat([one.place for one in told], [len(own) for own in targets]).astype(np.intp)
    sure = any(len(one.conformal.scores) > 0 for one in told)
    if plan.task.kind == "regression":
        none = np.empty(0)
        exact = np.concatenate([none, *(own.astype(np.float64) for own in raw)])
        ends = zip(raw, told, strict=True)
        half = np.concatenate([none, *(np.full(len(own), one.conformal.threshold(level)) for own, one in ends)])
        answers: Classes | Intervals = Intervals(*(_unscaled(plan, one) for one in (exact, exact - half, exact + half)))
        return Answered(_unscaled(plan, np.concatenate([none, *targets])), answers, clients, sure)
    nothing: npt.NDArray[Any] = np.empty((0, plan.model.outputs or 0), dtype=np.float32)
    probabilities = [tempered(own, one.temperature) for own, one in zip(raw, told, strict=True)]
    sets = [one.conformal.sets(own, level) for own, one in zip(probabilities, told, strict=True)]
    classes = Classes(np.concatenate([nothing, *probabilities]), np.concatenate([nothing.astype(np.bool_), *sets]))
    return Answered(np.concatenate([np.empty(0, dtype=np.int64), *targets]).astype(np.int64), classes, clients, sure)


def _unscaled(plan: FederationPlan, scaled: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """In the target's unit, or its logarithm: in the unit itself, a mean over clients would be that of the largest."""
    if not isinstance(plan.data, TableData):
        return scaled
    return scaled * (plan.data.target_scale or 1.0) + (plan.data.target_center or 0.0)
