"""The federation's key and its roster on disk: who may take part, signed. Draws no cohort and knows no round.

A folder holds ``federation.pem`` (the federation's private key, mode 0600; not needed to run rounds),
``federation.pub`` and ``roster.json``. The latter two go to every member.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from testudo_common.errors import KeyFileError, RosterError
from testudo_common.files import write_atomically
from testudo_common.key_files import create_key, parse_public, public_hex, read_key, read_public
from testudo_common.roster import Roster, read_roster, sign_roster

FEDERATION_KEY = "federation.pem"
FEDERATION_PUBLIC = "federation.pub"
ROSTER = "roster.json"


def roster_in(folder: Path) -> Roster:
    """The roster kept in ``folder``.

    Raises:
        KeyFileError: The federation's public key is missing, or not one.
        RosterError: The roster is missing, or not signed with that key.
    """
    pinned, path = read_public(folder / FEDERATION_PUBLIC), folder / ROSTER
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RosterError(
            f"cannot be read: {error.strerror}", where=str(path), remedy="make it with testudo-server roster"
        ) from error
    return read_roster(data, pinned, source=str(path))


def admit(folder: Path, federation: str, members: Mapping[str, str]) -> Roster:
    """Sign a roster with more members; the federation's key is made if there is none.

    Args:
        folder: See the module.
        federation: Its name; must be that of the roster already there.
        members: Client id -> public key, 64 hexadecimal digits.

    Raises:
        RosterError: A member is there with another key, or the roster is another federation's.
        KeyFileError: A key is not one, or a file cannot be read or written.
    """
    key = _signing_key(folder)
    write_atomically(folder / FEDERATION_PUBLIC, f"{public_hex(key)}\n".encode())
    known: dict[str, bytes] = {}
    if (folder / ROSTER).exists():
        before = roster_in(folder)
        if before.federation != federation:
            raise RosterError(f"this is the roster of {before.federation!r}", where=str(folder / ROSTER))
        known.update(before.members)
    for client, text in members.items():
        added = parse_public(text, source=client).public_bytes_raw()
        if known.get(client, added) != added:
            raise RosterError("it is on the roster with another key", where=client, remedy="choose another name")
        known[client] = added
    roster = Roster(federation, dict(sorted(known.items())))
    write_atomically(folder / ROSTER, sign_roster(roster, key))
    return roster


def _signing_key(folder: Path) -> Ed25519PrivateKey:
    """The federation's key; a new one only where there was none, since it would make a roster already there void."""
    path = folder / FEDERATION_KEY
    if path.exists():
        return read_key(path)
    if (folder / FEDERATION_PUBLIC).exists() or (folder / ROSTER).exists():
        raise KeyFileError(
            "the federation's private key is not here", where=str(path), remedy="put it there to add members"
        )
    return create_key(path)
