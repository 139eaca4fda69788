"""One process at a time works in a folder, and others can find out which: a lock that says who holds it.

The lock goes with its holder, however that ends. While it is held, the number in its file is the holder's, so that a
signal meant for it cannot reach another process.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from testudo_common.errors import UsageError
from testudo_common.files import make_private

RUN_LOCK = "server.lock"


@contextmanager
def held_lock(folder: Path, *, name: str = RUN_LOCK, busy: str, remedy: str) -> Iterator[None]:
    """Hold the folder's lock until the block is left.

    Args:
        folder: Made if missing.
        name: Of the lock's file.
        busy: What to say where another process holds it.
        remedy: And what to do then.

    Raises:
        UsageError: Another process holds it, or the folder cannot be written.
    """
    path = folder / name
    try:
        make_private(folder)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror}", where=str(folder), remedy="choose a folder of your own"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(busy, where=str(folder), remedy=remedy) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder_of(folder: Path, *, name: str = RUN_LOCK) -> int | None:
    """The process that holds the folder's lock; None if none does."""
    with suppress(FileNotFoundError):
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with suppress(ValueError):
                return int(os.pread(descriptor, 32, 0).decode())
        finally:
            os.close(descriptor)
    return None
