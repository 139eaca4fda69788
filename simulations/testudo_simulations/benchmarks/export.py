"""What an exported own model takes beside the version itself in torch: untrained nets of two sizes, one thread."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from testudo_client.exporting.exporting import Export, export
from testudo_client.exporting.files import missing_for_onnx
from testudo_client.exporting.results import FORMATS, ExportReport, Format
from testudo_client.exporting.rows import made_up
from testudo_client.personal.contract import ContractField, FeatureContract
from testudo_client.personal.own_model import OwnModel
from testudo_client.personal.versions import Version, VersionRecord
from testudo_common.learning.conformal import Conformal
from testudo_common.learning.inner_loop import LocalCentre
from testudo_common.learning.learner import initial_vector
from testudo_common.plan.load import parse_plan
from testudo_common.plan.sections import TableData
from testudo_simulations.benchmarks.measure import Measurement

HIDDEN = ((64, 64), (1024, 1024))
COLUMNS, LABELS = 40, 6
CALLS = 50  # for each of the repeats asked for


def measure_export(repeats: int) -> list[Measurement]:
    """Median time of a call of each file, kept or refused, over that of the version in use; and memory beside torch's.

    Without the extra ``export``, of the torch program alone.
    """
    formats: tuple[Format, ...] = ("torch",) if missing_for_onnx() else FORMATS
    found: list[Measurement] = []
    for hidden in HIDDEN:
        version, rng = untrained(hidden), np.random.default_rng(0)
        with tempfile.TemporaryDirectory() as folder:
            rows = made_up(version.contract, rng)
            report = export(Export(version, rows, Path(folder), formats, repeats=CALLS * repeats), rng)
        found += measurements_of(report, f"hidden layers {', '.join(map(str, hidden))}")
    return found


def measurements_of(report: ExportReport, case: str) -> Iterator[Measurement]:
    """An export's table as measurements.

    Args:
        report: With a torch program among the files.
        case: What was exported.
    """
    torch = next(one for one in report.files if one.format == "torch")
    for one in report.files:
        for rows, latency in one.latency.items():
            named = f"{case}: {one.file}, {rows} row{'s' if rows > 1 else ''} a call"
            reference = report.reference[rows].p50
            yield Measurement(named, "wall_seconds", "s", latency.p50, reference, "the version in use, in torch")
        if one.memory_bytes is not None and one is not torch:
            known = None if torch.memory_bytes is None else torch.memory_bytes / 2**20
            yield Measurement(
                f"{case}: {one.file}", "peak_memory", "MiB", one.memory_bytes / 2**20, known, "torch program"
            )


def untrained(hidden: tuple[int, ...]) -> Version:
    """A version of numbers that nobody made from data.

    Args:
        hidden: Widths of its layers.
    """
    columns = [{"name": f"x{place}"} for place in range(COLUMNS)]
    labels = [f"y{place}" for place in range(LABELS)]
    tables: dict[str, Any] = {
        "name": "untrained",
        "data": {"federation": "csv", "client": "who", "target": "what", "columns": columns, "labels": labels},
        "task": {"kind": "classification"},
        "model": {"name": "mlp", "hidden": list(hidden), "inputs": [COLUMNS], "outputs": LABELS},
    }
    plan = parse_plan(tables, source="the benchmark")
    assert isinstance(plan.data, TableData)
    contract = FeatureContract(
        fields=tuple(ContractField(column=column, low=-3.0, high=3.0) for column in plan.data.columns or ())
    )
    centre, nobody = LocalCentre(np.zeros(COLUMNS, dtype=np.float32), 0.0), Conformal.of(np.empty(0))
    record = VersionRecord(
        id=1, created="", kind="initialisation", meta_model="", meta_round=0, plan_digest=plan.digest,
        contract_digest=contract.digest, rows=0, steps=0, private=False, epsilon=None, stays=False, contenders=(),
        promoted=False, reason="to be measured",
    )  # fmt: skip
    return Version(record, OwnModel(plan, initial_vector(plan), centre, 1.0, nobody), contract)
