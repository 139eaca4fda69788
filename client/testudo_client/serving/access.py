"""Who may ask, and from where: a token, and the rule that an unprotected model is not asked from outside.

A model that was adapted without differential privacy tells whether somebody was among its owner's rows better than
anything else that this software makes: whoever may ask it can test that. So it answers on this machine only, unless
the owner says otherwise in so many words.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from testudo_client.personal.versions import VersionRecord
from testudo_common.errors import KeyFileError, UsageError
from testudo_common.key_files import keep_new

TOKEN_FILE = "token"  # noqa: S105  # a name
_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class Token:
    """The secret that every request shows, ``Authorization: Bearer TOKEN``; never printed."""

    secret: str = field(repr=False, compare=False)

    def admits(self, header: str | bytes | None) -> bool:
        """Whether the header's value shows it; takes as long for one wrong token as for another."""
        given = header.encode("utf-8", "surrogateescape") if isinstance(header, str) else header or b""
        kind, _, shown = given.partition(b" ")
        return hmac.compare_digest(shown.strip(), self.secret.encode()) and kind.lower() == b"bearer"


def token_in(folder: Path) -> Token:
    """The token in ``folder``, which is made if there is none.

    Raises:
        KeyFileError: Others may read it, or it is empty, or it cannot be written.
    """
    path = folder / TOKEN_FILE
    if not path.exists():
        keep_new(path, secrets.token_urlsafe(_TOKEN_BYTES).encode())
    try:
        if path.stat().st_mode & 0o077:
            raise KeyFileError("others may read this token", where=str(path), remedy="delete it: a new one is made")
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(
            "the token cannot be read", where=str(path), remedy="delete it: a new one is made"
        ) from error
    if len(secret) < _TOKEN_BYTES:
        raise KeyFileError("the token is too short", where=str(path), remedy="delete it: a new one is made")
    return Token(secret)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen.

    Attributes:
        host: A name or an IP address, without brackets.
        port: 0: any that is free.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Of ``HOST:PORT``, an IPv6 address in brackets.

        Raises:
            UsageError: It is not that.
        """
        host, colon, port = text.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        plain = bare and (bare == host) == (":" not in bare)  # brackets around IPv6, and around nothing else
        if not (colon and plain and port.isascii() and port.isdigit() and int(port) < 1 << 16):
            raise UsageError("not an address", where=ascii(text), remedy="write HOST:PORT, such as 127.0.0.1:8443")
        return cls(bare, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def check_exposure(record: VersionRecord, *, exposed: bool, share_unprotected: bool) -> None:
    """Return only if a version may be asked there.

    Args:
        record: Of the version.
        exposed: Whether an address is reached from other machines.
        share_unprotected: Whether the owner said that it may.

    Raises:
        UsageError: It was adapted without differential privacy, and other machines would reach it.
    """
    if exposed and record.stays and not share_unprotected:
        raise UsageError(
            f"version {record.id} was adapted without differential privacy: whoever may ask it can find out whether "
            "somebody was among your rows, so it is answered on this machine only",
            remedy="listen on 127.0.0.1, adapt a private version, or accept that with --share-unprotected",
        )


def check_plain(addresses: list[Address], *, said_again: bool) -> None:
    """Return only if answers may go without TLS to where they are listened for.

    Raises:
        UsageError: Token and rows would pass a network in clear.
    """
    outside = [str(address) for address in addresses if not address.loopback]
    if outside and not said_again:
        raise UsageError(
            "without TLS, the token and every row pass the network in clear",
            where=", ".join(outside),
            remedy="leave out --insecure-no-tls, listen on 127.0.0.1, or add --insecure-beyond-loopback",
        )
