"""The TLS context with which an owner's node goes to its federation's door. Opens no connection, knows no Flower.

The federation's CA is the only root. The owner's certificate is shown, and where its policy pins the server's, every
handshake is ended before a byte is sent unless a pinned certificate was presented, or is the root that vouched for it.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from testudo_client.policy.sections import Pins
from testudo_client.provisioning.connection import ConnectionFiles
from testudo_common.errors import KeyFileError

Seen = Callable[[tuple[str, ...]], None]
"""Told SHA-256, hex, of the certificate that the door presented, and of the root where there is only one."""
_INSTALL = "Install the answer of your federation again: testudo-client install"
_OTHERS = 0o077


class PinError(ssl.SSLCertVerificationError):
    """The door's certificate is a proper one, and not one that the policy pins."""


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """The owner's certificate of TLS.

    Attributes:
        not_before: From when it holds, UTC.
        not_after: To when.
        subject: What it says of its owner.
    """

    not_before: datetime
    not_after: datetime
    subject: str

    def days_left(self, now: datetime) -> float:
        """Negative once it has expired."""
        return (self.not_after - now).total_seconds() / 86400


class _DoorContext(ssl.SSLContext):
    """Compares what a handshake brought with the pins."""

    pins: frozenset[str] | None = None
    roots: tuple[str, ...] = ()
    seen: Seen | None = None

    def wrap_socket(self, sock: socket.socket, *args: Any, **more: Any) -> ssl.SSLSocket:
        wrapped = super().wrap_socket(sock, *args, **more)
        try:
            self._check(wrapped.getpeercert(binary_form=True))
        except BaseException:
            wrapped.close()
            raise
        return wrapped

    def wrap_bio(self, *_args: Any, **_more: Any) -> ssl.SSLObject:
        """Refused: a connection inside another TLS connection, as to a proxy, is not looked at."""
        raise PinError("the certificate of the door cannot be looked at through a proxy that speaks TLS itself")

    def _check(self, leaf: bytes | None) -> None:
        if leaf is None:
            raise PinError("the door presented no certificate")
        found = (hashlib.sha256(leaf).hexdigest(), *(self.roots if len(self.roots) == 1 else ()))
        if self.pins is not None and self.pins.isdisjoint(found):
            raise PinError(f"the certificate of the door is {found[0]}, which is not pinned")
        if self.seen is not None:
            self.seen(found)


def door_context(files: ConnectionFiles, pins: Pins = "any", seen: Seen | None = None) -> ssl.SSLContext:
    """The context for every connection to the door.

    Args:
        files: The owner's.
        pins: ``pins.server_certificate`` of its policy.
        seen: Told at every handshake what was presented.

    Raises:
        KeyFileError: A file is missing, readable by others, or not what its name says; or key and certificate differ.
    """
    check_key_file(files.client_key)
    roots = _certificates(files.ca_certificate)
    own_certificate(files)
    context = _DoorContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.pins = None if pins == "any" else frozenset(pins)
    pinned = [root for root in roots if context.pins and _digest(root) in context.pins]
    trusted = pinned or roots  # a root that is pinned is the only way in
    context.roots, context.seen = tuple(_digest(root) for root in trusted), seen
    context.load_verify_locations(cadata="".join(root.public_bytes(Encoding.PEM).decode() for root in trusted))
    try:
        context.load_cert_chain(files.client_certificate, files.client_key)
    except (ssl.SSLError, OSError) as error:
        raise KeyFileError("cannot be used for TLS", where=str(files.client_key), remedy=_INSTALL) from error
    return context


def own_certificate(files: ConnectionFiles) -> OwnCertificate:
    """The owner's certificate, which belongs to its key.

    Raises:
        KeyFileError: One of the two is missing or not what it should be, or they do not belong together.
    """
    (first, *_) = _certificates(files.client_certificate)
    try:
        key = load_pem_private_key(files.client_key.read_bytes(), None)
    except OSError as error:
        raise _unreadable(files.client_key, error) from error
    except (ValueError, TypeError) as error:
        raise KeyFileError("not a private key", where=str(files.client_key), remedy=_INSTALL) from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != first.public_key().public_bytes(*form):
        problem = f"the certificate is not of the key in {files.client_key.name}"
        raise KeyFileError(problem, where=str(files.client_certificate), remedy=_INSTALL)
    return OwnCertificate(first.not_valid_before_utc, first.not_valid_after_utc, first.subject.rfc4514_string())


def root_days_left(files: ConnectionFiles, now: datetime) -> float:
    """Days until the federation's root expires; of several, the last."""
    return max((root.not_valid_after_utc - now).total_seconds() / 86400 for root in _certificates(files.ca_certificate))


def check_key_file(path: Path) -> None:
    """Check that a private key's file is there, and is nobody else's to read.

    Raises:
        KeyFileError: It is not.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _unreadable(path, error) from error
    if mode & _OTHERS:
        raise KeyFileError(
            f"others can read it (mode {mode & 0o777:o})", where=str(path), remedy=f"Run: chmod 600 {path}"
        )


def utc_now() -> datetime:
    """By this computer's clock."""
    return datetime.now(UTC)


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise KeyFileError("not a certificate", where=str(path), remedy=_INSTALL) from error


def _unreadable(path: Path, error: OSError) -> KeyFileError:
    return KeyFileError(f"cannot be read: {error.strerror}", where=str(path), remedy=_INSTALL)


def _digest(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
