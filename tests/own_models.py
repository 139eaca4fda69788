"""Small own models for tests: a version of a classifier and of a regression, made by hand, without adapting."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from testudo_client.personal.contract import FeatureContract
from testudo_client.personal.own_model import OwnModel
from testudo_client.personal.versions import Version, VersionRecord, VersionStore
from testudo_client.table import Table
from testudo_common.learning.conformal import Conformal
from testudo_common.learning.inner_loop import LocalCentre
from testudo_common.learning.learner import read_parameters
from testudo_common.learning.models import build_model
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import parse_plan

NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)
CLINIC: dict[str, Any] = {
    "name": "clinics",
    "data": {
        "federation": "csv",
        "client": "clinic",
        "target": "ill",
        "columns": [
            {"name": "age", "unit": "years", "center": 50.0, "scale": 20.0},
            {"name": "pressure", "unit": "mmHg", "center": 120.0, "scale": 15.0, "missing": True},
            {"name": "ward", "kind": "category", "categories": ["east", "west"]},
        ],
        "labels": ["no", "yes"],
    },
    "task": {"kind": "classification"},
    "model": {"name": "mlp", "hidden": [8], "inputs": [5], "outputs": 2},
    "rounds": {"count": 4, "cohort_size": 2, "max_participations": 4},
    "secure_aggregation": {"mode": "plain"},
}
SHOP: dict[str, Any] = {
    "name": "demand",
    "data": {
        "federation": "csv",
        "client": "shop",
        "target": "sold",
        "order": "week",
        "columns": [{"name": "price", "unit": "EUR", "transform": "log"}, {"name": "display"}],
        "target_transform": "log",
        "target_center": 5.0,
        "target_scale": 0.5,
    },
    "task": {"kind": "regression", "local_centring": "inputs_and_targets"},
    "model": {"name": "linear", "inputs": [2], "outputs": 1},
    "rounds": {"count": 4, "cohort_size": 2, "max_participations": 4},
    "secure_aggregation": {"mode": "plain"},
}
CLINIC_ROWS: list[dict[str, Any]] = [
    {"age": 30.0, "pressure": 110.0, "ward": "east"},
    {"age": 71.5, "pressure": None, "ward": "west"},
]
SHOP_ROWS: list[dict[str, Any]] = [{"price": 2.5, "display": 0.1}, {"price": 3.0, "display": 0.0}]


def clinic_table(rows: int = 40, seed: int = 0) -> Table:
    """Made-up patients: the old with a high pressure are ill."""
    rng = np.random.default_rng(seed)
    age, pressure = rng.uniform(20, 90, rows), rng.normal(125, 15, rows)
    ill = (age - 50) / 20 + (pressure - 120) / 15 + rng.normal(0, 0.5, rows) > 0
    ward = rng.choice(["east", "west"], rows)
    cells = tuple(
        ("c1", f"{a:.1f}", f"{p:.1f}", w, "yes" if y else "no")
        for a, p, w, y in zip(age, pressure, ward, ill, strict=True)
    )
    return Table("clinic.csv", ("clinic", "age", "pressure", "ward", "ill"), tuple(range(2, rows + 2)), cells)


def shop_table(rows: int = 30, seed: int = 0) -> Table:
    """Made-up weeks: dearer sells less, a display sells more."""
    rng = np.random.default_rng(seed)
    price, display = rng.uniform(2, 4, rows), rng.uniform(0, 1, rows)
    sold = np.exp(6.5 - 1.5 * np.log(price) + 0.4 * display + rng.normal(0, 0.2, rows))
    cells = tuple(
        ("s1", str(week), f"{p:.2f}", f"{d:.2f}", f"{y:.1f}")
        for week, (p, d, y) in enumerate(zip(price, display, sold, strict=True))
    )
    return Table("shop.csv", ("shop", "week", "price", "display", "sold"), tuple(range(2, rows + 2)), cells)


def write_csv(path: Path, table: Table) -> Path:
    """The table as a file."""
    lines = [",".join(table.columns), *(",".join(row) for row in table.rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def plan_of(tables: dict[str, Any], *settings: str) -> FederationPlan:
    """A plan of one of the above, with ``section.key=value`` changed."""
    return parse_plan(tables, source="test", settings=settings)


def make_version(number: int = 1, tables: dict[str, Any] | None = None, *, sharpness: float = 1.0) -> Version:
    """A version whose parameters are the plan's initial ones times ``sharpness``, with twenty made-up scores."""
    plan = plan_of(tables or CLINIC)
    assert plan.model.inputs is not None
    regression = plan.task.kind == "regression"
    vector = read_parameters(build_model(plan.model, plan.seed).parameters()) * np.float32(sharpness)
    centre = LocalCentre(np.zeros(plan.model.inputs, dtype=np.float32), 0.25 if regression else 0.0)
    own = OwnModel(plan, vector, centre, 1.0 if regression else 1.5, Conformal.of(np.linspace(0.05, 0.95, 20)))
    table = shop_table() if regression else clinic_table()
    contract = FeatureContract.of(plan.data, table)  # type: ignore[arg-type]  # of a table, both
    record = VersionRecord(
        id=number, created=NOON.isoformat(), kind="adapted", meta_model="0" * 64, meta_round=4,
        plan_digest=plan.digest, contract_digest=contract.digest, rows=len(table), steps=30, private=False,
        epsilon=None, stays=True, contenders=(), promoted=True, reason="made for a test",
    )  # fmt: skip
    return Version(record, own, contract)


def store_with(folder: Path, *versions: Version) -> VersionStore:
    """A store that holds the versions, the last one in use."""
    store = VersionStore(folder)
    with store.changing():
        for version in versions:
            store.add(version)
            store.use(version.record.id, "promoted", NOON)
    return store
