"""A name for a data set: the same for the same records in any order; without the owner's key nobody can test a guess.

Of encoded examples, so the same table under two plans that encode it differently has two names; the ledger then counts
both together, unless the owner says otherwise. Sources: HMAC is RFC 2104, over the sorted SHA-256 of each record.
"""

from __future__ import annotations

import hmac
import math
import os
import secrets
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np

from testudo_common.errors import DataError, LedgerError
from testudo_common.files import make_private, sync_folder
from testudo_common.learning.tasks import Examples

_DOMAIN: Final = b"testudo-fingerprint-1"
_LEAST_KEY_BYTES: Final = 16
_KEY_BYTES: Final = 32


def fingerprint_of(examples: Examples, key: bytes) -> str:
    """The fingerprint of ``examples``, 64 hexadecimal digits.

    Args:
        examples: ``float32[n, *input_shape]`` and ``int64[n]`` or ``float32[n]``. A record that occurs twice counts
            twice; -0.0 is 0.0.
        key: The owner's secret, at least 16 bytes.

    Raises:
        LedgerError: The key is too short to be a secret.
        DataError: A value is not a number.
    """
    if len(key) < _LEAST_KEY_BYTES:
        raise LedgerError("the key of the fingerprint is too short", remedy="make a new one, of 32 random bytes")
    shape = len(examples), math.prod(examples.inputs.shape[1:])
    kind = "<i8" if np.issubdtype(examples.targets.dtype, np.integer) else "<f4"
    inputs = np.ascontiguousarray(examples.inputs, dtype="<f4").reshape(shape) + np.float32(0)  # [n, w]
    targets = np.ascontiguousarray(examples.targets, dtype=kind).reshape(-1, 1) + np.zeros(1, dtype=kind)  # [n, 1]
    if not (np.isfinite(inputs).all() and np.isfinite(targets).all()):
        raise DataError("a value is not a finite number", remedy="leave out the rows that hold one")
    records = np.concatenate([inputs.view(np.uint8), targets.view(np.uint8)], axis=1)  # [n, bytes of a record]
    width, whole = records.shape[1], memoryview(records.tobytes())
    hashes = sorted(sha256(whole[start : start + width]).digest() for start in range(0, len(whole), width))
    form = f"{kind} {' '.join(map(str, examples.inputs.shape))}".encode()
    said = hmac.new(key, _DOMAIN + sha256(form).digest(), sha256)
    said.update(b"".join(hashes))
    return said.hexdigest()


def fingerprint_key(path: Path) -> bytes:
    """The owner's secret for fingerprints, 32 bytes, from ``path``; made there, with mode 0600, if there is none.

    Without it the same data gets another name, and the ledger counts everything against it: too much, never too little.

    Raises:
        LedgerError: It cannot be read or written, others may read it, or it is no such key.
    """
    try:
        if not path.exists():
            _create_key(path)
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise LedgerError("others may read this key", where=str(path), remedy="chmod 600 it")
            key = file.read(_KEY_BYTES + 1)
    except OSError as error:
        raise LedgerError(
            f"the key of the fingerprints cannot be used: {error.strerror}",
            where=str(path),
            remedy="let this user read and write it",
        ) from error
    if len(key) != _KEY_BYTES:
        raise LedgerError("not a key of fingerprints", where=str(path), remedy="restore it from a copy")
    return key


def _create_key(path: Path) -> None:
    """There whole or not at all, and never in place of another."""
    make_private(path.parent)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was faster, and its key is the one
            path.hardlink_to(temporary)
    finally:
        Path(temporary).unlink()
    sync_folder(path.parent)
