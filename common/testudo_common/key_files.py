"""Keys in files: private ones as PEM with mode 0600, public ones as hexadecimal. Never overwritten.

All are Ed25519 but for the key of an audit log, which may be ML-DSA-44.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from testudo_common.errors import KeyFileError
from testudo_common.files import write_new

LogKeyKind = Literal["ed25519", "ml-dsa-44"]


def create_key(path: Path) -> Ed25519PrivateKey:
    """A new private key, kept in ``path`` with mode 0600; missing folders are made with mode 0700.

    Raises:
        KeyFileError: There is a file already, or it cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    keep_new(path, _pem(key))
    return key


def create_log_key(path: Path, kind: LogKeyKind) -> Ed25519PrivateKey | MLDSA44PrivateKey:
    """A new private key of an audit log, kept as :func:`create_key` keeps one.

    Raises:
        KeyFileError: See :func:`create_key`.
    """
    key = Ed25519PrivateKey.generate() if kind == "ed25519" else MLDSA44PrivateKey.generate()
    keep_new(path, _pem(key))
    return key


def _pem(key: Ed25519PrivateKey | MLDSA44PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def keep_new(path: Path, secret: bytes) -> None:
    """Keep ``secret`` in a new file with mode 0600, whole or not at all; missing folders are made with mode 0700.

    Raises:
        KeyFileError: There is a file already, or it cannot be written.
    """
    try:
        write_new(path, secret)
    except FileExistsError as error:
        raise KeyFileError(
            "there is a key already, and it is not overwritten", where=str(path), remedy="use it, or move it away first"
        ) from error
    except OSError as error:
        raise KeyFileError(
            f"cannot be written: {error.strerror}", where=str(path), remedy="name a folder that may be written to"
        ) from error


def read_key(path: Path) -> Ed25519PrivateKey:
    """The private key in ``path``.

    Raises:
        KeyFileError: It is not there, not an Ed25519 key, or others may read it.
    """
    key = _read(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError("not an Ed25519 key", where=str(path), remedy="check the path")
    return key


def read_log_key(path: Path) -> Ed25519PrivateKey | MLDSA44PrivateKey:
    """The private key of an audit log in ``path``.

    Raises:
        KeyFileError: It is not there, of neither kind, or others may read it.
    """
    key = _read(path)
    if not isinstance(key, Ed25519PrivateKey | MLDSA44PrivateKey):
        raise KeyFileError("neither an Ed25519 nor an ML-DSA-44 key", where=str(path), remedy="check the path")
    return key


def _read(path: Path) -> object:
    try:
        if path.stat().st_mode & 0o077:
            raise KeyFileError("others may read this key", where=str(path), remedy="chmod 600 it, and ask who could")
        return load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror}", where=str(path), remedy="check the path") from error
    except (ValueError, TypeError) as error:
        raise KeyFileError("not a private key", where=str(path), remedy="check the path") from error


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public key of ``key``, 64 hexadecimal digits."""
    return key.public_key().public_bytes_raw().hex()


def parse_public(text: str, *, source: str) -> Ed25519PublicKey:
    """The public key that 64 hexadecimal digits are.

    Raises:
        KeyFileError: They are not one.
    """
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text.strip()))
    except ValueError as error:
        raise KeyFileError(
            "not a public key", where=source, remedy="it must be 64 hexadecimal digits, as the key's owner was shown"
        ) from error


def read_public(path: Path) -> Ed25519PublicKey:
    """The public key in ``path``.

    Raises:
        KeyFileError: It is not there, or not one.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise KeyFileError(f"cannot be read: {reason}", where=str(path), remedy="check the path") from error
    return parse_public(text, source=str(path))
