"""What anybody may know of a run while it is on: one small file, written whole, read by the status page and by scripts.

Holds names, counts and times; no update, no score of one client, no key.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testudo_common.errors import UsageError
from testudo_common.files import write_atomically

STATUS_FILE = "status.json"
State = Literal["starting", "waiting", "running", "finished", "failed", "stopped"]


class RunStatus(BaseModel):
    """A run as it stood when the file was written.

    ``federation``, ``plan`` and ``plan_digest`` name it. ``connected`` of ``expected`` owners are there. Of the last
    finished round: how many were asked, whose updates count, and how many do not; seconds it took. ``epsilon`` is the
    most that any owner can have spent under this plan, by unit of privacy. ``log_size`` entries stand in the audit
    log; ``cosigned_by`` owners signed the last checkpoint, and ``quorum`` have to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    federation: str
    plan: str
    plan_digest: str
    state: State
    started: datetime
    updated: datetime
    round: int = Field(0, ge=0)
    rounds: int = Field(ge=1)
    expected: int = Field(0, ge=0)
    connected: int = Field(0, ge=0)
    asked: int = Field(0, ge=0)
    counted: int = Field(0, ge=0)
    left_out: int = Field(0, ge=0)
    attempts: int = Field(0, ge=0)
    round_seconds: tuple[float, ...] = Field((), description="of every finished round, the last hundred")
    bytes_down: int = Field(0, ge=0, description="payload, all rounds")
    bytes_up: int = Field(0, ge=0, description="payload, all rounds")
    epsilon: dict[str, float] = Field(default_factory=dict, description="unit of privacy -> the most spent by an owner")
    log_size: int = Field(0, ge=0)
    cosigned_by: int = Field(0, ge=0)
    quorum: int = Field(0, ge=0)
    error: str = Field("", description="the sentence that ended the run, empty if none did")


def write_status(folder: Path, status: RunStatus) -> None:
    """Replace ``status.json`` in a run's folder."""
    write_atomically(folder / STATUS_FILE, status.model_dump_json(indent=2).encode(), durable=False)


def read_status(folder: Path) -> RunStatus:
    """The status in a run's folder.

    Raises:
        UsageError: There is none, or it is not one.
    """
    path = folder / STATUS_FILE
    try:
        return RunStatus.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}", where=str(path), remedy="name the folder of a run"
        ) from error
    except ValidationError as error:
        raise UsageError("not a run's status", where=str(path), remedy="name the folder of a run") from error
