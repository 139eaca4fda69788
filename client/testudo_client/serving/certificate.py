"""The certificate of an owner's server: its own root, made once for this owner, or one that the owner brings."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from testudo_common.errors import UsageError
from testudo_common.files import write_atomically
from testudo_common.provisioning.certificates import is_host
from testudo_common.provisioning.loopback import self_signed
from testudo_common.provisioning.tls_keys import tls_key

KEY_FILE, CERTIFICATE_FILE = "tls.key", "tls.crt"
_RENEWED_BEFORE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class TlsPair:
    """A certificate with its key.

    Attributes:
        certificate: PEM; its own root where we made it.
        key: PEM.
    """

    certificate: Path
    key: Path

    def check(self) -> None:
        """Return only if both belong together.

        Raises:
            UsageError: They do not, or cannot be read.
        """
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            remedy = "give --tls-cert and --tls-key that go together, the key without a password"
            raise UsageError("the certificate cannot be used", where=str(self.certificate), remedy=remedy) from error


def own_certificate(folder: Path, hosts: list[str], now: datetime) -> TlsPair:
    """A self-signed certificate for ``hosts`` and loopback, made anew where the one there ends or names others.

    Args:
        folder: Where it is kept; the key has mode 0600, and stays the same.
        hosts: At which this server is reached; an address that stands for all (0.0.0.0) names none.
        now: The present.

    Raises:
        KeyFileError: The key cannot be used.
    """
    pair = TlsPair(folder / CERTIFICATE_FILE, folder / KEY_FILE)
    key = tls_key(pair.key)
    named = sorted({host for host in hosts if is_host(host) and host not in {"0.0.0.0", "::"}})  # noqa: S104  # a comparison
    if not _good(
        pair.certificate, key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), named, now
    ):
        made = self_signed(key, named, now)
        write_atomically(pair.certificate, made.public_bytes(Encoding.PEM))
    return pair


def _good(path: Path, public: bytes, hosts: list[str], now: datetime) -> bool:
    try:
        there = x509.load_pem_x509_certificate(path.read_bytes())
        names = there.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    known = {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}
    same = there.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == public
    return same and known >= set(hosts) and now + _RENEWED_BEFORE < there.not_valid_after_utc
