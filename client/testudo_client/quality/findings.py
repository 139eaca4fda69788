"""One thing found in an owner's table: how bad, where, and what to do. Never what a cell holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from testudo_common.errors import TestudoError

LINES_SHOWN = 5


class Severity(StrEnum):
    """Of a finding."""

    STOP = "stop"
    """Nothing can be trained or answered with this table."""
    WARN = "warn"
    """It can, and the result is likely to mislead."""
    NOTE = "note"
    """Worth knowing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found.

    Attributes:
        severity: How bad.
        check: Which check found it, a fixed word.
        problem: A sentence, without a full stop at the end.
        remedy: What to do.
        column: It was found in; empty for the whole table.
        count: Of rows or cells concerned; 0 where it is no such thing.
        lines: The first of their lines in the file.
    """

    severity: Severity
    check: str
    problem: str
    remedy: str
    column: str = ""
    count: int = 0
    lines: tuple[int, ...] = ()

    def __str__(self) -> str:
        place = f"{self.column}: " if self.column else ""
        more = ", ..." if self.count > len(self.lines) else ""
        seen = f" (line{'s' if self.count > 1 else ''} {', '.join(map(str, self.lines))}{more})" if self.lines else ""
        return f"{self.severity:<4}  {place}{self.problem}{seen}. {self.remedy}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def first(lines: Sequence[int]) -> tuple[int, ...]:
    """As many lines as are shown."""
    return tuple(lines[:LINES_SHOWN])


def of_error(error: TestudoError, check: str) -> Finding:
    """What an error of ours says, as a finding that stops."""
    place = f"{error.where}: " if error.where else ""
    return Finding(Severity.STOP, check, f"{place}{error.problem}", error.remedy)
