"""The audit log's place in a run's folder, and that one process at a time writes it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testudo_common.audit.log import AuditLog
from testudo_common.errors import UsageError
from testudo_common.files import make_private

AUDIT_LOG = "audit.db"
_LOCK = "audit.lock"  # of its own: SQLite's locks on a file go when any handle on it is closed


@contextmanager
def held_log(folder: Path, *, durable: bool = True) -> Iterator[AuditLog]:
    """The log of the run in ``folder``, to be written, until the block is left; made if there is none.

    Args:
        folder: Made if missing.
        durable: Whether the disk has what was added when an addition returns.

    Raises:
        UsageError: Another process is writing it.
        AuditError: Its file cannot be used.
    """
    make_private(folder)
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go of when the file is closed, also by a kill
        except BlockingIOError as error:
            raise UsageError(
                "another process is writing this audit log",
                where=str(folder / AUDIT_LOG),
                remedy="wait until its run is over, or stop it first",
            ) from error
        log = AuditLog(folder / AUDIT_LOG, durable=durable)
        try:
            yield log
        finally:
            log.close()
    finally:
        os.close(descriptor)


@contextmanager
def read_log(folder: Path) -> Iterator[AuditLog]:
    """The log of the run in ``folder``, to be read; a run may go on meanwhile.

    Raises:
        UsageError: There is none.
        AuditError: Its file cannot be used.
    """
    path = folder / AUDIT_LOG
    if not path.exists():
        raise UsageError("there is no audit log here", where=str(path), remedy="name the folder that a run was kept in")
    log = AuditLog(path)
    try:
        yield log
    finally:
        log.close()
