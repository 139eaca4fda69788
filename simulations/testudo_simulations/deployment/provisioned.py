"""A federation provisioned on this machine by the commands that operator and owners use, one step after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import testudo_client.cli
import testudo_server.cli
from testudo_simulations.deployment.commands import answered, said

FEDERATION = "shops"


@dataclass(frozen=True, slots=True)
class Provisioned:
    """Where everything lies.

    Attributes:
        plan: The plan that all approved.
        federation: The operator's folder.
        owners: Owner -> its folder.
        data: Owner -> its table.
    """

    plan: Path
    federation: Path
    owners: Mapping[str, Path]
    data: Mapping[str, Path]


def provision(
    folder: Path,
    plan: Path,
    data: Mapping[str, Path],
    *,
    port: int,
    hosts: Sequence[str] = ("127.0.0.1",),
    words: Sequence[str] = (),
    on_owner: Callable[[int], object] | None = None,
) -> Provisioned:
    """From nothing to a federation whose owners have all approved the plan.

    Args:
        folder: Gets ``federation/`` and a folder for each owner.
        plan: Complete.
        data: Owner -> its table; the names are those in the federation.
        port: Of the door.
        hosts: Of the door, first the one that owners connect to.
        words: Further options of ``testudo-client join``, for the owners' policies.
        on_owner: Told how many owners are done.
    """
    client, server = testudo_client.cli.app, testudo_server.cli.app
    federation = folder / "federation"
    named = [word for host in hosts for word in ("--host", host)]
    said(server, "init", federation, "--federation", FEDERATION, *named, "--port", port)
    owners = {owner: folder / owner for owner in data}
    for owner, home in owners.items():
        invite, request, answer = (folder / f"{owner}.{kind}.json" for kind in ("invite", "request", "answer"))
        said(server, "invite", federation, owner, "--to", invite)
        joined = answered(
            client, "join", invite, home, "--to", request,
            "--min-cohort", len(data), "--min-group", len(data), *words,
        )  # fmt: skip
        said(server, "admit", federation, request, "--fingerprint", joined["fingerprint"], "--to", answer)
        said(client, "install", answer, home, "--fingerprint", joined["fingerprint"])
    roster = (federation / "roster.json").read_bytes()
    for done, home in enumerate(owners.values()):
        (home / "roster.json").write_bytes(roster)  # the others came after; a node fetches it from the door
        said(client, "approve", plan, home, "--yes")
        if on_owner is not None:
            on_owner(done + 1)
    return Provisioned(plan, federation, owners, dict(data))
