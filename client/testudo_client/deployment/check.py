"""One check of the doctor: what it looked at, its verdict, and a sentence. Looks at nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from testudo_common.errors import TestudoError


class Verdict(StrEnum):
    """Of one check."""

    OK = "ok"
    WARNING = "warning"
    FAILS = "fails"


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found.

    Attributes:
        name: Of what was looked at.
        verdict: Whether it would work.
        sentence: What was found, and where it fails what to do.
    """

    name: str
    verdict: Verdict
    sentence: str


def ok(name: str, sentence: str) -> Check:
    """It works."""
    return Check(name, Verdict.OK, sentence)


def warning(name: str, sentence: str) -> Check:
    """It works, and something should be known."""
    return Check(name, Verdict.WARNING, sentence)


def fails(name: str, sentence: str) -> Check:
    """It does not work."""
    return Check(name, Verdict.FAILS, sentence)


def refused(name: str, error: TestudoError) -> Check:
    """It does not work, as an error of ours says; on one line."""
    return fails(name, " ".join(str(error).split()))


def tried(name: str, look: Callable[[], str]) -> Check:
    """Ok with what ``look`` says; or fails with what it raises."""
    try:
        return ok(name, look())
    except TestudoError as error:
        return refused(name, error)
