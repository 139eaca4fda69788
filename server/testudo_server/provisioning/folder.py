"""A federation's folder at the operator: where everything lies, and what was written down of it. Signs nothing.

``federation.pem``, ``federation.pub``, ``log.pem`` and ``roster.json`` are testudo_server.roster's. Beside them lie
``federation.toml`` (names and port), ``tls/`` (CA and server certificate, with their keys), ``invites/``, ``members/``
(who was admitted, a JSON file each), ``answers/`` (what they were answered, by the request's digest), and
``superlink/`` (Flower's state, when a run is on).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from testudo_common.errors import UsageError
from testudo_common.files import create_private, write_atomically

DEFAULT_PORT = 9092
Host = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z.:-]{1,253}$")]


class FederationSettings(BaseModel):
    """``federation.toml``: what an operator chose once."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    federation: str = Field(min_length=1, max_length=128, description="the federation's name")
    hosts: tuple[Host, ...] = Field(min_length=1, description="names and addresses of the server, first the public one")
    port: int = Field(DEFAULT_PORT, ge=1, le=65535, description="of the door")


@dataclass(frozen=True, slots=True)
class Member:
    """Who was admitted.

    Attributes:
        client: Its name.
        node_key: Public key of its Flower node, OpenSSH text (ECDSA P-384).
        certificate: Its TLS certificate, PEM.
        revoked: Whether it is not let in any more.
        earlier_certificate: The one before, PEM, which it uses until it has installed its renewal; empty: none.
    """

    client: str
    node_key: str
    certificate: str
    revoked: bool = False
    earlier_certificate: str = ""

    @property
    def certificates(self) -> tuple[str, ...]:
        """Every certificate that may open its connection, PEM; none once it is revoked."""
        both = (self.certificate, self.earlier_certificate)
        return () if self.revoked else tuple(filter(None, both))


@dataclass(frozen=True, slots=True)
class FederationFolder:
    """Paths in an operator's folder.

    Attributes:
        folder: Which only the operator can read.
    """

    folder: Path

    @property
    def settings_file(self) -> Path:
        """Names and port."""
        return self.folder / "federation.toml"

    @property
    def ca_key(self) -> Path:
        """Private key of the federation's CA; not needed to run."""
        return self.folder / "tls" / "ca.pem"

    @property
    def ca_certificate(self) -> Path:
        """Root that every owner is given."""
        return self.folder / "tls" / "ca.crt"

    @property
    def server_key(self) -> Path:
        """Private key of the door."""
        return self.folder / "tls" / "server.pem"

    @property
    def server_certificate(self) -> Path:
        """Certificate of the door, PEM."""
        return self.folder / "tls" / "server.crt"

    @property
    def invites(self) -> Path:
        """Invitations that were written."""
        return self.folder / "invites"

    @property
    def members_folder(self) -> Path:
        """Who was admitted."""
        return self.folder / "members"

    @property
    def answers(self) -> Path:
        """What owners were answered."""
        return self.folder / "answers"

    def invitation(self, invitation_id: str) -> Path:
        """The invitation with this id (32 hexadecimal digits)."""
        return self.invites / f"{invitation_id}.json"

    def used(self, invitation_id: str) -> Path:
        """Digest of the request that used this invitation."""
        return self.invites / f"{invitation_id}.used"

    def answer(self, request_digest: str) -> Path:
        """The answer to the request with this digest (64 hexadecimal digits)."""
        return self.answers / f"{request_digest}.json"

    def pending_answer(self, request_digest: str) -> Path:
        """The same, while its decision is not all written down."""
        return self.answers / f"{request_digest}.pending"

    def member_file(self, client: str) -> Path:
        """What was written down of a member."""
        return self.members_folder / f"{file_name_of(client)}.json"

    @property
    def superlink(self) -> Path:
        """Flower's own state."""
        return self.folder / "superlink"

    def settings(self) -> FederationSettings:
        """What the operator chose.

        Raises:
            UsageError: There is no such file, or it cannot be used.
        """
        path = self.settings_file
        try:
            return FederationSettings.model_validate(_lists_as_tuples(tomllib.loads(path.read_text(encoding="utf-8"))))
        except OSError as error:
            raise UsageError(
                f"cannot be read: {error.strerror}", where=str(path), remedy="make it with testudo-server init"
            ) from error
        except (ValidationError, ValueError) as error:
            raise UsageError(
                "not a federation's settings", where=str(path), remedy="it holds federation, hosts and port"
            ) from error

    @contextmanager
    def changed_alone(self) -> Iterator[None]:
        """Wait until no other command changes roster and members: what two read at once, one of them would lose."""
        lock = self.folder / ".lock"
        create_private(lock)
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # let go of when the file is closed, also by a kill
            yield
        finally:
            os.close(descriptor)

    def member(self, client: str) -> Member | None:
        """Who was admitted under this name, the revoked too; None: nobody.

        Raises:
            UsageError: Its file is not a member's.
        """
        path = self.member_file(client)
        return _read_member(path) if path.exists() else None

    def keep_member(self, member: Member) -> None:
        """Write down a member, in place of what was written of it."""
        text = json.dumps(asdict(member), indent=1, sort_keys=True, ensure_ascii=False)
        write_atomically(self.member_file(member.client), f"{text}\n".encode())

    def members(self) -> tuple[Member, ...]:
        """Everybody who was ever admitted, the revoked too, by name.

        Raises:
            UsageError: A file there is not a member's.
        """
        return tuple(sorted(map(_read_member, self.members_folder.glob("*.json")), key=_name_of))


def file_name_of(client: str) -> str:
    """A name for files that is safe whatever printable characters a client's name has, and its alone."""
    plain = re.sub(r"[^0-9A-Za-z]+", "-", client).strip("-")[:40]
    return f"{plain or 'client'}-{hashlib.sha256(client.encode()).hexdigest()[:16]}"


def _read_member(path: Path) -> Member:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        member = Member(**found)
        texts = (member.client, member.node_key, member.certificate, member.earlier_certificate)
        if not all(isinstance(text, str) for text in texts) or not isinstance(member.revoked, bool):
            raise TypeError("not as it was written")
    except (OSError, ValueError, TypeError) as error:
        raise UsageError("not a member's file", where=str(path), remedy="restore it, or admit again") from error
    return member


def _name_of(member: Member) -> str:
    return member.client


def _lists_as_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
