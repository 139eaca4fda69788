"""Adapts a published meta-model to every unseen client at once, and asks each adapted model about that client's rows.

Scores nothing: what comes out is what ``testudo_client.judging`` scores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from testudo_client.judging.answered import Answered
from testudo_client.judging.few_shot import sureness
from testudo_client.judging.robustness import Change, unchanged
from testudo_client.personal.own_model import LEVEL, Classes, Intervals
from testudo_common.learning.calibration import tempered
from testudo_common.learning.conformal import Conformal
from testudo_common.learning.inner_loop import InnerLoop, LocalCentre
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import TableData
from testudo_common.publication import PublishedModel
from testudo_simulations.adaptation import Adaptation, Adapter
from testudo_simulations.evaluation import Pairs, make_splits
from testudo_simulations.federations.base import Federation

_SMALLEST = np.finfo(np.float32).tiny


def clients_pairs(federation: Federation) -> dict[int | None, Mapping[str, Pairs]]:
    """Support and query sets of every unseen client at every support size above 0.

    Each size is scored on the same rows, save for episodes, which are drawn for each. None as size: the whole support
    set, where a client has a query set apart from it, and the plan is not private: that one adapts under privacy.
    """
    plan = federation.plan
    found: dict[int | None, Mapping[str, Pairs]] = {}
    largest = max(plan.evaluation.shots)
    for size, clients in make_splits(federation).items():
        if size == 0 or (size is None and plan.private):
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
        diverged: Places of the clients whose training diverged; their rows are left out.
    """

    answered: Answered = field(repr=False)
    diverged: tuple[int, ...]

    def without(self, clients: Sequence[int]) -> Answered:
        """Without the rows of some clients."""
        return self.answered.take(np.flatnonzero(~np.isin(self.answered.clients, clients)))


class AskedClients:
    """All unseen clients at one support size.

    Args:
        adapter: All at once, or each by itself.
        clients: Name -> its pairs.
        shots: Support size.
        level: Nominal coverage.
    """

    def __init__(self, adapter: Adapter, clients: Mapping[str, Pairs], shots: int | None, level: float = LEVEL) -> None:
        self._adapter, self._clients, self._shots, self._level = adapter, clients, shots, level

    def ask(self, published: PublishedModel, steps: int, changes: Sequence[Change] = (unchanged,)) -> list[Outcome]:
        """What every client's model answers, after each change of what it is asked.

        Args:
            published: Where all of them start; of 0 steps, it is asked itself.
            steps: Of adaptation.
            changes: Of the queries; each model is adapted once.
        """
        plan = published.plan
        pairs = [(place, *pair) for place, own in enumerate(self._clients.values()) for pair in own]
        asked = [[change(query) for change in changes] for _, _, query in pairs]
        outputs = list(self._adapter.outputs(published.model, self._adaptations(plan, steps, asked)))
        temperature, conformal = sureness(published.priors, self._shots) if steps else (1.0, Conformal.of(np.empty(0)))
        diverged = {place for (place, *_), own in zip(pairs, outputs, strict=True) if not np.isfinite(own).all()}
        kept = [number for number, (place, *_) in enumerate(pairs) if place not in diverged]
        found = []
        for turn in range(len(changes)):
            parts = []
            for number in kept:
                place, support, _ = pairs[number]
                start = sum(len(one) for one in asked[number][:turn])
                own = outputs[number][start : start + len(asked[number][turn])]
                if plan.task.kind == "regression":
                    own = own + np.float32(LocalCentre.of(support, plan.task.local_centring).target)
                parts.append((place, asked[number][turn], own))
            found.append(Outcome(_together(plan, parts, temperature, conformal, self._level), tuple(sorted(diverged))))
        return found

    def _adaptations(
        self, plan: FederationPlan, steps: int, asked: Sequence[Sequence[Examples]]
    ) -> Iterator[Adaptation]:
        rate = plan.evaluation.learning_rate or plan.inner.learning_rate
        loop = InnerLoop(steps, rate, plan.inner.sample_rate if self._shots is None else 1.0)
        queries = iter(asked)
        for name, pairs in self._clients.items():
            label = f"{plan.seed}|adaptation|{name}|{self._shots}".encode()
            seeded = np.random.default_rng(int.from_bytes(hashlib.sha256(label).digest()[:16], "big"))
            for support, _ in pairs:
                centre = LocalCentre.of(support, plan.task.local_centring)
                inputs = np.concatenate([centre.subtract(one).inputs for one in next(queries)])
                yield Adaptation(centre.subtract(support), inputs, loop, seeded)


def _together(
    plan: FederationPlan,
    parts: Sequence[tuple[int, Examples, npt.NDArray[np.float32]]],
    temperature: float,
    conformal: Conformal,
    level: float,
) -> Answered:
    """Rows of all clients in one."""
    width = plan.model.outputs or 1
    regression = plan.task.kind == "regression"
    empty = np.empty(0, dtype=np.float32) if regression else np.empty((0, width), dtype=np.float32)
    outputs = np.concatenate([empty, *(own for *_, own in parts)])
    clients = np.repeat([place for place, *_ in parts], [len(own) for *_, own in parts]).astype(np.intp)
    targets = np.concatenate([np.empty(0), *(_truth(plan, queries) for _, queries, _ in parts)])
    sure = len(conformal.scores) > 0
    if regression:
        exact, half = outputs.astype(np.float64), conformal.threshold(level)
        answers: Classes | Intervals = Intervals(*(_unscaled(plan, one) for one in (exact, exact - half, exact + half)))
        return Answered(targets, answers, clients, sure)
    if temperature != 1.0:
        outputs = tempered(np.log(np.maximum(outputs, _SMALLEST)), temperature)
    return Answered(targets.astype(np.int64), Classes(outputs, conformal.sets(outputs, level)), clients, sure)


def _truth(plan: FederationPlan, queries: Examples) -> npt.NDArray[Any]:
    if plan.task.kind == "regression":
        return _unscaled(plan, queries.targets.astype(np.float64))
    return queries.targets.astype(np.int64)


def _unscaled(plan: FederationPlan, scaled: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """In the target's unit, or its logarithm: in the unit itself, a mean over clients would be that of the largest."""
    if not isinstance(plan.data, TableData):
        return scaled
    return scaled * (plan.data.target_scale or 1.0) + (plan.data.target_center or 0.0)
