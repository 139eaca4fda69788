"""Adapts a published meta-model to every unseen client at once, and asks each adapted model about that client's rows.

Scores nothing: what comes out is what ``testudo_client.judging`` scores. Adapts and calibrates as a client would by
itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from testudo_client.judging.answered import Answered
from testudo_client.judging.few_shot import sureness
from testudo_client.judging.robustness import Change, unchanged
from testudo_client.personal.few_shot import FewShot, folds_of
from testudo_client.personal.own_model import LEVEL, Classes, Intervals
from testudo_common.learning.calibration import tempered
from testudo_common.learning.conformal import Conformal
from testudo_common.learning.inner_loop import InnerLoop, LocalCentre
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import TableData
from testudo_common.publication import PublishedModel
from testudo_simulations.adaptation import Adaptation, Adapter, Outputs
from testudo_simulations.evaluation import Pairs, make_splits
from testudo_simulations.federations.base import Federation

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
        jobs = [_Job(support, (query,)) for _, support, query in self._pairs]
        plan, nobody = published.plan, Conformal.of(np.empty(0))
        outputs = list(self._outputs(published, jobs, FewShot.of(plan, steps=0).loop))
        return self._outcomes(plan, jobs, outputs, [(1.0, nobody) for _ in jobs])[0]

    def adapted(self, published: PublishedModel, changes: Sequence[Change] = (unchanged,)) -> list[Outcome]:
        """What every client's own model answers, after each change of what it is asked; each is made once."""
        plan = published.plan
        jobs = [_Job(support, tuple(change(query) for change in changes)) for _, support, query in self._pairs]
        folds = [_folds(support) for _, support, _ in self._pairs]
        every = [job for own, parts in zip(jobs, folds, strict=True) for job in (own, *(part for _, part in parts))]
        outputs = self._outputs(published, every, FewShot.of(plan).loop)
        own_outputs, sure = [], []
        for job, parts in zip(jobs, folds, strict=True):
            own_outputs.append(next(outputs))
            raw: Outputs | None = None
            for rows, part in parts:
                (answers,) = part.raw(plan, next(outputs))
                raw = np.empty((len(job.support), *answers.shape[1:]), dtype=np.float32) if raw is None else raw
                raw[rows] = answers
            usable = raw if raw is not None and np.isfinite(raw).all() else None
            sure.append(sureness(plan, published.priors, self._prior_shots(plan, job.support), usable, job.support))
        return self._outcomes(plan, jobs, own_outputs, sure)

    def _outputs(self, published: PublishedModel, jobs: Sequence[_Job], loop: InnerLoop) -> Iterator[Outputs]:
        plan = published.plan
        return self._adapter.outputs(published.model, (job.adaptation(plan, loop) for job in jobs))

    def _prior_shots(self, plan: FederationPlan, support: Examples) -> float:
        if self._shots is not None:
            return self._shots
        return len(support) / (1 if plan.task.kind == "regression" else max(1, len(np.unique(support.targets))))

    def _outcomes(
        self,
        plan: FederationPlan,
        jobs: Sequence[_Job],
        outputs: Sequence[Outputs],
        sure: Sequence[tuple[float, Conformal]],
    ) -> list[Outcome]:
        """One a change."""
        diverged = {self._pairs[n][0] for n, own in enumerate(outputs) if not np.isfinite(own).all()}
        kept = [n for n in range(len(jobs)) if self._pairs[n][0] not in diverged]
        raw = {n: jobs[n].raw(plan, outputs[n]) for n in kept}
        found = []
        for turn in range(len(jobs[0].asked)):
            parts = [(self._pairs[n][0], jobs[n].asked[turn], raw[n][turn], *sure[n]) for n in kept]
            plain = [(place, queries, own, 1.0, conformal) for place, queries, own, _, conformal in parts]
            found.append(
                Outcome(
                    _together(plan, parts, self._level), _together(plan, plain, self._level), tuple(sorted(diverged))
                )
            )
        return found


def _folds(support: Examples) -> list[tuple[npt.NDArray[np.intp], _Job]]:
    """Rows left out, and the job that answers them; none for a single example."""
    if len(support) < 2:
        return []
    places = folds_of(support)
    rows = [np.flatnonzero(places == fold) for fold in np.unique(places)]
    return [(one, _Job(support.take(np.delete(np.arange(len(support)), one)), (support.take(one),))) for one in rows]


def _together(
    plan: FederationPlan, parts: Sequence[tuple[int, Examples, Outputs, float, Conformal]], level: float
) -> Answered:
    """Rows of all clients in one."""
    clients = np.repeat([place for place, *_ in parts], [len(queries) for _, queries, *_ in parts]).astype(np.intp)
    targets = [queries.targets for _, queries, *_ in parts]
    sure = any(len(conformal.scores) > 0 for *_, conformal in parts)
    if plan.task.kind == "regression":
        none = np.empty(0)
        exact = np.concatenate([none, *(raw.astype(np.float64) for _, _, raw, *_ in parts)])
        half = np.concatenate([none, *(np.full(len(raw), own.threshold(level)) for _, _, raw, _, own in parts)])
        answers: Classes | Intervals = Intervals(*(_unscaled(plan, one) for one in (exact, exact - half, exact + half)))
        return Answered(_unscaled(plan, np.concatenate([none, *targets])), answers, clients, sure)
    nothing: npt.NDArray[Any] = np.empty((0, plan.model.outputs or 0), dtype=np.float32)
    told = [tempered(raw, temperature) for _, _, raw, temperature, _ in parts]
    sets = [own.sets(probabilities, level) for probabilities, (*_, own) in zip(told, parts, strict=True)]
    classes = Classes(np.concatenate([nothing, *told]), np.concatenate([nothing.astype(np.bool_), *sets]))
    return Answered(np.concatenate([np.empty(0, dtype=np.int64), *targets]).astype(np.int64), classes, clients, sure)


def _unscaled(plan: FederationPlan, scaled: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """In the target's unit, or its logarithm: in the unit itself, a mean over clients would be that of the largest."""
    if not isinstance(plan.data, TableData):
        return scaled
    return scaled * (plan.data.target_scale or 1.0) + (plan.data.target_center or 0.0)
