"""The keys of a simulated federation: every client's, its log's, and the roster, from one secret. For simulations only.

All clients of a simulation live on one machine and trust it. Real owners make their own keys and keep them.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from testudo_client.membership import Membership
from testudo_common.files import write_atomically
from testudo_common.key_files import public_hex
from testudo_common.roster import Roster, sign_roster
from testudo_common.secagg.primitives import SECRET_BYTES, derive, random_secret
from testudo_server.roster import FEDERATION_PUBLIC, LOG_KEY, ROSTER, ServerKeys, log_key_of, roster_in

if TYPE_CHECKING:
    from testudo_common.plan import FederationPlan
    from testudo_simulations.federations.base import Federation

_KEPT_IN = "simulation.key"
_NOBODY: Mapping[str, bytes] = MappingProxyType({})


class SimulatedKeys:
    """Keys derived from one secret, the same in every process that has it.

    Args:
        federation: Its name.
        clients: Ids of the training clients.
        secret: 32 bytes.
        known: Public keys of clients that were derived from it already; the others are derived now, which takes some
            0.05 ms each.

    Attributes:
        roster: Of all clients, and the log.
        log_key: Signs the log's checkpoints.
        server_keys: What the server has of them.
    """

    def __init__(
        self, federation: str, clients: Iterable[str], secret: bytes, known: Mapping[str, bytes] = _NOBODY
    ) -> None:
        self._secret = secret
        members = {
            client: known.get(client) or self._key_of(client).public_key().public_bytes_raw()
            for client in sorted(clients)
        }
        self.log_key = self._key("simulated log")
        self.roster = Roster(federation, members, log_key_of(self.log_key))
        federation_key = self._federation_key()
        self.server_keys = ServerKeys(
            self.roster,
            sign_roster(self.roster, federation_key),
            self.log_key,
            federation_key.public_key().public_bytes_raw(),
        )

    @classmethod
    def of(cls, federation: Federation, folder: Path | None) -> SimulatedKeys:
        """The keys of a federation's training clients.

        Args:
            federation: With a complete plan.
            folder: Keeps the secret, so that a run can be resumed and other processes find it, and roster and log key
                where a server looks for them; None: a new secret that nobody else has.
        """
        if folder is None:
            return cls(federation.plan.name, federation.training, random_secret())
        secret = _kept_secret(folder / _KEPT_IN)
        if (folder / ROSTER).exists():
            return cls(federation.plan.name, federation.training, secret, roster_in(folder).members)
        keys = cls(federation.plan.name, federation.training, secret)
        keys.write(folder)  # whoever writes them writes the same
        return keys

    def write(self, folder: Path) -> None:
        """What a server looks for in the folder of a federation, but for the federation's private key."""
        pem = self.log_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomically(folder / LOG_KEY, pem, durable=False)
        public = public_hex(self._federation_key())
        write_atomically(folder / FEDERATION_PUBLIC, f"{public}\n".encode(), durable=False)
        write_atomically(folder / ROSTER, self.server_keys.signed_roster, durable=False)

    def membership_of(self, client: str) -> Membership:
        """One client's key, with the roster."""
        return Membership(self._key_of(client), self.roster, self.server_keys.federation_key)

    def _key_of(self, client: str) -> Ed25519PrivateKey:
        return self._key("simulated client", client.encode())

    def _federation_key(self) -> Ed25519PrivateKey:
        return self._key("simulated federation")

    def _key(self, label: str, *context: bytes) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(derive(self._secret, label, *context))


def needs_keys(plan: FederationPlan) -> bool:
    """Whether a plan's clients sign anything."""
    return plan.secure or plan.audited


def _kept_secret(path: Path) -> bytes:
    """The secret in ``path``; made by the first process that asks, whole, with mode 0600."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(descriptor, "wb") as file:
            file.write(random_secret())
        with contextlib.suppress(FileExistsError):  # another process was first: its secret counts
            os.link(temporary, path)
        Path(temporary).unlink()
    secret = path.read_bytes()
    assert len(secret) == SECRET_BYTES
    return secret
