"""TLS keys and certificates of an owner, a pair a folder, and the link that says which pair is used.

``connection/tls`` is a link to ``tls-1``; the next pair grows in ``tls-2``, and once it is whole the link is moved, in
one step. A process that is killed in between, or that reads at that moment, finds a whole pair: the old or the new.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from testudo_client.provisioning.connection import CLIENT_CERTIFICATE, CLIENT_KEY, ConnectionFiles
from testudo_common.errors import UsageError
from testudo_common.files import sync_folder, write_atomically
from testudo_common.provisioning.tls_keys import read_tls_key, tls_key

_NAME = re.compile(r"tls-([1-9][0-9]{0,8})\Z")


def current_key(files: ConnectionFiles) -> ec.EllipticCurvePrivateKey:
    """The key in use; the first one is made if there is none.

    Raises:
        KeyFileError: It cannot be used, or not be written.
    """
    if not os.path.lexists(files.tls):
        key = tls_key(files.folder / "tls-1" / CLIENT_KEY)
        files.tls.symlink_to("tls-1")
        sync_folder(files.folder)
        return key
    return read_tls_key(files.client_key)


def next_key(files: ConnectionFiles) -> ec.EllipticCurvePrivateKey:
    """The key of the next pair; it is made if there is none.

    Raises:
        KeyFileError: It cannot be used, or not be written.
        UsageError: The link is not as it was made.
    """
    return tls_key(_next(files) / CLIENT_KEY)


def next_key_if_there(files: ConnectionFiles) -> ec.EllipticCurvePrivateKey | None:
    """The key of the next pair; None where no renewal is under way.

    Raises:
        KeyFileError: It cannot be used.
        UsageError: The link is not as it was made.
    """
    path = _next(files) / CLIENT_KEY
    return read_tls_key(path) if path.exists() else None


def use_next(files: ConnectionFiles, certificate: str) -> None:
    """Put the certificate beside the next key, and let the link name that pair.

    Args:
        files: Of the owner.
        certificate: PEM, for the next key.

    Raises:
        UsageError: The link is not as it was made.
    """
    folder = _next(files)
    write_atomically(folder / CLIENT_CERTIFICATE, certificate.encode())
    link = files.folder / ".new-tls"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    link.replace(files.tls)
    sync_folder(files.folder)


def _next(files: ConnectionFiles) -> Path:
    try:
        found = _NAME.match(str(files.tls.readlink()))
    except OSError:
        found = None
    if found is None:
        raise UsageError(
            "not the link to tls-1, tls-2, ... that joining makes",
            where=str(files.tls),
            remedy="put the link back, to the folder of the newest pair",
        )
    return files.folder / f"tls-{int(found[1]) + 1}"
