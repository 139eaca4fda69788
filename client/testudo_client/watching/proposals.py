"""Proposals of a federated round: files in the owner's folder, for a person to answer. Nothing is sent.

A round spends epsilon on the owner's data, so no program decides it. What a proposal holds may be shown to the
federation: names of columns and p-values, no data.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from testudo_common.errors import UsageError
from testudo_common.files import make_private, write_atomically

FOLDER = "proposals"

Answer = Literal["open", "accepted", "dismissed", "overtaken"]


class Flagged(BaseModel):
    """One test that flagged.

    Attributes:
        family: Of ``inputs``, ``outputs`` or ``outcomes``.
        name: Column, class, or what of the outcomes.
        adjusted: Its p after the correction.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    family: str
    name: str
    adjusted: float


class Proposal(BaseModel):
    """One proposal.

    Attributes:
        number: 1 and up.
        time: UTC, ISO 8601.
        version: In use then.
        plan: Name of its plan.
        plan_digest: Of its plan, hex.
        meta_model: Digest of the meta-model it was adapted from, hex.
        reason: ``gate``: adapting again was not promoted; ``many``: that many flagged checks stood in a row.
        flags: Flagged checks in a row.
        flagged: What the last check found.
        answer: What became of it; ``overtaken``: a new version was promoted meanwhile.
        answered: When, UTC; None while it is open.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    number: int = Field(ge=1)
    time: str
    version: int
    plan: str
    plan_digest: str
    meta_model: str
    reason: Literal["gate", "many"]
    flags: int
    flagged: tuple[Flagged, ...] = ()
    answer: Answer = "open"
    answered: str | None = None

    def sentence(self) -> str:
        """For a person."""
        why = {
            "gate": "adapting again did not help",
            "many": f"flagged checks stood in a row: {self.flags}",
        }[self.reason]
        seen = ", ".join(f"{one.family} {one.name}" for one in self.flagged) or "nothing at the last check"
        return (
            f"{self.number}  {self.time}  {self.answer}: a round of {self.plan!r} for version {self.version}, since"
            f" {why}; flagged: {seen}"
        )


def write_proposal(state: Path, proposal: Proposal) -> Path:
    """Keep it under its number; one of the same number is replaced, since a check may be made again after a kill.

    Args:
        state: The owner's ``state`` folder.
        proposal: To keep.

    Raises:
        UsageError: It cannot be written.
    """
    path = state / FOLDER / f"{proposal.number}.json"
    try:
        make_private(path.parent)
        write_atomically(path, proposal.model_dump_json(indent=2).encode())
    except OSError as error:
        problem = f"the proposal cannot be written: {error.strerror or 'no reason given'}"
        raise UsageError(problem, where=str(path), remedy="make room") from error
    return path


def read_proposals(state: Path) -> list[Proposal]:
    """All of them, the oldest first.

    Raises:
        UsageError: One is damaged.
    """
    found = []
    for path in (state / FOLDER).glob("[0-9]*.json"):
        try:
            found.append(Proposal.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError) as error:
            raise UsageError("this proposal is damaged", where=str(path), remedy="move it away") from error
    return sorted(found, key=_number)


def answered(state: Path, number: int, answer: Answer, now: datetime) -> Proposal:
    """Write down what became of an open proposal.

    Raises:
        UsageError: There is none of that number that is open.
    """
    for proposal in read_proposals(state):
        if proposal.number == number and proposal.answer == "open":
            changed = proposal.model_copy(update={"answer": answer, "answered": now.isoformat(timespec="seconds")})
            write_proposal(state, changed)
            return changed
    raise UsageError(
        f"there is no open proposal {number}",
        where=str(state / FOLDER),
        remedy=f"testudo-client watch {state.parent} --proposals lists them",
    )


def _number(proposal: Proposal) -> int:
    return proposal.number
