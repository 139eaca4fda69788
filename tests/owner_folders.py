"""Folders of made-up owners with something of everything in them, for tests of reports. Holds no test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from own_models import CLINIC, NOON, SHOP, make_version, store_with
from policies import make_home, private_plan
from testudo_client.approve_command import approve_plan
from testudo_client.home import OwnerHome
from testudo_client.judging.results import (
    EVALUATION_FILE,
    Comparison,
    Evaluation,
    ModelName,
    Score,
    ScoreTable,
    ShiftScore,
    Slice,
)
from testudo_client.ledger import Occasion, Purpose
from testudo_client.observations import Observations
from testudo_client.personal.versions import Contender, Version
from testudo_common.plan import FederationPlan
from testudo_common.privacy.events import SampledGaussian, Spending

SECRET_ROW = 71.53125
"""A value of a single row, which no report may hold."""


def with_gate(version: Version, *contenders: Contender, **changes: Any) -> Version:
    """The version with what its gate compared."""
    record = version.record.model_copy(update={"contenders": contenders, **changes})
    return Version(record, version.own, version.contract)


def contenders(**metrics: dict[str, float]) -> tuple[Contender, ...]:
    return tuple(Contender(name=name, metrics=found, loss=0.5, examples=40) for name, found in metrics.items())


def clinic_versions() -> tuple[Version, Version]:
    """Two versions of a classifier; the second is promoted over the first."""
    found = contenders(
        adapted={"accuracy": 0.85, "ece": 0.05},
        initialisation={"accuracy": 0.7, "ece": 0.12},
        majority={"accuracy": 0.6, "ece": 0.0},
    )
    secret = {"rows_digest": ("5ec4e7",) * 3, "losses": (SECRET_ROW,) * 3}
    return make_version(1), with_gate(make_version(2), *found, reason="better than all others", **secret)


def observe(folder: Path, version: Version, count: int, *, told: int, seed: int = 0) -> None:
    """Some answers of a version, of which the first ``told`` have an outcome."""
    rng = np.random.default_rng(seed)
    inputs = np.full((count, 5), SECRET_ROW, dtype=np.float32)
    if version.own.regression:
        outputs = rng.normal(0, 0.4, (count, 1)).astype(np.float32)
        truth = outputs[:, 0] + rng.normal(0, 0.3, count)
    else:
        likely = rng.uniform(0.5, 1.0, count)
        outputs = np.stack([likely, 1 - likely], axis=1).astype(np.float32)
        truth = (rng.uniform(size=count) > likely).astype(float)
    targets = np.where(np.arange(count) < told, truth, np.nan)
    observations = Observations(folder / "state")
    observations.add(version.record.id, [None] * count, inputs, outputs, targets)
    observations.close()


def charge(home: OwnerHome, plan: FederationPlan, rounds: int) -> None:
    """Trainings of so many rounds, as the node charges them."""
    ledger = home.ledger(home.policy())
    spending = Spending(example=(SampledGaussian(1.5, 0.1, 2),))
    for number in range(1, rounds + 1):
        occasion = Occasion(plan.digest, number, 0, Purpose.TRAINING)
        ledger.reserve(occasion, plan_name=plan.name, fingerprint="5d" * 32, spending=spending)


def evaluation_of(version: Version, **changes: Any) -> Evaluation:
    """What a harness would have found of a classifier."""
    score = Score(value=0.8, low=0.7, high=0.9)
    plan = version.own.plan
    slices = [
        Slice(column="ward", value="east", rows=30, clients=1, score=score, rest=0.78, p_value=0.6,
              verdict="not worse"),
        Slice(column="ward", value="west", rows=20, clients=1, score=Score(value=0.5, low=0.3, high=0.7), rest=0.85,
              p_value=0.01, verdict="worse"),
    ]  # fmt: skip
    model = ModelName(digest=version.record.meta_model, round=4, version=version.record.id)
    found = Evaluation(
        created=NOON.isoformat(), kind="own_model", model=model, plan=plan.name, plan_digest=plan.digest,
        task="classification", source="new.csv", headline="accuracy", loss_metric="accuracy", level=0.9,
        tables=(ScoreTable(arm="in_use", shots=None, rows=50, clients=1,
                           metrics={"accuracy": score, "ece": Score(value=0.06), "coverage": Score(value=0.9)}),),
        slices=tuple(slices),
        shifts=(ShiftScore(shift="noise", about="adds noise to numbers", metrics={"accuracy": score},
                           change=Score(value=-0.1, low=-0.2, high=0.0)),),
        comparisons=(Comparison(before=model, shots=None, metric="accuracy", value=0.8, value_before=0.75,
                                gain=Score(value=0.05, low=0.01, high=0.1), margin=0.02, rows=50, clients=1,
                                verdict="better"),),
    )  # fmt: skip
    return found.model_copy(update=changes)


def whole_clinic(folder: Path) -> OwnerHome:
    """An owner with policy, approval, ledger, log, two versions, answers, and an evaluation; without an audit log."""
    home = make_home(folder)
    plan = private_plan()
    approve_plan(plan, home)
    charge(home, plan, rounds=3)
    home.log.write(
        "refused", plan=plan.digest, round_number=2, attempt=0, reason="not_approved", sentence="not approved"
    )
    versions = clinic_versions()
    store_with(folder, *versions)
    observe(folder, versions[-1], 400, told=300)
    (folder / EVALUATION_FILE).write_text(evaluation_of(versions[-1]).model_dump_json())
    return home


def shop(folder: Path) -> OwnerHome:
    """A shop with forecasts, and nothing of a federation."""
    home = make_home(folder, "client='corner shop'")
    found = contenders(adapted={"mae": 41.0, "rmse": 60.2}, majority={"mae": 77.5, "rmse": 90.0})
    version = with_gate(make_version(1, SHOP), *found)
    store_with(folder, version)
    observe(folder, version, 60, told=40)
    return home


__all__ = ["CLINIC", "SECRET_ROW", "charge", "clinic_versions", "contenders", "evaluation_of", "observe", "shop",
           "whole_clinic", "with_gate"]  # fmt: skip
