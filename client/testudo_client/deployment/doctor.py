"""``testudo-client doctor``: whether a node would work here, one line a check. Changes nothing, sends nothing of data.

Checks that need what an earlier one found out are left away where that one failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from testudo_client.deployment.check import Check
from testudo_client.deployment.tls import utc_now
from testudo_common.errors import UsageError


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
