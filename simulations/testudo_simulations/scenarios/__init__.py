"""The plans that come with the simulator, by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from testudo_common.errors import UsageError
from testudo_common.plan.load import read_tables

_FOLDER = Path(str(files(__package__)))


def scenario_names() -> list[str]:
    """Names of the plans that come with the simulator."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def scenario_about(name: str) -> str:
    """The comment on top of a scenario's file: what it is, one line."""
    first = (_FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines()[0]
    return first.lstrip("# ")


def find_plan(name_or_path: str) -> tuple[dict[str, Any], str]:
    """The raw tables of a scenario or of a plan file, and what to call it.

    Raises:
        UsageError: It is neither.
        PlanError: The file is not TOML.
    """
    if name_or_path in scenario_names():
        return read_tables(_FOLDER / f"{name_or_path}.toml"), name_or_path
    path = Path(name_or_path)
    if not path.exists():
        raise UsageError(
            f"{name_or_path!r} is neither a scenario nor a file",
            remedy=f"name one of {', '.join(scenario_names())}, or the path of a plan",
        )
    return read_tables(path), name_or_path
