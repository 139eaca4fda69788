"""``testudo-client fetch``: roster and plan from the federation's door. Approves nothing, replaces nothing unchecked.

A roster takes the place of the old one only with the pinned federation key's signature, and only if it holds this
owner under its own key. A plan is put into ``proposed/``, to be looked at; it counts for nothing until it is approved.
"""

from __future__ import annotations

from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from testudo_client.approve_command import existing_home
from testudo_client.deployment.diagnosis import of_answer, of_failure
from testudo_client.deployment.door import PLAN_PATH, ROSTER_PATH, ask
from testudo_client.deployment.tls import door_context
from testudo_client.home import OwnerHome
from testudo_client.provisioning.connection import Connection, read_connection
from testudo_common.errors import RosterError, UsageError
from testudo_common.files import write_atomically
from testudo_common.key_files import read_public
from testudo_common.plan.load import load_plan
from testudo_common.roster import MAX_ROSTER_BYTES, Roster, read_roster

PROPOSED = Path("proposed") / "plan.toml"
MAX_PLAN_BYTES = 1 << 20
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was fetched.

    Attributes:
        members: On the roster.
        joined: Who is new on it.
        vanished: Who was on the one before.
        changed: Who has another key than before.
        plan: The proposed plan's file; None: no run is on.
        plan_digest: Of it, hex; empty where there is none.
        plan_name: Of it.
    """

    members: int
    joined: tuple[str, ...]
    vanished: tuple[str, ...]
    changed: tuple[str, ...]
    plan: Path | None
    plan_digest: str
    plan_name: str


def fetch(folder: Path) -> Fetched:
    """Fetch roster and plan.

    Raises:
        UsageError: The door does not answer, or not with what was asked for; it says why.
        RosterError: The roster is not the federation's, or does not hold this owner; the old one stays.
        KeyFileError: A key or certificate of this owner's cannot be used.
        PlanError: The plan cannot be used. It stays in ``proposed/``, to be looked at.
    """
    home, connection = existing_home(folder), read_connection(folder)
    roster_data = _get(home, connection, ROSTER_PATH, MAX_ROSTER_BYTES)
    if roster_data is None:
        raise UsageError("the server has no roster yet", where=connection.address, remedy="try again later")
    before = _roster_here(home)
    after = _checked(home, roster_data, connection.address)
    plan_data = _get(home, connection, PLAN_PATH, MAX_PLAN_BYTES)
    write_atomically(home.roster_file, roster_data)
    known = {} if before is None else before.members
    changed = tuple(sorted(name for name in known if name in after.members and known[name] != after.members[name]))
    news = (
        len(after.members),
        tuple(sorted(set(after.members) - set(known))) if before is not None else (),
        tuple(sorted(set(known) - set(after.members))),
        changed,
    )
    if plan_data is None:
        return Fetched(*news, None, "", "")
    proposed = home.folder / PROPOSED
    write_atomically(proposed, plan_data)
    plan = load_plan(proposed)
    return Fetched(*news, proposed, plan.digest, plan.name)


def _get(home: OwnerHome, connection: Connection, path: str, max_bytes: int) -> bytes | None:
    context = door_context(connection.files, home.policy().pins.server_certificate)
    try:
        answer = ask(connection, context, path, max_bytes=max_bytes)
    except (OSError, HTTPException) as error:
        raise UsageError(of_failure(error, connection).sentence.rstrip(".")) from error
    if answer.status == _NOT_FOUND:
        return None
    if answer.status != 200:
        raise UsageError(of_answer(answer, answer.status).sentence.rstrip("."), where=f"{connection.address}{path}")
    if len(answer.body) > max_bytes:
        raise UsageError(f"more than {max_bytes} bytes came", where=f"{connection.address}{path}")
    return answer.body


def _roster_here(home: OwnerHome) -> Roster | None:
    if not home.roster_file.exists():
        return None
    pinned = read_public(home.federation_key_file)
    return read_roster(home.roster_file.read_bytes(), pinned, source=str(home.roster_file))


def _checked(home: OwnerHome, data: bytes, source: str) -> Roster:
    roster = read_roster(data, read_public(home.federation_key_file), source=f"{source}{ROSTER_PATH}")
    if home.key().public_key().public_bytes_raw() not in roster.members.values():
        raise RosterError(
            "the server's roster does not hold your key; yours was not replaced",
            where=source,
            remedy="ask your federation whether you were removed",
        )
    return roster
