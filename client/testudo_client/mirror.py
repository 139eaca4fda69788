"""An owner's mirror of a log: all of its entries, and what they add up to. It only ever grows.

What is new is taken in only where it leads from exactly these entries to the root that the log signed. Whether the
entries keep the log's own rules is History's to say, whether they are what this owner was sent is own_checks.py's.
The file is opened for one answer only, so that one that was exchanged under a running process is noticed at the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from testudo_client.seen_notes import NoteReader, Seen
from testudo_common.audit.checkpoints import Checkpoint
from testudo_common.audit.entries import RoundOpened, decode_entry
from testudo_common.audit.history import History, begin_history, extend
from testudo_common.audit.log import AuditLog
from testudo_common.audit.merkle import Frontier, leaf_hash
from testudo_common.errors import AuditError, AuditFault


@dataclass(frozen=True, slots=True)
class State:
    """What the mirror's entries add up to.

    Attributes:
        history: By the log's own rules.
        opened: Every attempt at a round: index of the entry that opened it, and the round.
        last: The last entry, to recognise the file by; None of an empty one.
    """

    history: History
    opened: tuple[tuple[int, int], ...] = ()
    last: bytes | None = None

    @property
    def size(self) -> int:
        """Entries."""
        return self.history.size

    def grown(self, entries: tuple[bytes, ...]) -> State:
        """The state with further entries.

        Raises:
            AuditError: They break a rule of the log.
        """
        return _grown(self, entries) if entries else self


@lru_cache(maxsize=64)
def _grown(state: State, entries: tuple[bytes, ...]) -> State:
    """Remembered, as what the entries add up to is."""
    history = extend(state.history, entries)
    found = ((state.size + place, decode_entry(entry)) for place, entry in enumerate(entries))
    opened = tuple((index, entry.round) for index, entry in found if isinstance(entry, RoundOpened))
    return State(history, state.opened + opened, entries[-1])


@lru_cache(maxsize=64)
def _root(history: History, entries: tuple[bytes, ...]) -> bytes:
    """The root of a log with further entries, whatever they are."""
    frontier = history.frontier.copy()
    for entry in entries:
        frontier.append(leaf_hash(entry))
    return frontier.root()


class Mirror:
    """The mirror of one plan's log.

    Args:
        path: Its file, made when there is something to keep; None keeps it in memory.
        reader: Whose signatures count.
        federation_key: Which signs the roster, 32 bytes.
        plan_digest: Of the plan, hex.
        durable: Whether to wait until the disk has what is kept.
    """

    def __init__(
        self, path: Path | None, reader: NoteReader, federation_key: bytes, plan_digest: str, *, durable: bool = True
    ) -> None:
        self._path, self._durable, self._reader = path, durable, reader
        self._empty = State(begin_history(federation_key, plan_digest))
        self._state = self._empty
        self._log = AuditLog(None) if path is None else None

    @contextmanager
    def held(self) -> Iterator[None]:
        """The file is open, and what is known of it is what stands in it, until the block is left.

        Raises:
            AuditError: STORAGE, where the file cannot be used, or does not hold what it held.
        """
        if self._path is None:
            yield
            return
        self._log = AuditLog(self._path, durable=self._durable)
        try:
            self._catch_up()
            yield
        finally:
            self._log.close()
            self._log = None

    @property
    def state(self) -> State:
        """What the entries add up to."""
        return self._state

    @property
    def log(self) -> AuditLog:
        """The entries and notes, inside :meth:`held`."""
        assert self._log is not None
        return self._log

    def continued(self, first: int, entries: tuple[bytes, ...], checkpoint: Checkpoint) -> tuple[bytes, ...] | None:
        """What is new in a log of which ``entries`` were sent, from index ``first`` on; None: all of it is needed.

        Where the entries do not fit these, only all of them tell which one was rewritten.

        Args:
            first: At most :attr:`State.size`.
            entries: Not verified.
            checkpoint: Signed by the log.

        Raises:
            AuditError: PROOF: the entries are not those that the log signed. REWRITTEN: they are, and were others
                before. TRUNCATED: there were more.
        """
        if first + len(entries) != checkpoint.size:
            raise AuditError(
                AuditFault.PROOF,
                f"a checkpoint over {checkpoint.size} entries, and entries up to number {first + len(entries)}",
            )
        if first == self._state.size:
            root = _root(self._state.history, entries)
        else:
            root = Frontier(leaf_hash(entry) for entry in (*self.log.entries(0, first), *entries)).root()
        if root != checkpoint.root:
            if first > 0:
                return None
            raise AuditError(AuditFault.PROOF, "the entries do not lead to the root that the log signed")
        known = self._state.size - first
        for place, mine in enumerate(self.log.entries(first, min(self._state.size, checkpoint.size))):
            if mine != entries[place]:
                raise AuditError(AuditFault.REWRITTEN, "the log holds another entry than it did", index=first + place)
        if checkpoint.size < self._state.size:
            raise AuditError(
                AuditFault.TRUNCATED, f"the log has {checkpoint.size} entries, and had {self._state.size} before"
            )
        return entries[known:]

    def take(self, grown: State, entries: Sequence[bytes], seen: Seen) -> None:
        """Add entries under a note of the log; on the disk when this returns.

        Args:
            grown: The state with them.
            entries: New.
            seen: The note over all entries then.

        Raises:
            AuditError: STORAGE; nothing was added.
        """
        merged = self._merged(seen)
        if entries or merged != self._kept(seen.checkpoint.size):
            self.log.append(entries, merged)
        self._state = grown

    def keep(self, seen: Seen) -> None:
        """Keep a note, with cosignatures that are new.

        Raises:
            AuditError: SPLIT_VIEW: it is over other entries than these. TRUNCATED: it is over more.
        """
        kept = self._kept(seen.checkpoint.size)
        if kept is None or self._reader.open(kept).checkpoint != seen.checkpoint:
            self.refuse_other_view(seen.checkpoint)
        merged = self._merged(seen)
        if merged != kept:
            self.log.keep_note(merged)

    def refuse_other_view(self, checkpoint: Checkpoint) -> None:
        """Return only if a checkpoint is over the first of these entries. Attack: another log is shown to others."""
        if checkpoint.size > self._state.size:
            raise AuditError(
                AuditFault.TRUNCATED,
                f"others were shown {checkpoint.size} entries of the log, and this owner {self._state.size}",
            )
        whole = checkpoint.size == self._state.size
        root = self._state.history.root if whole else self.log.root(checkpoint.size)
        if root != checkpoint.root:
            raise AuditError(
                AuditFault.SPLIT_VIEW,
                f"the log signed two different histories: its first {checkpoint.size} entries are others elsewhere",
            )

    def cosigned_since(self, round_number: int) -> frozenset[str]:
        """Who was seen to cosign a checkpoint of round ``round_number`` or a later one."""
        first = next((index for index, opened in self._state.opened if opened >= round_number), self._state.size)
        return frozenset().union(*(seen.cosigners for seen in self.notes_beyond(first)))

    def notes_beyond(self, index: int) -> Iterator[Seen]:
        """The kept notes over entry ``index``, by size."""
        while (note := self.log.note_covering(index)) is not None:
            seen = self._reader.open(note)
            yield seen
            index = seen.checkpoint.size

    def _kept(self, size: int) -> bytes | None:
        """The kept note over exactly ``size`` entries."""
        note = self.log.note_covering(size - 1) if size else None
        return note if note is not None and self._reader.open(note).checkpoint.size == size else None

    def _merged(self, seen: Seen) -> bytes:
        kept = self._kept(seen.checkpoint.size)
        if kept is None:
            return seen.data
        before = self._reader.open(kept)
        if before.cosigners >= seen.cosigners:
            return kept
        return seen.data if before.cosigners <= seen.cosigners else self._reader.join(kept, seen.data)

    def _catch_up(self) -> None:
        """Take in what another process added; begin anew where the file is not the one that was known."""
        log, known = self.log, self._state.size
        if known and (log.size < known or next(log.entries(known - 1, known)) != self._state.last):
            self._state, known = self._empty, 0
        if log.size == known:
            return
        damaged = AuditError(
            AuditFault.STORAGE,
            "your mirror of the log is damaged",
            where=str(self._path),
            remedy="move it away: the whole log is sent again, and compared with what you signed",
        )
        try:
            grown = self._state.grown(tuple(log.entries(known)))
            note = log.latest_note()
            seen = None if note is None else self._reader.open(note)
        except AuditError as error:
            raise damaged from error
        if seen is None or seen.checkpoint.size != log.size or seen.checkpoint.root != grown.history.root:
            raise damaged
        self._state = grown
