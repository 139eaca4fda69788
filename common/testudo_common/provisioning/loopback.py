"""Certificates that are their own root: for processes that talk over loopback, and for an owner's own server."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from testudo_common.files import make_private, write_atomically
from testudo_common.provisioning.certificates import LOOPBACK, alternative_names

_DAYS = 825


def loopback_certificate(folder: Path) -> tuple[Path, Path]:
    """A new self-signed certificate for 127.0.0.1, ::1 and localhost, and its key, in ``folder``.

    Made anew at each start. It is its own root: who is given the first file trusts this one process and no other.

    Returns:
        ``loopback.crt`` and ``loopback.key``, both PEM with mode 0600.
    """
    make_private(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    built = self_signed(key, (), datetime.now(UTC))
    certificate, secret = folder / "loopback.crt", folder / "loopback.key"
    write_atomically(secret, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), durable=False)
    write_atomically(certificate, built.public_bytes(Encoding.PEM), durable=False)
    return certificate, secret


def self_signed(key: ec.EllipticCurvePrivateKey, hosts: Sequence[str], now: datetime) -> x509.Certificate:
    """A certificate of ``key``, signed by itself, that is good for 825 days.

    Args:
        key: On P-256.
        hosts: DNS names and IP addresses besides 127.0.0.1, ::1 and localhost.
        now: The present.

    Raises:
        ProvisionError: A host is neither a DNS name nor an IP address.
    """
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(alternative_names((*hosts, *LOOPBACK)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
