"""What watching remembers between checks: one JSON file, replaced in one step after every check.

By example::

    {"version": 3, "newest": 3, "seen": 412, "checks": 8, "proposals": 0, "settings": {"level": 0.04, ...},
     "state": {"state": "warned", "flags": 1}}

A process that is killed before the file is replaced makes the same check again, of the same rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testudo_client.watching.drift import LEAST, LEVEL
from testudo_client.watching.policy import MANY, State, Steady
from testudo_common.errors import UsageError
from testudo_common.files import make_private, write_atomically

FILE = "watch.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Settings(_Frozen):
    """How to check; kept, so that a command need not repeat them.

    Attributes:
        level: Of a check: how often it may flag something while nothing drifts.
        least: Answers since the last check, below which none is made.
        many: Flagged checks in a row after which a round is proposed.
        stream: A detector of River's on losses, besides the tests; None: none.
    """

    level: float = Field(LEVEL, gt=0, lt=0.5)
    least: int = Field(50, ge=LEAST)
    many: int = Field(MANY, ge=1)
    stream: Literal["adwin", "page-hinkley"] | None = None


class WatchState(_Frozen):
    """All of it.

    Attributes:
        version: In use at the last check.
        newest: Number of the newest version then, in use or not.
        seen: Number of the newest observation that was checked.
        table: SHA-256 of the rows of the last file that was checked, hex; empty for none. The same file again is
            looked at, and not counted again.
        checks: Made so far, of all versions.
        proposals: Made so far.
        settings: How.
        state: Of the policy.
    """

    version: int
    newest: int
    seen: int = 0
    table: str = ""
    checks: int = 0
    proposals: int = 0
    settings: Settings = Settings()
    state: State = Steady()


def read_state(folder: Path) -> WatchState | None:
    """What the owner's ``state`` folder remembers; None where nothing was watched yet.

    Raises:
        UsageError: The file is damaged.
    """
    path = folder / FILE
    try:
        return WatchState.model_validate_json(path.read_bytes()) if path.exists() else None
    except (OSError, ValidationError) as error:
        raise UsageError(
            "what watching remembers is damaged", where=str(path), remedy="move it away: it begins anew"
        ) from error


def write_state(folder: Path, state: WatchState) -> None:
    """Replace it.

    Raises:
        UsageError: It cannot be written.
    """
    try:
        make_private(folder)
        write_atomically(folder / FILE, state.model_dump_json().encode())
    except OSError as error:
        problem = f"what watching remembers cannot be written: {error.strerror or 'no reason given'}"
        raise UsageError(problem, where=str(folder / FILE), remedy="make room") from error
