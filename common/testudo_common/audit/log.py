"""One log's entries, and the notes that were signed over them: the server's own, or an owner's mirror of it.

Holds what it is given: that a note is signed, and is over these entries, is for whoever adds it. Proofs are computed
from the entries, and no hash is stored. Used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from testudo_common.audit.checkpoints import parse_checkpoint
from testudo_common.audit.merkle import Frontier, Tree, leaf_hash
from testudo_common.audit.notes import parse_note
from testudo_common.audit.rows import FileRows, MemoryRows, Rows
from testudo_common.errors import AuditError, AuditFault


class AuditLog:
    """A log that can only grow.

    Args:
        path: Its file, which is made if there is none; None keeps it in memory.
        durable: Whether what was added is on the disk when :meth:`append` returns.

    Raises:
        AuditError: The file cannot be used, others may read it, or entries are missing in it.
    """

    def __init__(self, path: Path | None, *, durable: bool = True) -> None:
        self._rows: Rows = FileRows(path, durable=durable) if path else MemoryRows()
        self._frontier = Frontier()
        self._tree: Tree | None = None

    @property
    def size(self) -> int:
        """Entries."""
        return self._rows.size

    def append(self, entries: Sequence[bytes], note: bytes | None = None) -> int:
        """Add entries, and keep a note, in one transaction.

        Args:
            entries: Each in canonical form.
            note: A signed note; over no more entries than there are then.

        Returns:
            The index of the first of them.

        Raises:
            AuditError: The note is none, or is over more entries; or the file cannot be written. Nothing was added.
        """
        first = self.size
        self._rows.add(entries, self._checked(note, first + len(entries)), note)
        return first

    def keep_note(self, note: bytes) -> None:
        """Keep a note; it replaces the kept one of the same size.

        Raises:
            AuditError: It is none, or is over more entries than there are; or the file cannot be written.
        """
        self.append((), note)

    def latest_note(self) -> bytes | None:
        """The kept note of the largest size."""
        return self._rows.last_note()

    def note_covering(self, index: int) -> bytes | None:
        """The kept note of the smallest size that entry ``index`` is within."""
        return self._rows.note_beyond(index) if 0 <= index < self.size else None

    def notes(self) -> Iterator[bytes]:
        """All kept notes, by size."""
        return self._rows.notes()

    def entries(self, first: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Entries from ``first`` up to, and without, ``stop``; or up to the last.

        Raises:
            IndexError: There are not so many.
            AuditError: The file cannot be read.
        """
        stop = self._within(stop)
        return self._rows.entries(min(self._within(first), stop), stop)

    def root(self, size: int | None = None) -> bytes:
        """The root of the first ``size`` entries, or of all; 32 bytes."""
        if size is not None and size != self.size:
            return self._grown_tree().root(self._within(size))
        for entry in self._rows.entries(self._frontier.size, self.size):
            self._frontier.append(leaf_hash(entry))
        return self._frontier.root()

    def inclusion_proof(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """That entry ``index`` is one of the first ``size``, or of all.

        Raises:
            IndexError: There are not so many.
        """
        return self._grown_tree().inclusion_proof(index, self._within(size))

    def consistency_proof(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        """That the first ``new`` entries, or all, begin with the first ``old``.

        Raises:
            IndexError: There are not so many.
        """
        return self._grown_tree().consistency_proof(old, self._within(new))

    def close(self) -> None:
        """Let the file go."""
        self._rows.close()

    def _within(self, size: int | None) -> int:
        if size is not None and not 0 <= size <= self.size:
            raise IndexError(f"{size} entries of {self.size}")
        return self.size if size is None else size

    def _grown_tree(self) -> Tree:
        """The tree over all entries, from when a first proof is asked for."""
        if self._tree is None:
            self._tree = Tree()
        for entry in self._rows.entries(len(self._tree), self.size):
            self._tree.append(leaf_hash(entry))
        return self._tree

    def _checked(self, note: bytes | None, size: int) -> int:
        """The size that a note names; 0 for none."""
        if note is None:
            return 0
        over = parse_checkpoint(parse_note(note).text).size
        if over > size:
            problem = f"a checkpoint over {over} entries, where there are {size}"
            raise AuditError(AuditFault.TRUNCATED, problem, where=self._rows.place)
        return over
