"""The ledger's file: one SQLite table to which rows are only ever added. Knows rows of bytes, not what they say.

SQLite with a rollback journal and ``synchronous=EXTRA``: a commit is whole or has never been, and is on the disk when
it returns (https://www.sqlite.org/atomiccommit.html). Not WAL: its rows would be spread over two files, and a reader
would not hold a writer's commit back, which the order of ledger and anchors relies on. A connection lives for one
block only, so that a file that was exchanged under a running process is noticed at the next.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from testudo_client.ledger.chain import Row
from testudo_common.errors import LedgerError
from testudo_common.files import create_private
from testudo_common.sqlite_faults import in_words

_WAIT_SECONDS: Final = 30.0
_APPLICATION_ID: Final = (
    0x7E57D0  # marks the file as ours, see https://www.sqlite.org/pragma.html#pragma_application_id
)
_SCHEMA: Final = {
    "entries": "CREATE TABLE entries (place INTEGER PRIMARY KEY, content BLOB NOT NULL, hash BLOB NOT NULL) STRICT",
    "never_changed": "CREATE TRIGGER never_changed BEFORE UPDATE ON entries "
    "BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END",
    "never_removed": "CREATE TRIGGER never_removed BEFORE DELETE ON entries "
    "BEGIN SELECT RAISE(ABORT, 'entries are never removed'); END",
}
_DAMAGED: Final = (
    "it is damaged, or not a ledger",
    'restore it from a copy, and run testudo-client ledger with --adopt "reason"',
)


class Page:
    """The table, in one transaction."""

    def __init__(self, connection: sqlite3.Connection, place: str) -> None:
        self._connection, self._place = connection, place

    @property
    def blank(self) -> bool:
        """Whether the file was never set up."""
        found = dict(self._connection.execute("SELECT name, sql FROM sqlite_master"))
        application = self._connection.execute("PRAGMA application_id").fetchone()[0]
        if found != (_SCHEMA if application == _APPLICATION_ID else {}) or application not in {0, _APPLICATION_ID}:
            raise LedgerError(_DAMAGED[0], where=self._place, remedy=_DAMAGED[1])
        return not found

    def set_up(self) -> None:
        """Make the table."""
        self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        for statement in _SCHEMA.values():
            self._connection.execute(statement)

    def rows_from(self, index: int) -> Iterator[Row]:
        """The rows from ``index`` on, in order."""
        return self._connection.execute(
            "SELECT place, content, hash FROM entries WHERE place >= ? ORDER BY place", (index,)
        )

    def insert(self, row: Row) -> None:
        """Add a row."""
        self._connection.execute("INSERT INTO entries (place, content, hash) VALUES (?, ?, ?)", row)

    def commit(self) -> None:
        """Keep what was done; when this returns, the disk has it."""
        self._connection.execute("COMMIT")


class Book:
    """One ledger's file.

    Args:
        path: Where it is; None keeps it in memory.
        durable: Whether a commit waits for the disk.
    """

    def __init__(self, path: Path | None, *, durable: bool) -> None:
        self._path, self._durable = path, durable
        self._in_memory = None if path else sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)

    @property
    def place(self) -> str:
        """Where it is, for a sentence."""
        return str(self._path or "the ledger in memory")

    @property
    def exists(self) -> bool:
        """Whether there is such a file."""
        return self._path is None or self._path.exists()

    def create(self) -> None:
        """Make an empty file of mode 0600, unless there is one."""
        if self._path is None:
            return
        with _faults(self.place):
            create_private(self._path, durable=self._durable)

    def inode(self) -> int:
        """The number of the file; 0 in memory.

        Raises:
            LedgerError: It is missing, others may read it, or it has a second name.
        """
        if self._path is None:
            return 0
        with _faults(self.place):
            status = self._path.stat()
        if status.st_mode & 0o077:
            raise LedgerError("others may read or write this ledger", where=self.place, remedy="chmod 600 it")
        if status.st_nlink != 1:
            # SQLite names its journal after the file: by two names, one would not see the other's.
            raise LedgerError("this ledger's file has two names", where=self.place, remedy="remove the hard link")
        return status.st_ino

    @contextmanager
    def reading(self) -> Iterator[Page]:
        """A transaction in which nobody else commits, once something was read."""
        with self._transaction("BEGIN") as page:
            yield page

    @contextmanager
    def writing(self) -> Iterator[Page]:
        """A transaction in which nobody else writes. Without :meth:`Page.commit` it has never been."""
        with self._transaction("BEGIN IMMEDIATE") as page:
            yield page

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Page]:
        before = self.inode()
        with _faults(self.place):
            connection = self._in_memory or self._connect()
            try:
                if self.inode() != before:
                    raise LedgerError("its file was exchanged just now", where=self.place, remedy="try again")
                connection.execute(begin)
                yield Page(connection, self.place)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if connection is not self._in_memory:
                    connection.close()

    def _connect(self) -> sqlite3.Connection:
        assert self._path is not None
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw", uri=True, timeout=_WAIT_SECONDS, isolation_level=None
        )
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute(f"PRAGMA synchronous = {'EXTRA' if self._durable else 'OFF'}")
        except BaseException:
            connection.close()
            raise
        return connection


@contextmanager
def _faults(place: str) -> Iterator[None]:
    """SQLite's and the system's faults as ours."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        problem, remedy = in_words(error, _DAMAGED)
        raise LedgerError(problem, where=place, remedy=remedy) from error
    except OSError as error:
        raise LedgerError(
            f"it cannot be used: {error.strerror}", where=place, remedy="let this user write to the file and its folder"
        ) from error
