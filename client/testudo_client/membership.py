"""A data owner's own key and the roster that it has pinned, in a folder: what makes it a member of a federation.

Holds ``identity.pem`` (this owner's private key, mode 0600), ``federation.pub`` (the federation's key, pinned) and
``roster.json`` (who else takes part, signed with that key). Nothing here is ever taken from the server's word.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from testudo_common.errors import RosterError
from testudo_common.key_files import read_key, read_public
from testudo_common.roster import Roster, read_roster
from testudo_common.secagg.client import Identity

IDENTITY_FILE = "identity.pem"
FEDERATION_KEY_FILE = "federation.pub"
ROSTER_FILE = "roster.json"


@dataclass(frozen=True, slots=True)
class Membership:
    """A member's key and roster.

    Attributes:
        key: This owner's private key.
        roster: Everybody's public ones.
        federation_key: Which signs rosters, 32 bytes; empty where no log is checked.
    """

    key: Ed25519PrivateKey = field(repr=False, compare=False)
    roster: Roster
    federation_key: bytes = b""

    @property
    def client_id(self) -> str:
        """The name under which the roster holds this key.

        Raises:
            RosterError: It does not.
        """
        own = self.key.public_key().public_bytes_raw()
        for client, key in self.roster.members.items():
            if key == own:
                return client
        raise RosterError(
            f"the roster of {self.roster.federation!r} does not hold your key",
            remedy="give the federation the public key of identity.pem, and get its new roster.json",
        )

    def identity_of(self, client_id: str) -> Identity:
        """This owner in the protocol's terms.

        Raises:
            RosterError: The roster does not hold it, or holds another key for it.
        """
        if self.roster.members.get(client_id) != self.key.public_key().public_bytes_raw():
            known = client_id in self.roster.members
            raise RosterError(
                f"the roster of {self.roster.federation!r} holds {'another key for' if known else 'no'} {client_id!r}",
                remedy="give the federation the public key of identity.pem, and get its new roster.json",
            )
        return Identity(client_id, self.key.private_bytes_raw())


def read_membership(folder: Path) -> Membership:
    """The membership kept in ``folder``.

    Raises:
        KeyFileError: A key is missing, readable by others, or not a key.
        RosterError: The roster is missing, or not signed with the pinned key.
    """
    key, pinned = read_key(folder / IDENTITY_FILE), read_public(folder / FEDERATION_KEY_FILE)
    path = folder / ROSTER_FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RosterError(
            f"cannot be read: {error.strerror}", where=str(path), remedy="get roster.json from the federation"
        ) from error
    return Membership(key, read_roster(data, pinned, source=str(path)), pinned.public_bytes_raw())
