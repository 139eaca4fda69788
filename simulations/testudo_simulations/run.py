"""One run of a plan on one machine: federate, evaluate on unseen clients, compare. Prints nothing, draws nothing.

Sweeps over settings and seeds are in sweep.py, what a person sees in cli.py and report/.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from testudo_common.errors import UsageError
from testudo_common.files import write_atomically
from testudo_common.learning.learner import initial_vector
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import dump_plan
from testudo_common.vectors import Vector, vector_digest
from testudo_server.coordinator import OnRound
from testudo_server.robust import outvoted
from testudo_server.store import RoundRecord, RunState, RunStore
from testudo_simulations.accounts import Busiest, privacy_summary, run_statement
from testudo_simulations.arms import OnProgress, comparison_arms, our_arms
from testudo_simulations.audit_summary import audit_summary
from testudo_simulations.evaluation import Evaluator, headline_of, make_splits
from testudo_simulations.federations import load_federation
from testudo_simulations.federations.base import Federation
from testudo_simulations.inline_backend import ONE_THREAD, Computing, TrainingPath, engine_for, federate_in_process
from testudo_simulations.results import (
    Cost,
    CurvePoint,
    RobustSummary,
    RunResult,
    TrainingSummary,
)
from testudo_simulations.results import RoundRecord as RoundResult
from testudo_simulations.secure_summary import secure_summary

Backend = Literal["inline", "mask-free", "ray"]
CURVE_CLIENTS = 10
_RESULT = "result.json"


def _no_progress(_what: str, _done: int, _total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to run.

    Attributes:
        plan: May be incomplete where the data completes it.
        data: Path of the federation's data, or None.
        out: Folder of this run.
        setting: What a sweep changed; empty outside one.
        backend: ``inline`` in this process, ``mask-free`` the same without the masks of secure aggregation, ``ray`` on
            Flower's simulation runtime.
        computing: What the clients are trained on; not on Ray, where each is trained by itself.
        ray_address: Of the Ray cluster to run on, ``host:port``; empty: one that is started on this machine.
        comparisons: Also run FedAvg with fine-tuning and the non-federated baselines.
        resume: Go on with the run in ``out``; without, a run found there is an error.
    """

    plan: FederationPlan
    data: Path | None
    out: Path
    setting: str = ""
    backend: Backend = "inline"
    computing: Computing = ONE_THREAD
    ray_address: str = ""
    comparisons: bool = True
    resume: bool = False


def run(request: RunRequest, on_progress: OnProgress = _no_progress) -> RunResult:
    """Run a plan and measure it; the result is also kept as ``result.json`` in ``request.out``.

    Raises:
        UsageError: ``request.out`` holds a run already, or another plan's.
        TestudoError: Plan, data, model or rounds cannot be used; finished rounds are kept.
    """
    started_wall, started_cpu = time.perf_counter(), time.process_time()
    torch.set_num_threads(1)
    federation = load_federation(request.plan, request.data)
    plan = federation.plan
    if finished := _finished(request, plan):
        return finished
    store = _open(request, plan)
    splits = make_splits(federation)
    evaluator = Evaluator(federation, splits, engine_for(plan, request.computing)[0])
    curve = [_curve_point(evaluator, plan, 0, initial_vector(plan))]
    if request.resume and store.exists:
        curve = _curve_kept(request.out, store.load(plan.digest).round) or curve

    def on_round(state: RunState, _record: RoundRecord) -> None:
        if state.round % plan.evaluation.every_rounds == 0 or state.round == plan.rounds.count:
            curve.append(_curve_point(evaluator, plan, state.round, state.model))
            _keep_curve(request.out, curve)
        on_progress("federated rounds", state.round, plan.rounds.count)

    before_training = time.process_time()
    state, measured = _federate(request, federation, store, on_round)
    training_cpu_seconds = time.process_time() - before_training
    arms = our_arms(evaluator, federation, splits, state.model, on_progress)
    if request.comparisons:
        arms += comparison_arms(evaluator, federation, splits, request.computing, on_progress)
    records = store.records()
    busiest = Busiest.of(plan, state, records)
    result = RunResult(
        name=plan.name,
        setting=request.setting,
        seed=plan.seed,
        plan_digest=plan.digest,
        plan=plan.model_dump(mode="json"),
        backend=request.backend,
        training=_training_summary(request, measured.training, records),
        model_digest=vector_digest(state.model),
        parameters=len(state.model),
        metric=headline_of(plan).metric,
        higher_is_better=headline_of(plan).higher_is_better,
        federation=federation.source,
        training_clients=len(federation.training),
        unseen_clients=len(federation.unseen),
        excluded_clients=[(exclusion.client, exclusion.reason) for exclusion in federation.excluded],
        privacy=privacy_summary(plan, busiest),
        statement=run_statement(plan, busiest),
        secure=secure_summary(
            plan, records, len(state.model), measured.secure_cpu, masks=request.backend != "mask-free"
        ),
        robust=_robust_summary(plan, records),
        audit=audit_summary(plan, request.out, records, measured.audit_cpu) if plan.audited else None,
        rounds=[_round_result(record) for record in records],
        curve=curve,
        arms=arms,
        cost=Cost(
            cpu_seconds=time.process_time() - started_cpu,
            training_cpu_seconds=training_cpu_seconds,
            wall_seconds=time.perf_counter() - started_wall,
            bytes_down=sum(record.bytes_down for record in records),
            bytes_up=sum(record.bytes_up for record in records),
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        ),
    )
    write_atomically(request.out / _RESULT, result.model_dump_json(indent=1).encode(), durable=False)
    return result


@dataclass(frozen=True, slots=True)
class _Measured:
    """Of all clients together: how they were trained, and CPU seconds where they were here from the first round on."""

    training: TrainingPath
    secure_cpu: float | None = None
    audit_cpu: float | None = None


def _federate(
    request: RunRequest, federation: Federation, store: RunStore, on_round: OnRound
) -> tuple[RunState, _Measured]:
    resume = request.resume and store.exists
    if request.backend != "ray":
        run = federate_in_process(
            federation,
            store,
            request.out / "clients",
            resume=resume,
            on_round=on_round,
            masks=request.backend == "inline",
            computing=request.computing,
        )
        if resume:
            return run.state, _Measured(run.training)
        return run.state, _Measured(run.training, run.secure_client_cpu_seconds, run.audit_client_cpu_seconds)
    from testudo_simulations.ray_backend import federate_on_ray

    state = federate_on_ray(
        federation, request.data, request.out, store, address=request.ray_address, resume=resume, on_round=on_round
    )
    return state, _Measured(TrainingPath(why_not="on Ray, each client is trained in a worker"))


def _training_summary(request: RunRequest, path: TrainingPath, records: Sequence[RoundRecord]) -> TrainingSummary:
    return TrainingSummary(
        engine=path.engine,
        why_not=path.why_not,
        at_once=path.at_once,
        asked=sum(len(record.cohort) for record in records),
        device=request.computing.device,
        threads=request.computing.threads,
    )


def _open(request: RunRequest, plan: FederationPlan) -> RunStore:
    store = RunStore(request.out, durable=False)
    if store.exists and not request.resume:
        raise UsageError(
            "there is a run here already, and it is not overwritten",
            where=str(request.out),
            remedy="go on with it by --resume, or choose another --out",
        )
    write_atomically(request.out / "plan.toml", dump_plan(plan).encode(), durable=False)
    return store


def _finished(request: RunRequest, plan: FederationPlan) -> RunResult | None:
    path = request.out / _RESULT
    if not request.resume or not path.exists():
        return None
    try:
        result = RunResult.model_validate_json(path.read_bytes())
    except ValueError:
        return None  # damaged: it is computed again from the checkpoint
    return result if result.plan_digest == plan.digest else None


def _curve_point(evaluator: Evaluator, plan: FederationPlan, round_number: int, model: Vector) -> CurvePoint:
    shots = plan.evaluation.shots[-1]
    before = evaluator.scores(model, shots, 0, clients=CURVE_CLIENTS)
    after = evaluator.scores(model, shots, plan.evaluation.steps, clients=CURVE_CLIENTS)
    return CurvePoint(round=round_number, before=evaluator.headline_mean(before), after=evaluator.headline_mean(after))


def _keep_curve(out: Path, curve: list[CurvePoint]) -> None:
    lines = "".join(f"{point.model_dump_json()}\n" for point in curve)
    write_atomically(out / "curve.jsonl", lines.encode(), durable=False)


def _curve_kept(out: Path, last_round: int) -> list[CurvePoint]:
    path = out / "curve.jsonl"
    if not path.exists():
        return []
    points = [CurvePoint.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [point for point in points if point.round <= last_round]


def _robust_summary(plan: FederationPlan, records: Sequence[RoundRecord]) -> RobustSummary:
    return RobustSummary(
        rule=list(plan.robust_rule),
        corruption=plan.robust_aggregation.corruption,
        withstood=min((record.withstood for record in records), default=0),
        rows=min((len(record.influence) for record in records), default=0),
        outvoted=list(outvoted(records)),
    )


def _round_result(record: RoundRecord) -> RoundResult:
    excluded: Mapping[str, str] = dict(record.excluded)
    return RoundResult(
        round=record.round,
        cohort=list(record.cohort),
        survivors=[client for client in record.cohort if client not in excluded],
        excluded=list(record.excluded),
        mean_update_norm=record.mean_update_norm,
        seconds=record.seconds,
        influence=[(list(members), share) for members, share in record.influence],
        metrics={name: dict(values) for name, values in record.metrics.items()},
        metric_noise={name: dict(values) for name, values in record.metric_noise.items()},
        withheld={name: dict(values) for name, values in record.withheld.items()},
        clip=record.clip,
    )
