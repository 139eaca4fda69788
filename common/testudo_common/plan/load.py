"""Plans as TOML files: read with every fault in one list, changed key by key, and written back."""

from __future__ import annotations

import copy
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

import tomli_w
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from testudo_common.errors import Fault, PlanError, UsageError
from testudo_common.plan import FederationPlan
from testudo_common.plan.checks import cross_faults
from testudo_common.plan.sections import Column, DataPlan

MAX_PLAN_BYTES = 1 << 20


def load_plan(path: Path, settings: Iterable[str] = ()) -> FederationPlan:
    """Read a plan.

    Args:
        path: A TOML file.
        settings: Changes as ``section.key=value``, made before the plan is checked.

    Raises:
        PlanError: The file is not there, not TOML, or not a valid plan; all faults in one list.
        UsageError: A setting is not of the form ``key=value``.
    """
    return parse_plan(read_tables(path), source=str(path), settings=settings)


def read_tables(path: Path) -> dict[str, Any]:
    """The raw tables of a plan file.

    Raises:
        PlanError: The file cannot be read, is too large, or is not TOML.
    """
    try:
        if path.stat().st_size > MAX_PLAN_BYTES:
            raise PlanError(
                [Fault("", f"larger than {MAX_PLAN_BYTES} bytes", "Name a plan, not a data file")],
                source=str(path),
            )
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise PlanError([Fault("", f"cannot be read: {reason}", "Check the path")], source=str(path)) from error
    except RecursionError as error:
        raise PlanError([Fault("", "nested too deeply", "A plan has sections of keys")], source=str(path)) from error
    except tomllib.TOMLDecodeError as error:
        raise PlanError([Fault("", f"not TOML: {error}", "Correct that line")], source=str(path)) from error


def parse_plan(tables: Mapping[str, Any], *, source: str, settings: Iterable[str] = ()) -> FederationPlan:
    """Check the tables of a plan and build it.

    Args:
        tables: As tomllib reads them.
        source: What to call the plan in an error.
        settings: Changes as ``section.key=value``.

    Raises:
        PlanError: With every fault of every section, and every fault across sections.
        UsageError: A setting is not of the form ``key=value``.
    """
    changed = apply_settings(tables, settings)
    sections: dict[str, object] = {}
    faults: list[Fault] = []
    for name, field in FederationPlan.model_fields.items():
        if name not in changed:
            if field.is_required():
                remedy = 'name = "my-federation"' if name == "name" else f"a [{name}] section"
                faults.append(Fault(name, "missing", f"Add {remedy}"))
            else:
                sections[name] = field.default
            continue
        adapter: TypeAdapter[Any] = TypeAdapter(DataPlan if name == "data" else _annotated(name))
        try:
            sections[name] = adapter.validate_python(changed[name])
        except ValidationError as error:
            faults.extend(_fault(name, detail, changed[name]) for detail in error.errors())
    faults.extend(
        _unknown(key, list(FederationPlan.model_fields), key)
        for key in changed
        if key not in FederationPlan.model_fields
    )
    faults.extend(cross_faults(sections))
    if faults:
        raise PlanError(faults, source=source)
    return FederationPlan.model_validate(sections)


def apply_settings(tables: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """A copy of ``tables`` with each ``section.key=value`` set; values are TOML, or else plain text.

    ``none`` takes a key out, so that its default counts.

    Raises:
        UsageError: A setting has no ``=`` or no key.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(tables))
    for setting in settings:
        key, equals, text = setting.partition("=")
        *parents, leaf = key.strip().split(".")
        if not equals or not leaf:
            raise UsageError(f"{setting!r} is not a setting", remedy="write it as section.key=value")
        table = changed
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise UsageError(f"{parent!r} in {setting!r} is not a section", remedy="write it as section.key=value")
        if text.strip() == "none":
            table.pop(leaf, None)
        else:
            table[leaf] = _value(text.strip())
    return changed


def dump_plan(plan: FederationPlan) -> str:
    """The plan as TOML, every key written out; reading it back gives the same digest."""
    return tomli_w.dumps(_without_none(plan.model_dump(mode="json")))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _annotated(name: str) -> Any:
    field = FederationPlan.model_fields[name]
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def _fault(section: str, detail: ErrorDetails, given: Any) -> Fault:
    tags = {
        name
        for member in get_args(get_args(DataPlan)[0])
        for name in get_args(member.model_fields["federation"].annotation)
    }
    # The union of federations puts its tag first.
    place = [str(part) for part in detail["loc"][section == "data" :]]
    key = ".".join([section, *place])
    if detail["type"] == "extra_forbidden":
        return _unknown(key, _known_keys(section, given, place), place[-1])
    if detail["type"] == "missing":
        return Fault(key, "missing", f"Add {key}")
    if detail["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        return Fault(f"{section}.federation", "not a federation we know", f"Write one of {', '.join(sorted(tags))}")
    shown = detail["input"] if isinstance(detail["input"], int | float | str | bool) else type(detail["input"]).__name__
    return Fault(key, f"{shown!r} cannot be used", f"{detail['msg']}{_describe(key)}")


def _known_keys(section: str, given: Any, place: list[str]) -> list[str]:
    if section == "data" and len(place) > 1:
        return list(Column.model_fields)
    if section != "data":
        annotation = FederationPlan.model_fields[section].annotation
        return list(getattr(annotation, "model_fields", {}))
    for member in get_args(get_args(DataPlan)[0]):
        if given.get("federation") in get_args(member.model_fields["federation"].annotation):
            return list(member.model_fields)
    return []


def _unknown(key: str, known: list[str], name: str) -> Fault:
    close = difflib.get_close_matches(name, known, n=1)
    remedy = f"Did you mean {close[0]!r}?" if close else f"Known here: {', '.join(known)}"
    return Fault(key, "unknown key", remedy)


def _describe(key: str) -> str:
    section, _, leaf = key.partition(".")
    if not leaf:
        return ""
    annotation = FederationPlan.model_fields[section].annotation
    field = getattr(annotation, "model_fields", {}).get(leaf)
    return f" ({field.description})" if field is not None and field.description else ""
