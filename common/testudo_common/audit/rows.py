"""Where a log's entries and notes are kept: in one SQLite file, or in memory. Knows bytes, not what they say.

SQLite in WAL mode: a commit is whole or has never been, and with ``synchronous=FULL`` it is on the disk when it returns
(https://www.sqlite.org/wal.html). Rows of entries are only ever added; a note may be replaced by one of the same size.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from testudo_common.errors import AuditError, AuditFault
from testudo_common.files import create_private
from testudo_common.sqlite_faults import in_words

_WAIT_SECONDS: Final = 30.0
# Marks the file as ours, see https://www.sqlite.org/pragma.html#pragma_application_id
_APPLICATION_ID: Final = 0x7E57D1
_SCHEMA: Final = {
    "entries": "CREATE TABLE entries (place INTEGER PRIMARY KEY, content BLOB NOT NULL) STRICT",
    "notes": "CREATE TABLE notes (size INTEGER PRIMARY KEY, note BLOB NOT NULL) STRICT",
    "never_changed": "CREATE TRIGGER never_changed BEFORE UPDATE ON entries "
    "BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END",
    "never_removed": "CREATE TRIGGER never_removed BEFORE DELETE ON entries "
    "BEGIN SELECT RAISE(ABORT, 'entries are never removed'); END",
}
_DAMAGED: Final = ("it is damaged, or not an audit log", "restore it from a copy, or have it sent again")


class Rows(Protocol):
    """A log's entries and notes."""

    @property
    def place(self) -> str:
        """Where they are, for a sentence."""

    @property
    def size(self) -> int:
        """Entries."""

    def add(self, entries: Sequence[bytes], size: int, note: bytes | None) -> None:
        """Add entries, and keep a note over the first ``size``: both or neither."""

    def entries(self, first: int, stop: int) -> Iterator[bytes]:
        """From ``first`` up to, and without, ``stop``."""

    def notes(self) -> Iterator[bytes]:
        """By size."""

    def note_beyond(self, size: int) -> bytes | None:
        """Of the smallest size above ``size``."""

    def last_note(self) -> bytes | None:
        """Of the largest size."""

    def close(self) -> None:
        """Let the file go."""


class MemoryRows:
    """Rows in lists, which share the bytes of their entries with whoever else has the same ones."""

    place = "the log in memory"

    def __init__(self) -> None:
        self._entries: list[bytes] = []
        self._notes: dict[int, bytes] = {}
        self._sizes: list[int] = []

    @property
    def size(self) -> int:
        """Entries."""
        return len(self._entries)

    def add(self, entries: Sequence[bytes], size: int, note: bytes | None) -> None:
        """Add entries and a note."""
        self._entries.extend(entries)
        if note is not None:
            if size not in self._notes:
                self._sizes.insert(bisect_right(self._sizes, size), size)
            self._notes[size] = note

    def entries(self, first: int, stop: int) -> Iterator[bytes]:
        """From ``first`` up to, and without, ``stop``."""
        return iter(self._entries[first:stop])

    def notes(self) -> Iterator[bytes]:
        """By size."""
        return iter([self._notes[size] for size in self._sizes])

    def note_beyond(self, size: int) -> bytes | None:
        """Of the smallest size above ``size``."""
        place = bisect_right(self._sizes, size)
        return self._notes[self._sizes[place]] if place < len(self._sizes) else None

    def last_note(self) -> bytes | None:
        """Of the largest size."""
        return self._notes[self._sizes[-1]] if self._sizes else None

    def close(self) -> None:
        """Nothing is held."""


class FileRows:
    """Rows in a file, which is made if there is none.

    Args:
        path: The file. Beside it SQLite keeps two of its own while it is open.
        durable: Whether a commit waits for the disk.

    Raises:
        AuditError: The file cannot be used, others may read it, or rows are missing.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
        self._path = path
        with self._faults():
            create_private(path, durable=durable)
            status = path.stat()
            if status.st_mode & 0o077:
                raise self._unusable("others may read or write this log", "chmod 600 it")
            if status.st_nlink != 1:
                # SQLite names its other two files after this one: by two names, one would not see the other's.
                raise self._unusable("this log's file has two names", "remove the hard link")
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=_WAIT_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                self._connection.execute("PRAGMA trusted_schema = OFF")
                self._set_up()
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
                self.size = self._counted()
            except BaseException:
                self._connection.close()
                raise

    @property
    def place(self) -> str:
        """The file."""
        return str(self._path)

    def add(self, entries: Sequence[bytes], size: int, note: bytes | None) -> None:
        """Add entries and a note in one transaction."""
        execute = self._connection.execute
        with self._faults():
            execute("BEGIN IMMEDIATE")
            try:
                if execute("SELECT coalesce(max(place) + 1, 0) FROM entries").fetchone()[0] != self.size:
                    raise self._unusable("another process has added to it", "open it again")
                self._connection.executemany(
                    "INSERT INTO entries (place, content) VALUES (?, ?)", enumerate(entries, self.size)
                )
                if note is not None:
                    execute(
                        "INSERT INTO notes (size, note) VALUES (?, ?) "
                        "ON CONFLICT (size) DO UPDATE SET note = excluded.note",
                        (size, note),
                    )
                execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    execute("ROLLBACK")
        self.size += len(entries)

    def entries(self, first: int, stop: int) -> Iterator[bytes]:
        """From ``first`` up to, and without, ``stop``."""
        with self._faults():
            found = self._connection.execute(
                "SELECT place, content FROM entries WHERE place >= ? AND place < ? ORDER BY place", (first, stop)
            )
            expected = first
            for place, content in found:
                if place != expected:
                    break
                expected += 1
                yield self._blob(content)
            if expected < stop:
                raise self._unusable(f"entry {expected} is missing", _DAMAGED[1])

    def notes(self) -> Iterator[bytes]:
        """By size."""
        with self._faults():
            for (note,) in self._connection.execute("SELECT note FROM notes ORDER BY size"):
                yield self._blob(note)

    def note_beyond(self, size: int) -> bytes | None:
        """Of the smallest size above ``size``."""
        return self._one("SELECT note FROM notes WHERE size > ? ORDER BY size LIMIT 1", size)

    def last_note(self) -> bytes | None:
        """Of the largest size."""
        return self._one("SELECT note FROM notes ORDER BY size DESC LIMIT 1")

    def close(self) -> None:
        """Let the file go; what was written is in it alone then."""
        with self._faults():
            self._connection.close()

    def _one(self, query: str, *values: int) -> bytes | None:
        with self._faults():
            row = self._connection.execute(query, values).fetchone()
        return None if row is None else self._blob(row[0])

    def _blob(self, value: object) -> bytes:
        """What stood in a damaged page may be of any type."""
        if not isinstance(value, bytes):
            raise self._unusable(*_DAMAGED)
        return value

    def _set_up(self) -> None:
        """Make the tables in an empty file; refuse one that is not ours."""
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            found = dict(execute("SELECT name, sql FROM sqlite_master"))
            application = execute("PRAGMA application_id").fetchone()[0]
            if (application, found) == (0, {}):
                execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                for statement in _SCHEMA.values():
                    execute(statement)
            elif (application, found) != (_APPLICATION_ID, _SCHEMA):
                raise self._unusable(*_DAMAGED)
            execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                execute("ROLLBACK")

    def _counted(self) -> int:
        """How many entries there are, none missing before the last and none that a kept note is over."""
        count, beyond, least, noted = self._connection.execute(
            "SELECT count(*), coalesce(max(place) + 1, 0), coalesce(min(place), 0), "
            "(SELECT coalesce(max(size), 0) FROM notes) FROM entries"
        ).fetchone()
        if count != beyond or least != 0:
            raise self._unusable(f"it holds {count} entries, and the last is number {beyond - 1}", _DAMAGED[1])
        if noted > count:
            raise self._unusable(f"it holds {count} entries, and a note over {noted}", _DAMAGED[1])
        return int(count)

    def _unusable(self, problem: str, remedy: str) -> AuditError:
        return AuditError(AuditFault.STORAGE, problem, where=self.place, remedy=remedy)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """SQLite's and the system's faults as ours."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # ours: a log that was closed
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._unusable(*in_words(error, _DAMAGED)) from error
        except OSError as error:
            raise self._unusable(
                f"it cannot be used: {error.strerror}", "let this user write to the file and its folder"
            ) from error
