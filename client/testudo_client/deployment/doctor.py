"""``testudo-client doctor``: whether a node would work here, one line a check. Changes nothing, sends nothing of data.

Checks that need what an earlier one found out are left away where that one failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from testudo_client.deployment.tls import utc_now
from testudo_client.home import OwnerHome
from testudo_common.errors import TestudoError, UsageError


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


@dataclass(frozen=True, slots=True)
class DoctorRequest:
    """What was asked.

    Attributes:
        folder: The owner's.
        plan: A plan's file; None: none is looked at.
        data: The owner's table; None: none is looked at.
        offline: Do not look for the server.
    """

    folder: Path
    plan: Path | None = None
    data: Path | None = None
    offline: bool = False


def examine(request: DoctorRequest) -> Iterator[Check]:
    """Every check, as it is done.

    Raises:
        UsageError: There is no such folder; or a table without a plan.
    """
    from testudo_client.approve_command import existing_home
    from testudo_client.deployment import checks_connection, checks_plan

    home = existing_home(request.folder)
    if request.data is not None and request.plan is None:
        raise UsageError("a table is checked against a plan", remedy="add --plan")
    yield from checks_connection.of_files(home)
    yield from checks_connection.of_environment()
    if not request.offline:
        yield from checks_connection.of_server(home, utc_now())
    yield from checks_plan.of_folder(home)
    if request.plan is not None:
        yield from checks_plan.of_plan(home, request.plan, request.data)


def ok(name: str, sentence: str) -> Check:
    """It works."""
    return Check(name, Verdict.OK, sentence)


def warning(name: str, sentence: str) -> Check:
    """It works, and something should be known."""
    return Check(name, Verdict.WARNING, sentence)


def fails(name: str, sentence: str) -> Check:
    """It does not work."""
    return Check(name, Verdict.FAILS, sentence)


def tried(name: str, look: Callable[[], str]) -> Check:
    """Ok with what ``look`` says; or fails with what it raises."""
    try:
        return ok(name, look())
    except TestudoError as error:
        return fails(name, " ".join(str(error).split()))


def worst(checks: Iterable[Check]) -> Verdict:
    """The worst verdict of some checks."""
    order = list(Verdict)
    return max((check.verdict for check in checks), key=order.index, default=Verdict.OK)


__all__ = ["Check", "DoctorRequest", "OwnerHome", "Verdict", "examine", "fails", "ok", "tried", "warning", "worst"]
