"""What follows from a check: warn, adapt again, or propose a federated round. Four states; nothing is done here.

======== ======================================================== ====================================================
state    means                                                    ends when
======== ======================================================== ====================================================
Steady   the last check found nothing                             a check flags something
Warned   inputs or outputs drift; whether answers are worse is    a check finds nothing, or outcomes worse, or ``many``
         not known, or they are not                               flags stand in a row
Due      outcomes are worse: the model is to be adapted again     a new model is promoted, the gate refuses one, they
                                                                  are fine again, or ``many`` flags stand in a row
Proposed adapting did not help: a round was proposed, which       a person answers, or a new model is promoted
         spends epsilon, so a person decides
======== ======================================================== ====================================================

Each state can be encoded, since the process may be gone before the next check.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MANY = 5


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Steady(_Frozen):
    """Nothing was flagged at the last check."""

    state: Literal["steady"] = "steady"
    flags: Literal[0] = 0


class Warned(_Frozen):
    """Inputs or outputs drift.

    Attributes:
        flags: Flagged checks in a row.
    """

    state: Literal["warned"] = "warned"
    flags: int = Field(ge=1)


class Due(_Frozen):
    """The model is to be adapted again.

    Attributes:
        flags: Flagged checks in a row.
    """

    state: Literal["due"] = "due"
    flags: int = Field(ge=1)


class Proposed(_Frozen):
    """A federated round was proposed.

    Attributes:
        flags: Flagged checks in a row.
        number: Of the proposal.
    """

    state: Literal["proposed"] = "proposed"
    flags: int = Field(ge=0)
    number: int = Field(ge=1)


State = Annotated[Steady | Warned | Due | Proposed, Field(discriminator="state")]


class Step(StrEnum):
    """What to do next, a fixed word."""

    NOTHING = "nothing"
    WARN = "warn"
    READAPT = "readapt"
    PROPOSE = "propose"


@dataclass(frozen=True, slots=True)
class Checked:
    """A check was made.

    Attributes:
        drifted: Inputs or outputs are not what they were.
        worse: Outcomes are worse; None where too few are known to say.
    """

    drifted: bool
    worse: bool | None

    @property
    def flagged(self) -> bool:
        """Whether it found anything."""
        return self.drifted or bool(self.worse)


@dataclass(frozen=True, slots=True)
class Adapted:
    """A new version was made.

    Attributes:
        promoted: Whether it is in use now.
    """

    promoted: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """A person has answered the proposal; with which word is not this machine's business."""


Event = Checked | Adapted | Answered


def after(state: State, event: Event, many: int, proposals: int) -> tuple[State, Step]:
    """The next state, and what to do.

    Args:
        state: Now.
        event: What happened.
        many: Flagged checks in a row after which a round is proposed, 1 or more.
        proposals: Made so far; the next has the next number.
    """
    match state, event:
        case _, Adapted(promoted=True):  # it has a reference of its own, so what was flagged says nothing any more
            return Steady(), Step.NOTHING
        case Due(flags=flags), Adapted():
            return Proposed(flags=flags, number=proposals + 1), Step.PROPOSE
        case Proposed(), Answered():
            return Steady(), Step.NOTHING
        case Proposed(), Checked():
            flags = state.flags + 1 if event.flagged else 0
            return state.model_copy(update={"flags": flags}), Step.PROPOSE
        case _, Checked():
            return _after_check(state, event, many, proposals)
        case _:  # an owner who adapts without being asked to, or answers what is not asked
            return state, Step.NOTHING


def _after_check(state: State, event: Checked, many: int, proposals: int) -> tuple[State, Step]:
    due = bool(event.worse) or (isinstance(state, Due) and event.worse is None)
    if not (due or event.drifted):
        return Steady(), Step.NOTHING
    flags = state.flags + event.flagged
    if flags >= many:
        return Proposed(flags=flags, number=proposals + 1), Step.PROPOSE
    return (Due(flags=flags), Step.READAPT) if due else (Warned(flags=flags), Step.WARN)
