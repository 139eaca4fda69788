"""Why a request is not answered, in one form for both faces. Holds names of fields and fixed words, never a value."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from testudo_common.errors import ContractError, Fault

FAULTS_SHOWN = 20


class Reason(StrEnum):
    """Fixed words, for callers and for metrics."""

    CONTRACT = "contract"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    BUSY = "busy"
    UNAUTHORISED = "unauthorised"
    NOT_CONFIGURED = "not_configured"
    FAILED = "failed"


class RefusalError(Exception):
    """A request that is not answered: told to whoever asked, and the end of no command.

    Args:
        reason: Why.
        problem: In a sentence.
        remedy: What to do about it.
        faults: In which fields, the first few.
        row: Whose, from 0; None where it is no row's.
    """

    def __init__(
        self, reason: Reason, problem: str, *, remedy: str = "", faults: Sequence[Fault] = (), row: int | None = None
    ) -> None:
        self.reason, self.problem, self.remedy, self.row = reason, problem, remedy, row
        self.faults = tuple(faults)[:FAULTS_SHOWN]
        super().__init__(problem)

    def __str__(self) -> str:
        return f"{self.problem}. {self.remedy}" if self.remedy else self.problem


def refusal_of(error: ContractError) -> RefusalError:
    """The refusal that says what breaks the contract."""
    more = len(error.faults) - FAULTS_SHOWN
    problem = f"row {error.row} breaks the feature contract" + (f", and has {more} faults more" if more > 0 else "")
    return RefusalError(
        Reason.CONTRACT, problem, remedy="See the contract: it says what each field holds", faults=error.faults,
        row=error.row,
    )  # fmt: skip
