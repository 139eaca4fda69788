"""The federation's keys and its roster on disk: who may take part, signed. Draws no cohort and knows no round.

A folder holds ``federation.pem``, the federation's private key, which is not needed to run rounds, and ``log.pem``, the
audit log's, which is; both with mode 0600. ``federation.pub`` and ``roster.json`` go to every member.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from testudo_common.audit.notes import PrivateKey, Signer
from testudo_common.errors import KeyFileError, RosterError
from testudo_common.files import write_atomically
from testudo_common.key_files import (
    LogKeyKind,
    create_key,
    create_log_key,
    parse_public,
    public_hex,
    read_key,
    read_log_key,
    read_public,
)
from testudo_common.roster import Roster, read_roster, sign_roster

FEDERATION_KEY = "federation.pem"
FEDERATION_PUBLIC = "federation.pub"
LOG_KEY = "log.pem"
ROSTER = "roster.json"


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """What a server needs of a federation to run rounds.

    Attributes:
        roster: Who may take part.
        signed_roster: ``roster.json``, with the federation's signature.
        log_key: Signs checkpoints of the audit log; the roster names its public half.
        federation_key: The federation's public key, 32 bytes.
    """

    roster: Roster
    signed_roster: bytes = field(repr=False)
    log_key: PrivateKey = field(repr=False, compare=False)
    federation_key: bytes = field(repr=False)


def keys_in(folder: Path) -> ServerKeys:
    """The keys kept in ``folder``.

    Raises:
        KeyFileError: A key is missing, not one, or not the one that the roster names.
        RosterError: The roster is missing, or not signed with the federation's key.
    """
    pinned = read_public(folder / FEDERATION_PUBLIC)
    roster, data = _signed_roster_in(folder, pinned)
    path = folder / LOG_KEY
    log_key = read_log_key(path)
    if log_key_of(log_key) != roster.log:
        raise KeyFileError(
            "the roster names another key for the audit log",
            where=str(path),
            remedy="put the log's key here; where the roster names none, make it with testudo-server init",
        )
    return ServerKeys(roster, data, log_key, pinned.public_bytes_raw())


def roster_in(folder: Path) -> Roster:
    """The roster kept in ``folder``.

    Raises:
        KeyFileError: The federation's public key is missing, or not one.
        RosterError: The roster is missing, or not signed with that key.
    """
    return _signed_roster_in(folder, read_public(folder / FEDERATION_PUBLIC))[0]


def log_key_of(key: PrivateKey) -> bytes:
    """The public key of an audit log as a roster names it: a byte of its kind, and the key."""
    public = Signer("log", key).key
    return bytes([public.kind]) + public.raw


def admit(folder: Path, federation: str, members: Mapping[str, str], *, log_key: LogKeyKind | None = None) -> Roster:
    """Sign a roster with more members; the federation's key and the log's are made if there are none.

    Args:
        folder: See the module.
        federation: Its name; must be that of the roster already there.
        members: Client id -> public key, 64 hexadecimal digits.
        log_key: Which kind the log's key is to be; None: the one that is there, or Ed25519.

    Raises:
        RosterError: A member is there with another key, or the roster is another federation's.
        KeyFileError: A key is not one, or a file cannot be read or written.
    """
    key = _signing_key(folder)
    write_atomically(folder / FEDERATION_PUBLIC, f"{public_hex(key)}\n".encode())
    known: dict[str, bytes] = {}
    log = b""
    if (folder / ROSTER).exists():
        before = roster_in(folder)
        if before.federation != federation:
            raise RosterError(f"this is the roster of {before.federation!r}", where=str(folder / ROSTER))
        known.update(before.members)
        log = before.log
    for client, text in members.items():
        added = parse_public(text, source=client).public_bytes_raw()
        if known.get(client, added) != added:
            raise RosterError("it is on the roster with another key", where=client, remedy="choose another name")
        known[client] = added
    roster = Roster(federation, dict(sorted(known.items())), log_key_of(_log_key(folder, log, log_key)))
    write_atomically(folder / ROSTER, sign_roster(roster, key))
    return roster


def expel(folder: Path, client: str) -> Roster:
    """Sign the roster without ``client``; who is not on it stays off it.

    Raises:
        RosterError: There is no roster, or not one of this federation.
        KeyFileError: The federation's private key is not here.
    """
    before = roster_in(folder)
    key = _signing_key(folder)
    remaining = {name: member for name, member in before.members.items() if name != client}
    roster = Roster(before.federation, remaining, before.log)
    if roster != before:
        write_atomically(folder / ROSTER, sign_roster(roster, key))
    return roster


def _signed_roster_in(folder: Path, pinned: Ed25519PublicKey) -> tuple[Roster, bytes]:
    path = folder / ROSTER
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RosterError(
            f"cannot be read: {error.strerror}", where=str(path), remedy="make it with testudo-server init and admit"
        ) from error
    return read_roster(data, pinned, source=str(path)), data


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


def _log_key(folder: Path, named: bytes, kind: LogKeyKind | None) -> PrivateKey:
    """The log's key; a new one only where the roster names none, since owners would take logs under it for forged."""
    path = folder / LOG_KEY
    if not path.exists():
        if named:
            raise KeyFileError(
                "the audit log's private key is not here", where=str(path), remedy="put it there to sign the roster"
            )
        return create_log_key(path, kind or "ed25519")
    key = read_log_key(path)
    there: LogKeyKind = "ed25519" if isinstance(key, Ed25519PrivateKey) else "ml-dsa-44"
    if kind not in (None, there):
        raise KeyFileError(
            f"there is a key of kind {there} already, and it is not overwritten",
            where=str(path),
            remedy=f"leave --log-key out, or write --log-key {there}",
        )
    if named not in (b"", log_key_of(key)):
        raise KeyFileError(
            "the roster names another key for the audit log", where=str(path), remedy="put the log's key here"
        )
    return key
