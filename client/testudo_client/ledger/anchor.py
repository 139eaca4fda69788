"""Anchors: small files that remember how far a ledger had come, so that an older copy of it is noticed.

Each holds two slots of 512 bytes, written in turn, so that a kill in the middle of one leaves the other:

    testudo-anchor-1 SEQUENCE LEDGER-ID COUNT HEAD INODE CHECKSUM        (text, padded with spaces, ends in a newline)

The inode tells a ledger from its copy. Not the device: btrfs, overlayfs and NFS number their devices anew at a start.
An anchor is written after the ledger's commit, and holds the ledger back from nothing that it has not seen.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from testudo_client.ledger.entries import Entry
from testudo_common.errors import LedgerError
from testudo_common.files import make_private, sync_folder

_FORMAT: Final = "testudo-anchor-1"
_SLOT_BYTES: Final = 512
_WAIT_SECONDS: Final = 30.0
ADOPT: Final = (
    "if you know why, as after a restored backup or a new computer, run testudo-client ledger with "
    '--adopt "reason"; what the missing entries spent is then counted by nobody, so charge it with --charge-elsewhere'
)


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a ledger had come.

    Attributes:
        ledger_id: Of its first entry.
        count: Its entries, 1 or more.
        head: The last one's hash.
        inode: Of its file.
    """

    ledger_id: str
    count: int
    head: bytes
    inode: int


def refuse_misfit(path: Path, mark: Mark | None, ledger_id: str, entries: Sequence[Entry], inode: int) -> None:
    """Refuse a ledger that is not the one, or not all of the one, that the anchor at ``path`` has seen.

    Args:
        path: For the sentence.
        mark: What the anchor says; None if it is missing or damaged.
        ledger_id: Of the ledger.
        entries: All of the ledger's.
        inode: Of the ledger's file.

    Raises:
        LedgerError: Its anchor is missing or damaged; or it is another ledger, a copy, rolled back, or rewritten.
    """
    if mark is None:
        if len(entries) > 1:  # the first entry is written before its anchor is, and spends nothing
            raise LedgerError("the ledger's anchor is missing or damaged", where=str(path), remedy=ADOPT)
    elif mark.ledger_id != ledger_id:
        raise LedgerError("the ledger is another one than this anchor's", where=str(path), remedy=ADOPT)
    elif mark.count > len(entries):
        raise LedgerError(
            f"the ledger was rolled back: it holds {len(entries)} entries, and this anchor has seen {mark.count}",
            where=str(path),
            remedy=ADOPT,
        )
    elif entries[mark.count - 1].hash != mark.head:
        raise LedgerError("the ledger was rewritten since this anchor saw it", where=str(path), remedy=ADOPT)
    elif mark.inode != inode:
        raise LedgerError("the ledger's file is a copy, or was restored from one", where=str(path), remedy=ADOPT)


def read_mark(path: Path) -> Mark | None:
    """What the anchor at ``path`` says; None if it is missing, or damaged so that it says nothing.

    Raises:
        LedgerError: It cannot be read, or others may read it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, "read", error) from error
    try:
        return _read(path, descriptor)[1]
    finally:
        os.close(descriptor)


class HeldAnchor:
    """An anchor that no other process can write to until it is let go; made by :func:`hold`.

    Attributes:
        path: Where it is, or will be.
        mark: What it says; None if it is missing or damaged.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
        self.path = path
        self.mark: Mark | None
        self._durable = durable
        self._descriptor = _open_locked(path, os.O_RDWR)
        self._sequence, self.mark = 0, None
        if self._descriptor is not None:
            try:
                self._sequence, self.mark = _read(path, self._descriptor)
            except BaseException:
                self.let_go()
                raise

    def write(self, mark: Mark) -> None:
        """Remember ``mark``; when this returns, the disk has it.

        Raises:
            LedgerError: It cannot be written.
        """
        try:
            if self._descriptor is None and not self._create(mark):
                return
            assert self._descriptor is not None
            self._sequence += 1
            os.pwrite(self._descriptor, _slot(self._sequence, mark), self._sequence % 2 * _SLOT_BYTES)
            if self._durable:
                os.fdatasync(self._descriptor)
            self.mark = mark
        except OSError as error:
            raise _unusable(self.path, "written", error) from error

    def _create(self, mark: Mark) -> bool:
        """Make the file; False if another process made one meanwhile, which has seen no less."""
        make_private(self.path.parent)
        self._descriptor = _open_locked(self.path, os.O_RDWR | os.O_CREAT)
        assert self._descriptor is not None
        if self._durable:
            sync_folder(self.path.parent)
        self._sequence, found = _read(self.path, self._descriptor)
        return found is None or found.ledger_id != mark.ledger_id or found.count < mark.count

    def let_go(self) -> None:
        """Unlock it."""
        if self._descriptor is not None:
            os.close(self._descriptor)


@contextmanager
def hold(paths: Sequence[Path], *, durable: bool) -> Iterator[list[HeldAnchor]]:
    """All anchors, locked, until the block is left.

    Args:
        paths: Where they are, or will be; none twice, and always in the same order.
        durable: Whether to wait until the disk has what is written.

    Raises:
        LedgerError: One cannot be opened for writing, others may read it, or it stays locked by another process.
    """
    with ExitStack() as stack:
        held = []
        for path in paths:
            held.append(HeldAnchor(path, durable=durable))
            stack.callback(held[-1].let_go)
        yield held


def _open_locked(path: Path, flags: int) -> int | None:
    """A descriptor that is locked against other processes; None if there is no such file."""
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, "written", error) from error
    patience = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EWOULDBLOCK, errno.EINTR} or time.monotonic() > patience:
                os.close(descriptor)
                raise _unusable(path, "locked", error) from error
            time.sleep(0.002)
        else:
            return descriptor


def _read(path: Path, descriptor: int) -> tuple[int, Mark | None]:
    """The latest whole slot: its sequence number and its mark; (0, None) if there is none."""
    if os.fstat(descriptor).st_mode & 0o077:
        raise LedgerError("others may read or write this anchor", where=str(path), remedy="chmod 600 it")
    data = os.pread(descriptor, 2 * _SLOT_BYTES, 0)
    slots = [slot for start in (0, _SLOT_BYTES) if (slot := _parsed(data[start : start + _SLOT_BYTES])) is not None]
    return max(slots, key=_sequence_of, default=(0, None))


def _sequence_of(slot: tuple[int, Mark | None]) -> int:
    return slot[0]


def _slot(sequence: int, mark: Mark) -> bytes:
    said = f"{_FORMAT} {sequence} {mark.ledger_id} {mark.count} {mark.head.hex()} {mark.inode}"
    line = f"{said} {sha256(said.encode()).hexdigest()}".encode()
    return line.ljust(_SLOT_BYTES - 1) + b"\n"


def _parsed(data: bytes) -> tuple[int, Mark | None] | None:
    words = data.split()
    if len(words) != 7 or sha256(b" ".join(words[:6])).hexdigest().encode() != words[6]:
        return None
    try:
        name, sequence, ledger_id, count, head, inode = (word.decode("ascii") for word in words[:6])
        mark = Mark(ledger_id, int(count), bytes.fromhex(head), int(inode))
        return (int(sequence), mark) if name == _FORMAT and int(sequence) >= 1 and mark.count >= 1 else None
    except ValueError:
        return None


def _unusable(path: Path, how: str, error: OSError) -> LedgerError:
    return LedgerError(
        f"the ledger's anchor cannot be {how}: {error.strerror}",
        where=str(path),
        remedy="make room, or let this user write there; an entry that was written before counts all the same",
    )
