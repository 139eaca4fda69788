"""A federation's folder at the operator: where everything lies, and what was written down of it. Signs nothing.

``federation.pem``, ``federation.pub``, ``log.pem`` and ``roster.json`` are testudo_server.roster's. Beside them lie
``federation.toml`` (names and port), ``tls/`` (CA and server certificate, with their keys), ``invites/``, ``members/``
(who was admitted, a JSON file each), and ``superlink/`` (Flower's state, when a run is on).
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from testudo_common.errors import UsageError

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
    """

    client: str
    node_key: str
    certificate: str
    revoked: bool = False


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

    def members(self) -> tuple[Member, ...]:
        """Everybody who was ever admitted, the revoked too, by name.

        Raises:
            UsageError: A file there is not a member's.
        """
        found = []
        for path in sorted(self.members_folder.glob("*.json")):
            try:
                found.append(Member(**json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError) as error:
                raise UsageError("not a member's file", where=str(path), remedy="restore it, or admit again") from error
        return tuple(sorted(found, key=_name_of))


def _name_of(member: Member) -> str:
    return member.client


def _lists_as_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
