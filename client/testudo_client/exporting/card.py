"""``model.json`` beside exported files: how to ask them without Testudo, and what was measured. Made, not written."""

from __future__ import annotations

from typing import Any

from testudo_client.exporting.files import INPUTS
from testudo_client.exporting.results import ExportReport
from testudo_client.personal.own_model import LEVEL
from testudo_client.personal.versions import Version
from testudo_common.learning.columns import columns_of_table
from testudo_common.plan.sections import Column, TableData

FORMAT = "testudo-export-1"
CARD, CONTRACT = "model.json", "contract.json"


def card_of(version: Version, report: ExportReport) -> dict[str, Any]:
    """All that asking the files takes.

    Args:
        version: That was exported.
        report: What came of it.
    """
    own, record = version.own, version.record
    data = own.plan.data
    assert isinstance(data, TableData)  # a version has a table's contract
    columns = data.columns or ()
    threshold = own.conformal.threshold(LEVEL)
    known = threshold if threshold < float("inf") else None
    outputs: dict[str, Any] = {"dtype": "float32"}
    if own.regression:
        outputs |= {
            "name": "values",
            "shape": ["rows"],
            "unit": data.target_unit,
            "level": LEVEL,
            **_interval(data, known),
        }
    else:
        least = None if known is None else 1.0 - known
        outputs |= {"name": "probabilities", "shape": ["rows", len(own.labels)], "labels": list(own.labels)}
        outputs |= {"level": LEVEL, "possible_if_at_least": least}
    return {
        "format": FORMAT,
        "version": record.id,
        "created": record.created,
        "stays_with_the_owner": record.stays,
        "meta_model": record.meta_model,
        "meta_round": record.meta_round,
        "plan": own.plan.name,
        "plan_digest": record.plan_digest,
        "contract_digest": record.contract_digest,
        "inputs": {
            "name": INPUTS,
            "dtype": "float32",
            "shape": ["rows", *(own.plan.model.inputs or ())],
            "columns": [
                _encoding(column, place.start) for column, place in zip(columns, columns_of_table(columns), strict=True)
            ],
            "how": "All zeros, and then of each column in turn: a number at its place as (number - center) / scale, of "
            "its natural logarithm where transform is log; a category as 1 at its place plus that of the category in "
            "the list; an empty cell as 1 at empty_at.",
        },
        "outputs": outputs,
        "measured": report.model_dump(mode="json"),
    }


def _encoding(column: Column, start: int) -> dict[str, Any]:
    width = len(column.categories) or 1
    told: dict[str, Any] = {"name": column.name, "kind": column.kind, "at": start}
    if column.kind == "category":
        told["categories"] = list(column.categories)
    else:
        told |= {"unit": column.unit, "transform": column.transform, "center": column.center, "scale": column.scale}
    return {**told, "empty_at": start + width if column.missing else None}


def _interval(data: TableData, half: float | None) -> dict[str, Any]:
    """From a value to its interval: by adding, or by multiplying where logarithms are learnt."""
    scale = data.target_scale or 1.0
    if half is None:
        return {"interval": None}
    if data.target_transform == "log":
        return {"interval": {"kind": "factor", "log_half_width": half * scale}}
    return {"interval": {"kind": "sum", "half_width": half * scale}}
