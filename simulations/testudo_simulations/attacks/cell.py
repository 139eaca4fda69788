"""One cell of the matrix: a whole run of a federation, some of whose clients are poisoned, judged on unseen clients."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from testudo_common.errors import AggregationError, ModelError, RoundError, UsageError
from testudo_common.learning.learner import initial_vector
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import parse_plan
from testudo_common.vectors import Vector
from testudo_server.aggregate import Settings, chain
from testudo_server.aggregate.base import Rows
from testudo_server.robust import outvoted
from testudo_server.store import RoundRecord, RunState, RunStore
from testudo_simulations.attacks.adversary import Adversary, Poison
from testudo_simulations.attacks.data import triggered
from testudo_simulations.attacks.defences import parse_defence, settings_of
from testudo_simulations.attacks.suite import BACKDOORS, IN_GROUPS_ONLY, NO_ATTACK, SUITE
from testudo_simulations.evaluation import Evaluator, Pairs, headline_of, make_splits
from testudo_simulations.federations import load_federation
from testudo_simulations.federations.base import Federation
from testudo_simulations.inline_backend import ONE_THREAD, engine_for, federate_in_process


@dataclass(frozen=True, slots=True)
class CellRequest:
    """What to run.

    Attributes:
        tables: Of the plan.
        source: What to call the plan in an error.
        settings: ``section.key=value``, before those of the defence.
        data: Path of the federation's data, or None.
        attack: Of the suite, or ``none``.
        defence: By its name.
        poisoned: f: clients that may be poisoned, and under an attack are.
        seed: Of the plan, and of who is poisoned.
        masks: Whether secure sums are masked; the mask-free ones have the same bits.
    """

    tables: Mapping[str, Any]
    source: str
    settings: tuple[str, ...]
    data: Path | None
    attack: str
    defence: str
    poisoned: int
    seed: int
    masks: bool = False


class Cell(BaseModel):
    """What a cell found.

    Attributes:
        attack: Its name.
        defence: Its name.
        poisoned: f.
        seed: Of the plan.
        score: Headline metric after adaptation, mean over unseen clients; NaN where the model is none any more.
        backdoor: Share of examples with the trigger that are taken for the target class; None where it was not tried.
        error: Distance of the aggregated update from the honest mean, in units of the honest updates' spread; mean
            over rounds; None with an outer optimiser that keeps no trace of the update.
        weight: Share of the updates' influence that poisoned clients, or groups with one, had; mean over rounds.
        named: Poisoned client -> the first round in which it was not asked any more, since strikes had named it.
        framed: Honest clients that were barred.
        outvoted: Poisoned clients that the report would list as outvoted, by the end.
        unlike: Honest clients that it would list.
        rounds: Finished.
        ended: Why the rounds ended early; empty if they did not.
        cpu_seconds: Of all of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    attack: str
    defence: str
    poisoned: int
    seed: int
    score: float
    backdoor: float | None
    error: float | None
    weight: float
    named: dict[str, int]
    framed: list[str]
    outvoted: list[str]
    unlike: list[str]
    rounds: int
    ended: str
    cpu_seconds: float


def federation_of(request: CellRequest) -> Federation:
    """The federation under the cell's defence.

    Raises:
        UsageError: The defence is none.
        PlanError: The plan cannot be used, or refuses so many poisoned clients.
    """
    # Hundreds of short runs that nobody audits, and no figure would change: there is no log, unless a setting asks.
    before = ["audit.mode=off", *request.settings, f"seed={request.seed}"]
    plan = parse_plan(request.tables, source=request.source, settings=before)
    clients = len(load_federation(plan, request.data).training)
    if 2 * request.poisoned >= clients:
        raise UsageError(
            f"{request.poisoned} of {clients} clients poisoned: no rule outvotes half of them",
            remedy=f"poison {(clients - 1) // 2} or fewer",
        )
    changed = settings_of(parse_defence(request.defence), plan, request.poisoned, clients)
    return load_federation(
        parse_plan(request.tables, source=request.source, settings=[*before, *changed]), request.data
    )


def run_cell(request: CellRequest) -> Cell:
    """Run a cell. That a round finds no way to close is a result; that a plan cannot be used is not.

    Raises:
        TestudoError: Plan, data or defence cannot be used, or the attack failed.
    """
    torch.set_num_threads(1)
    started = time.process_time()
    federation = federation_of(request)
    plan = federation.plan
    poison = SUITE.get(request.attack, Poison(request.attack))
    if request.attack in IN_GROUPS_ONLY and not plan.secure:
        raise UsageError(f"{request.attack} is an attack on secure sums", remedy="add +groups=M to the defence")
    drawn = np.random.default_rng([request.seed, 4]).permutation(sorted(federation.training))
    bad = frozenset(str(client) for client in drawn[: request.poisoned]) if request.attack in SUITE else frozenset()
    adversary = Adversary(
        poison,
        bad,
        defence=_defence(request, federation, len(bad)),
        max_norm=plan.outer.max_update_norm,
        amplification=plan.secure_aggregation.group_size if plan.secure else 1,
        seed=request.seed,
    )
    trace = _Trace(adversary, plan)
    ended = ""
    with tempfile.TemporaryDirectory(prefix="testudo-") as folder:
        store = RunStore(Path(folder), durable=False)
        try:
            federate_in_process(
                federation, store, None, on_round=trace.on_round, masks=request.masks, adversary=adversary
            )
        except (RoundError, AggregationError, ModelError) as error:
            ended = error.problem
        listed = sorted(outvoted(store.records()))
    if adversary.failure is not None:
        raise adversary.failure
    score, backdoor = _judge(federation, trace.model, backdoor=request.attack in (NO_ATTACK, *BACKDOORS))
    return Cell(
        attack=request.attack,
        defence=request.defence,
        poisoned=request.poisoned,
        seed=request.seed,
        score=score,
        backdoor=backdoor,
        error=trace.error,
        weight=trace.weight,
        named={client: number for client, number in sorted(trace.barred.items()) if client in bad},
        framed=sorted(client for client in trace.barred if client not in bad),
        outvoted=[client for client in listed if client in bad],
        unlike=[client for client in listed if client not in bad],
        rounds=trace.rounds,
        ended=ended,
        cpu_seconds=time.process_time() - started,
    )


def _defence(request: CellRequest, federation: Federation, bad: int) -> Any:
    """What an adaptive adversary takes the server to do with the updates, were it to see them one by one."""
    robust = federation.plan.robust_aggregation
    rule = chain(
        federation.plan.robust_rule,
        f=bad if federation.plan.robust_rule != ("mean",) else 0,
        settings=Settings(max_norm=robust.clip_norm, bucket_size=robust.bucket_size),
    )

    def defend(rows: Rows) -> Vector:
        return rule(rows, rng=np.random.default_rng(request.seed)).vector

    return defend


class _Trace:
    """What is noted of every round."""

    def __init__(self, adversary: Adversary, plan: FederationPlan) -> None:
        self.model = initial_vector(plan)
        self.barred: dict[str, int] = {}
        self.rounds = 0
        self._adversary = adversary
        self._plan = plan
        self._errors: list[float] = []
        self._weights: list[float] = []

    def on_round(self, state: RunState, record: RoundRecord) -> None:
        """Note one."""
        bad = self._adversary.poisoned
        for client in record.barred:
            self.barred.setdefault(client, record.round)
        self._weights.append(sum(share for members, share in record.influence if not bad.isdisjoint(members)))
        seen, step_size = self._adversary.seen.get(record.round), self._step_size(record.round)
        if seen is not None and step_size is not None and seen.spread > 0:
            update = (state.model.astype(np.float64) - self.model) / step_size
            self._errors.append(float(np.linalg.norm(update - seen.honest)) / seen.spread)
        self.model, self.rounds = state.model, record.round

    def _step_size(self, number: int) -> float | None:
        """What the round's update was multiplied by; None where the outer optimiser does more than that."""
        outer, rounds = self._plan.outer, self._plan.rounds.count
        if outer.optimizer != "sgd":
            return None
        return outer.step_size * (1.0 - (number - 1) / rounds if outer.anneal else 1.0)

    @property
    def error(self) -> float | None:
        """Mean over rounds."""
        return float(np.mean(self._errors)) if self._errors else None

    @property
    def weight(self) -> float:
        """Mean over rounds."""
        return float(np.mean(self._weights)) if self._weights else math.nan


def _judge(federation: Federation, model: Vector, *, backdoor: bool) -> tuple[float, float | None]:
    """Headline metric and backdoor success of a model after adaptation at the plan's largest support size."""
    plan = federation.plan
    splits = make_splits(federation)
    shots, steps = plan.evaluation.shots[-1], plan.evaluation.steps
    metric = headline_of(plan).metric
    if not np.isfinite(model).all():
        return math.nan, None
    engine, _ = engine_for(plan, ONE_THREAD)
    scores = Evaluator(federation, splits, engine).scores(model, shots, steps)
    score = float(np.mean([each.metrics[metric] for each in scores]))
    if not backdoor or plan.task.kind == "regression":
        return score, None
    marked: dict[int | None, dict[str, Pairs]] = {
        shots: {
            name: [(support, triggered(query)) for support, query in pairs] for name, pairs in splits[shots].items()
        }
    }
    taken = Evaluator(federation, marked, engine).scores(model, shots, steps)
    return score, float(np.mean([each.metrics["accuracy"] for each in taken]))
