"""A policy as a TOML file: read with every fault in one list. Only its owner may be able to write it.

What others can write is not the owner's policy: its file and its folder are checked before its words are.
"""

from __future__ import annotations

import difflib
import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from testudo_client.policy.sections import OwnerPolicy
from testudo_common.errors import Fault, PolicyError

MAX_POLICY_BYTES = 1 << 20
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_NOT_THE_WORD = "literal['any']"  # half of what pydantic says of a pin that is neither the word nor a list


def load_policy(path: Path) -> OwnerPolicy:
    """Read a policy.

    Args:
        path: A TOML file that nobody but its owner can write.

    Raises:
        PolicyError: It is missing, writable by others, not TOML, or not a policy; all faults in one list.
    """
    try:
        tables = tomllib.loads(_read(path).decode("utf-8"))
    except FileNotFoundError as error:
        fault = Fault("", "no policy, so nothing is allowed", f"Make one with testudo-client init {path.parent}")
        raise PolicyError([fault], source=str(path), problem="there is no policy") from error
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror}", "Check the path") from error
    except UnicodeDecodeError as error:
        raise _unreadable(path, "not UTF-8 text", "Write it as text") from error
    except RecursionError as error:
        raise _unreadable(path, "nested too deeply", "A policy has sections of keys") from error
    except tomllib.TOMLDecodeError as error:
        raise _unreadable(path, f"not TOML: {error}", "Correct that line") from error
    return parse_policy(tables, source=str(path))


def parse_policy(tables: dict[str, Any], *, source: str) -> OwnerPolicy:
    """Check the tables of a policy and build it.

    Args:
        tables: As tomllib reads them.
        source: What to call the policy in an error.

    Raises:
        PolicyError: With every fault of every section.
    """
    try:
        # By way of JSON, where strict types still let a list be a tuple and a day be a date.
        return OwnerPolicy.model_validate_json(json.dumps(tables, default=str))
    except ValidationError as error:
        details = error.errors(include_url=False)
        faults = [_fault(detail) for detail in details if _NOT_THE_WORD not in detail["loc"]]
    except (ValueError, RecursionError):  # a number or a nesting that JSON does not have
        faults = [Fault("", "holds what no policy holds", "See docs/policy.md")]
    count = len(faults)
    raise PolicyError(faults, source=source, problem=f"{count} fault{'s' if count != 1 else ''} in the policy")


def _read(path: Path) -> bytes:
    """The bytes of a file of which mode and owner were checked on the very file that is read."""
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise _unreadable(path, "not a file", "Check the path")
        if found.st_mode & _OTHERS_MAY_WRITE:
            raise _unreadable(
                path, "others may write it, so it may not be yours", f"Read it through, then chmod 600 {path}"
            )
        if found.st_uid not in (os.geteuid(), 0):
            raise _unreadable(path, "it belongs to somebody else", "Use a policy of your own")
        folder = path.resolve().parent
        if folder.stat().st_mode & _OTHERS_MAY_WRITE:
            raise _unreadable(path, "others may replace it: they may write its folder", f"chmod go-w {folder}")
        if found.st_size > MAX_POLICY_BYTES:
            raise _unreadable(path, f"larger than {MAX_POLICY_BYTES} bytes", "Name a policy, not a data file")
        return file.read(MAX_POLICY_BYTES)


def _unreadable(path: Path, problem: str, remedy: str) -> PolicyError:
    return PolicyError([Fault("", problem, remedy)], source=str(path), problem="the policy cannot be used")


def _fault(detail: ErrorDetails) -> Fault:
    place = [part for part in detail["loc"] if not str(part).startswith("tuple[")]
    key = ".".join(map(str, place))
    model = _section_at(place[:-1])
    if detail["type"] == "extra_forbidden":
        known = list(model.model_fields) if model else []
        close = difflib.get_close_matches(str(place[-1]), known, n=1)
        return Fault(key, "unknown key", f"Did you mean {close[0]!r}?" if close else f"Known here: {', '.join(known)}")
    if detail["type"] == "missing":
        return Fault(key, "missing", f"Add {key}: {_description(model, place)}".rstrip(": "))
    if detail["type"] == "value_error":
        return Fault(key, str(detail["ctx"]["error"]), "Correct one of them")
    return Fault(
        key, f"{_shown(detail['input'])} cannot be used", f"{detail['msg']}: {_description(model, place)}".rstrip(": ")
    )


def _shown(value: object) -> str:
    return repr(value)[:80] if isinstance(value, int | float | str | bool) else type(value).__name__


def _section_at(place: list[int | str]) -> type[BaseModel] | None:
    """The section in which a key stands."""
    model: type[BaseModel] | None = OwnerPolicy
    for part in place:
        field = model.model_fields.get(str(part)) if model is not None else None
        model = _section_in(field.annotation) if field is not None else model if isinstance(part, int) else None
    return model


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The one section that an annotation such as ``Limits | None`` or ``tuple[Rule, ...] | None`` holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [_section_in(part) for part in getattr(annotation, "__args__", ())]
    return next((part for part in found if part is not None), None)


def _description(model: type[BaseModel] | None, place: list[int | str]) -> str:
    names = [part for part in place if isinstance(part, str)]
    field = model.model_fields.get(names[-1]) if model is not None and names else None
    return (field.description or "") if field is not None else ""
