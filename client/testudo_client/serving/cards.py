"""What a caller may know of the version in use: its model card, and its contract as JSON Schema."""

from __future__ import annotations

from typing import Any

from testudo_client.personal.contract import ContractField, FeatureContract
from testudo_client.personal.personalizer import Personalizer
from testudo_common.plan.sections import TableData

_KEPT_BACK = {"rows_digest", "losses", "promoted", "files"}


def model_card(own: Personalizer) -> dict[str, Any]:
    """How the version came about and what it was compared with, without anything of single rows."""
    version = own.version
    record = version.record.model_dump(mode="json", exclude=_KEPT_BACK)
    for contender in record["contenders"]:
        del contender["loss"]
        contender["metrics"] = {name: value for name, value in contender["metrics"].items() if value is not None}
    data = version.own.plan.data
    target = {"target": data.target, "target_unit": data.target_unit} if isinstance(data, TableData) else {}
    return {
        "version": record.pop("id"),
        **record,
        "plan": version.own.plan.name,
        "task": version.own.plan.task.kind,
        **target,
        "labels": list(version.own.labels),
        "temperature": version.own.temperature,
        "level": own.level,
        "fields": [_field(field) for field in version.contract.fields],
    }


def _field(field: ContractField) -> dict[str, Any]:
    column = field.column
    return {
        "name": column.name, "kind": column.kind, "unit": column.unit, "missing": column.missing, "low": field.low,
        "high": field.high, "categories": list(column.categories),
    }  # fmt: skip


def contract_schema(contract: FeatureContract) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of one row of a request."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:sha256:{contract.digest}",
        "title": "One row of a request",
        "type": "object",
        "properties": {field.column.name: _property(field) for field in contract.fields},
        "required": [field.column.name for field in contract.fields if not field.column.missing],
        "additionalProperties": False,
    }


def _property(field: ContractField) -> dict[str, Any]:
    column = field.column
    if column.kind == "category":
        values: list[str | None] = [*column.categories, *([None] if column.missing else [])]
        return {"enum": values}
    found: dict[str, Any] = {"type": ["number", "null"] if column.missing else "number"}
    if field.low is not None:
        found |= {"minimum": field.low, "maximum": field.high}
    if column.unit:
        found["description"] = column.unit
    return found
