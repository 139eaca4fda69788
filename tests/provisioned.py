"""A federation with owners that were invited, joined and admitted, for tests. No tests in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testudo_client.home import OwnerHome
from testudo_client.init_command import InitRequest
from testudo_client.provisioning import installing
from testudo_client.provisioning.joining import join
from testudo_server.provisioning.admission import answer, examine
from testudo_server.provisioning.folder import DEFAULT_PORT, FederationFolder, FederationSettings
from testudo_server.provisioning.foundation import found
from testudo_server.provisioning.invites import invite
from testudo_server.roster import ROSTER

HOSTS = ("localhost",)


def founded(folder: Path, *, port: int = DEFAULT_PORT, now: datetime | None = None) -> FederationFolder:
    """A federation without members."""
    made = FederationFolder(folder)
    found(made, FederationSettings(federation="shops", hosts=HOSTS, port=port), now=now or datetime.now(UTC))
    return made


def joined(federation: FederationFolder, client: str, folder: Path, now: datetime, **policy: Any) -> OwnerHome:
    """An owner, from nothing to an installed answer.

    Args:
        federation: Whose.
        client: Its name.
        folder: Its own.
        now: Of all clocks.
        **policy: Of its policy, as InitRequest has it.
    """
    invitation = invite(federation, client, now=now)
    request = join(invitation.to_bytes(), replace(InitRequest(folder, client), **policy), now, source="invite").request
    made = answer(federation, examine(federation, request.to_bytes(), now, source="request"), now)
    home = OwnerHome(folder)
    installing.install(home, installing.examine(home, made.to_bytes(), now, source="answer"))
    return home


def provisioned_federation(
    tmp_path: Path,
    owners: Sequence[str] = ("shop-1", "shop-2", "shop-3"),
    port: int = DEFAULT_PORT,
    *,
    now: datetime | None = None,
    **policy: Any,
) -> tuple[FederationFolder, dict[str, Path]]:
    """A federation at ``localhost:port`` and its owners, each with the roster of all.

    Returns:
        The operator's folder, and every owner's folder by its name.
    """
    time = now or datetime.now(UTC)
    federation = founded(tmp_path / "federation", port=port, now=time)
    homes = {
        client: joined(federation, client, tmp_path / f"owner-{number}", time, **policy)
        for number, client in enumerate(owners, 1)
    }
    signed = (federation.folder / ROSTER).read_bytes()
    for home in homes.values():
        home.roster_file.write_bytes(signed)  # as testudo-client fetch does
    return federation, {client: home.folder for client, home in homes.items()}
