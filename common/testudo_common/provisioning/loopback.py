"""A throw-away certificate for processes of one machine that talk over loopback. Signs nothing else."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from testudo_common.files import make_private, write_atomically

_DAYS = 825


def loopback_certificate(folder: Path) -> tuple[Path, Path]:
    """A new self-signed certificate for 127.0.0.1, ::1 and localhost, and its key, in ``folder``.

    Made anew at each start. It is its own root: who is given the first file trusts this one process and no other.

    Returns:
        ``loopback.crt`` and ``loopback.key``, both PEM with mode 0600.
    """
    make_private(folder)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    addresses = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))
    names = [x509.DNSName("localhost"), *map(x509.IPAddress, addresses)]
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "loopback.crt", folder / "loopback.key"
    write_atomically(secret, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), durable=False)
    write_atomically(certificate, built.public_bytes(Encoding.PEM), durable=False)
    return certificate, secret
