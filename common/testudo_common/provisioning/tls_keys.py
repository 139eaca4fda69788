"""Private keys of TLS (ECDSA P-256, PEM) and of Flower's nodes (ECDSA P-384, OpenSSH) in files. Never overwritten."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from testudo_common.errors import KeyFileError
from testudo_common.key_files import keep_new


def tls_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The TLS key in ``path``, which is made if there is none.

    Raises:
        KeyFileError: What is there is not one, or others may read it, or it cannot be written.
    """
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        keep_new(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return read_tls_key(path)


def read_tls_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The TLS key in ``path``.

    Raises:
        KeyFileError: It is not there, not one, or others may read it.
    """
    return _on(ec.SECP256R1(), path, _loaded(path, pem=True))


def node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The node key in ``path``, which is made if there is none; ``flower-supernode`` reads the same file.

    Raises:
        KeyFileError: What is there is not one, or others may read it, or it cannot be written.
    """
    if not path.exists():
        key = ec.generate_private_key(ec.SECP384R1())
        keep_new(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return _on(ec.SECP384R1(), path, _loaded(path, pem=False))


def _loaded(path: Path, *, pem: bool) -> object:
    try:
        if path.stat().st_mode & 0o077:
            raise KeyFileError("others may read this key", where=str(path), remedy="chmod 600 it, and ask who could")
        data = path.read_bytes()
        return load_pem_private_key(data, None) if pem else load_ssh_private_key(data, None)
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror}", where=str(path), remedy="check the path") from error
    except (ValueError, TypeError, NotImplementedError, UnsupportedAlgorithm) as error:
        raise KeyFileError("not a private key", where=str(path), remedy="check the path") from error


def _on(curve: ec.EllipticCurve, path: Path, key: object) -> ec.EllipticCurvePrivateKey:
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != curve.name:
        raise KeyFileError(f"not an elliptic curve key on {curve.name}", where=str(path), remedy="check the path")
    return key
