"""``testudo-server init`` and ``renew``: a federation's folder with keys, CA and the server's certificate.

Makes what is missing and changes nothing that is there, so that a second run, and one after a crash, are safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from testudo_common.errors import KeyFileError, UsageError
from testudo_common.files import make_private, write_atomically
from testudo_common.key_files import LogKeyKind, read_public
from testudo_common.provisioning.certificates import (
    Authority,
    certificate_pem,
    is_host,
    new_authority,
    read_certificate,
    server_certificate,
)
from testudo_common.provisioning.expiry import expiry_warning
from testudo_common.provisioning.fingerprint import federation_fingerprint
from testudo_common.provisioning.tls_keys import read_tls_key, tls_key
from testudo_common.roster import is_client_id
from testudo_server.provisioning.folder import FederationFolder, FederationSettings
from testudo_server.roster import FEDERATION_PUBLIC, admit

_SETTINGS_HEAD = """\
# What this federation is called and where its server is. After other hosts: testudo-server renew, and restart the run.
# Owners who were invited before keep the address that their answer named: the first host, and the port.
"""


@dataclass(frozen=True, slots=True)
class Foundation:
    """What a federation is known by.

    Attributes:
        settings: Name, hosts, port.
        federation_key: Its public key, hex.
        authority: The CA's certificate.
        server: The server's certificate.
        fingerprint: Over key and CA certificate.
    """

    settings: FederationSettings
    federation_key: str
    authority: x509.Certificate
    server: x509.Certificate
    fingerprint: str

    @property
    def server_digest(self) -> str:
        """SHA-256 of the server's certificate (DER), hex: what a policy may pin."""
        return self.server.fingerprint(hashes.SHA256()).hex()


def found(
    folder: FederationFolder, settings: FederationSettings, *, log_key: LogKeyKind | None = None, now: datetime
) -> Foundation:
    """Make what is missing of a federation's folder.

    Args:
        folder: Where; is made for this user alone.
        settings: Name, hosts and port; must be those that are there, if there are any.
        log_key: Which kind the log's key is to be; None: the one that is there, or Ed25519.
        now: By this computer's clock.

    Raises:
        UsageError: The folder is another federation's, has other hosts or another port, or a name cannot be used.
        RosterError, KeyFileError: A roster or key is there that does not fit.
    """
    if not is_client_id(settings.federation):
        raise UsageError("a federation's name must be 1 to 128 printable characters", where="--federation")
    for host in settings.hosts:
        if not is_host(host):
            raise UsageError(f"{host!r} is neither a DNS name nor an IP address", where="--host", remedy="correct it")
    if folder.settings_file.exists():
        _refuse_others(folder, settings)
    make_private(folder.folder)
    admit(folder.folder, settings.federation, {}, log_key=log_key)
    if not folder.settings_file.exists():
        text = _SETTINGS_HEAD + tomli_w.dumps(
            {"federation": settings.federation, "hosts": list(settings.hosts), "port": settings.port}
        )
        write_atomically(folder.settings_file, text.encode())
    for each in (folder.ca_key.parent, folder.invites, folder.members_folder, folder.answers):
        make_private(each)
    if not folder.ca_certificate.exists():  # where it is, its key may lie elsewhere: it is not needed to run
        root = new_authority(settings.federation, tls_key(folder.ca_key), now).certificate
        write_atomically(folder.ca_certificate, certificate_pem(root).encode())
    if not folder.server_certificate.exists():
        _sign_server(folder, settings, now)
    return foundation_in(folder)


def renew(folder: FederationFolder, now: datetime) -> Foundation:
    """A new certificate for the server's key, for the hosts that ``federation.toml`` names now.

    Raises:
        UsageError, KeyFileError: The folder is not complete.
        ProvisionError: The CA has run out.
    """
    _sign_server(folder, folder.settings(), now)
    return foundation_in(folder)


def foundation_in(folder: FederationFolder) -> Foundation:
    """What is there.

    Raises:
        UsageError, KeyFileError: The folder is not complete.
        ProvisionError: A certificate there is not one.
    """
    key = read_public(folder.folder / FEDERATION_PUBLIC).public_bytes_raw().hex()
    root, server = (_certificate(path) for path in (folder.ca_certificate, folder.server_certificate))
    return Foundation(folder.settings(), key, root, server, federation_fingerprint(key, certificate_pem(root)))


def authority_in(folder: FederationFolder) -> Authority:
    """The CA, with its key.

    Raises:
        UsageError, KeyFileError: It is not there, or the key is another's.
        ProvisionError: Its certificate is not one.
    """
    authority = Authority(_certificate(folder.ca_certificate), read_tls_key(folder.ca_key))
    if authority.certificate.public_key() != authority.key.public_key():
        raise KeyFileError("not the key of the CA's certificate", where=str(folder.ca_key), remedy="put the CA's here")
    return authority


def warnings_of(foundation: Foundation, now: datetime) -> list[str]:
    """A sentence for each of the federation's own certificates that runs out soon."""
    server = expiry_warning(
        "the server's certificate", foundation.server, now, remedy="testudo-server renew FOLDER, and restart the run"
    )
    root = expiry_warning(
        "the federation's CA",
        foundation.authority,
        now,
        remedy="no certificate outlives it: make a new folder with testudo-server init, and invite all owners to it",
    )
    return [each for each in (server, root) if each]


def _sign_server(folder: FederationFolder, settings: FederationSettings, now: datetime) -> None:
    key = tls_key(folder.server_key)
    signed = server_certificate(authority_in(folder), key.public_key(), settings.hosts, now)
    write_atomically(folder.server_certificate, certificate_pem(signed).encode())


def _refuse_others(folder: FederationFolder, settings: FederationSettings) -> None:
    there = folder.settings()
    if there.federation != settings.federation:
        problem = f"this is the folder of the federation {there.federation!r}"
        raise UsageError(problem, where=str(folder.folder), remedy="name another folder")
    if there != settings:
        raise UsageError(
            "there are other hosts, or another port, already; nothing was changed",
            where=str(folder.settings_file),
            remedy="edit this file, and then: testudo-server renew FOLDER",
        )


def _certificate(path: Path) -> x509.Certificate:
    try:
        return read_certificate(path.read_text(encoding="ascii"), source=str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise UsageError(
            f"cannot be read: {reason}", where=str(path), remedy="testudo-server init makes what is missing"
        ) from error
