"""The ways to get a model for an unseen client that a report compares: ours, FedAvg, and what needs no federation."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from testudo_common.learning.learner import initial_vector
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import AuditPlan, CalibrationPlan, RobustAggregationPlan
from testudo_common.vectors import Vector
from testudo_server.store import RoundRecord, RunState, RunStore
from testudo_simulations.evaluation import Evaluator, Splits, in_target_unit
from testudo_simulations.federations.base import Federation
from testudo_simulations.inline_backend import Computing, federate_in_process
from testudo_simulations.results import Arm, ClientScore

OnProgress = Callable[[str, int, int], None]
"""Told (what is being done, steps done, steps in all)."""


def our_arms(
    evaluator: Evaluator, federation: Federation, splits: Splits, model: Vector, on_progress: OnProgress
) -> list[Arm]:
    """Scratch, meta-initialisation and adapted, at every support size."""
    plan = federation.plan
    sizes = list(splits)
    steps, scratch_steps = plan.evaluation.steps, plan.evaluation.scratch_steps
    initial = initial_vector(plan)
    arms: list[Arm] = []
    for done, shots in enumerate(sizes):
        on_progress("evaluation", done, len(sizes))
        before = evaluator.arm("meta", "meta-initialisation, no step", model, shots, 0)
        arms.append(before)
        if shots == 0:
            continue
        arms.append(evaluator.arm("scratch", f"local only, {scratch_steps} steps", initial, shots, scratch_steps))
        adapted = evaluator.arm("adapted", f"meta-initialisation, {steps} steps", model, shots, steps)
        hurt = evaluator.share_hurt(adapted.scores, before.scores)
        arms.append(adapted.model_copy(update={"share_hurt": hurt}))
    on_progress("evaluation", len(sizes), len(sizes))
    return arms


def comparison_arms(
    evaluator: Evaluator, federation: Federation, splits: Splits, computing: Computing, on_progress: OnProgress
) -> list[Arm]:
    """FedAvg with fine-tuning, and what needs no federation."""
    from testudo_simulations.baselines import run_baselines

    model = federated_averaging(federation, computing, on_progress)
    steps = federation.plan.evaluation.steps
    arms = [
        evaluator.arm("fedavg_finetuned", f"FedAvg, {steps} steps", model, shots, steps, family="federated")
        for shots in splits
        if shots != 0
    ]
    on_progress("baselines", 0, 1)
    rng = np.random.default_rng(federation.plan.seed)
    for arm in run_baselines(federation, splits, rng):
        scores = [
            ClientScore(client=score.client, metrics=in_target_unit(federation.plan, score.metrics))
            for score in arm.scores
        ]
        arms.append(arm.model_copy(update={"scores": scores}))
    on_progress("baselines", 1, 1)
    return arms


def federated_averaging(federation: Federation, computing: Computing, on_progress: OnProgress) -> Vector:
    """FedAvg (McMahan et al. 2017) with the same rounds, local steps and privacy: the model, ``float32[d]``.

    Its outer step is the plain mean, from the first round to the last. One client, one vote, as everywhere here;
    without secure aggregation, which would change its sums by rounding alone, without a robust rule, and without an
    audit log, which changes no number. Where sums carry noise for whole clients, they do here too.
    """
    plan = federation.plan
    outer = plan.outer.model_copy(update={"optimizer": "sgd", "step_size": 1.0, "anneal": False})
    mode = plan.secure_aggregation.mode if plan.client_private else "plain"
    in_clear = plan.secure_aggregation.model_copy(update={"mode": mode, "max_weight": 1})
    quiet = plan.evaluation.model_copy(update={"federated_every_rounds": None})
    changed_sections = {
        "outer": outer,
        "secure_aggregation": in_clear,
        "robust_aggregation": RobustAggregationPlan(),
        "evaluation": quiet,
        "calibration": CalibrationPlan(),
        "audit": AuditPlan(mode="off"),
    }
    averaging = FederationPlan.model_validate({**dict(plan), **changed_sections})
    changed = replace(federation, plan=averaging)

    def on_round(state: RunState, _record: RoundRecord) -> None:
        on_progress("FedAvg for comparison", state.round, plan.rounds.count)

    with tempfile.TemporaryDirectory(prefix="testudo-") as folder:
        store = RunStore(Path(folder), durable=False)
        clients = Path(folder) / "clients"
        run = federate_in_process(changed, store, clients, on_round=on_round, masks=False, computing=computing)
        return run.state.model
