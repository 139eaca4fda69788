"""Who belongs to a federation: client id -> Ed25519 verification key, signed by the federation. Knows no round.

By example, ``roster.json``::

    {"federation":"shops","log":"01c4...","members":{"shop-1":"5f0c...","shop-2":"a91e..."},"signature":"77d2..."}

canonical JSON (RFC 8785). ``log`` is the key of the federation's audit log, behind one byte that says which kind it is.
The signature is Ed25519 over the bytes ``testudo-roster-2`` and the same object without its signature; the federation's
key is pinned by everybody and comes another way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from testudo_common.errors import RosterError

_DOMAIN = b"testudo-roster-2"
MAX_ROSTER_BYTES = 1 << 26
_KEY_CHARACTERS = 64
_LOG_KEYS = {b"": 0, b"\x01": 32, b"\x06": 1312}  # kind -> bytes of its key: none, Ed25519, ML-DSA-44
MAX_CLIENT_ID_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class Roster:
    """The members of a federation.

    Attributes:
        federation: Its name.
        members: Client id -> Ed25519 verification key, 32 bytes.
        log: Key of the audit log: a byte of its kind (see testudo_common.audit.notes), and the public key; empty: none.
        digest: SHA-256 that names all three.
    """

    federation: str
    members: Mapping[str, bytes] = field(repr=False)
    log: bytes = field(default=b"", repr=False)
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        for client in self.members:
            if not is_client_id(client):
                raise RosterError("a client's name must be 1 to 128 printable characters", where=repr(client)[:80])
        owners: dict[bytes, str] = {}
        for client, key in self.members.items():
            if len(key) != _KEY_CHARACTERS // 2:
                raise RosterError("a key is not 32 bytes", where=client)
            if key in owners:
                raise RosterError(f"it has the same key as {owners[key]!r}", where=client)
            owners[key] = client
        if _LOG_KEYS.get(self.log[:1]) != len(self.log[1:]):
            raise RosterError("the log's key is not one")
        if not self.federation.isprintable():
            raise RosterError("a federation's name must be printable characters")
        object.__setattr__(self, "digest", hashlib.sha256(_signed_bytes(self)).digest())


def is_client_id(name: object) -> bool:
    """Whether ``name`` may name a client."""
    return isinstance(name, str) and name.isprintable() and 0 < len(name) <= MAX_CLIENT_ID_CHARACTERS


def _content(roster: Roster) -> dict[str, object]:
    return {
        "federation": roster.federation,
        "log": roster.log.hex(),
        "members": {client: key.hex() for client, key in roster.members.items()},
    }


def _signed_bytes(roster: Roster) -> bytes:
    return _DOMAIN + rfc8785.dumps(_content(roster))  # type: ignore[arg-type]


def sign_roster(roster: Roster, federation_key: Ed25519PrivateKey) -> bytes:
    """``roster.json``: the roster with the federation's signature."""
    signature = federation_key.sign(_signed_bytes(roster))
    return rfc8785.dumps({**_content(roster), "signature": signature.hex()})  # type: ignore[dict-item]


def read_roster(data: bytes, federation_key: Ed25519PublicKey, *, source: str) -> Roster:
    """The roster in the bytes of ``roster.json``.

    Args:
        data: Of the file.
        federation_key: The federation's, as pinned here.
        source: What to call the file in an error.

    Raises:
        RosterError: It is not a roster, or not signed with that key.
    """
    try:
        if len(data) > MAX_ROSTER_BYTES:
            raise ValueError("too large")
        content = json.loads(data)
        signature = bytes.fromhex(content.pop("signature"))
        log = bytes.fromhex(content["log"])
        if set(content) != {"federation", "log", "members"} or not isinstance(content["federation"], str):
            raise ValueError("other fields")
        members = {str(client): bytes.fromhex(key) for client, key in content["members"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RosterError("not a roster", where=source, remedy="ask the federation for roster.json") from error
    roster = Roster(content["federation"], members, log)
    try:
        federation_key.verify(signature, _signed_bytes(roster))
    except InvalidSignature as error:
        raise RosterError(
            "the roster is not signed with the federation's key",
            where=source,
            remedy="compare the federation's key with the one you were given, and ask for the roster again",
        ) from error
    return roster
