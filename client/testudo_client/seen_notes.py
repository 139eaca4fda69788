"""Notes of one log, read and verified once for all witnesses of a process. Keeps no state that anything depends on.

In a simulation a thousand owners get the same note with a thousand cosignatures; what it says is computed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakValueDictionary

from testudo_common.audit.checkpoints import Checkpoint, Watch, cosigners_of, open_checkpoint, watch_of
from testudo_common.audit.extension import decode_extension
from testudo_common.audit.notes import KEY_ID_BYTES, Note, NoteSignature, parse_note
from testudo_common.roster import Roster


@dataclass(frozen=True, slots=True)
class Seen:
    """A note that the log signed.

    Attributes:
        checkpoint: What it says.
        cosigners: Client ids of the witnesses whose cosignatures it holds, all verified.
        data: The note, without lines of anybody else.
    """

    checkpoint: Checkpoint
    cosigners: frozenset[str]
    data: bytes


class NoteReader:
    """Reads what comes from one log.

    Args:
        roster: As pinned here: its keys are the ones that count.
        plan_digest: Of the plan, hex.

    Raises:
        AuditError: The roster names no key of a log.
    """

    def __init__(self, roster: Roster, plan_digest: str) -> None:
        self.watch: Watch = watch_of(roster, plan_digest)
        self.open = lru_cache(maxsize=16)(self._open)
        self.extension = lru_cache(maxsize=4)(decode_extension)
        self.join = lru_cache(maxsize=16)(self._join)

    def _open(self, data: bytes) -> Seen:
        """The note in ``data``.

        Raises:
            AuditError: The log did not sign it, it is of another log, or a cosignature in it does not hold.
        """
        checkpoint, note = open_checkpoint(data, self.watch)
        return Seen(checkpoint, cosigners_of(note, self.watch), self._only_known(note, data))

    def _join(self, one: bytes, other: bytes) -> bytes:
        """Two notes over the same text, as one."""
        known, more = parse_note(one), parse_note(other)
        return self._only_known(known.with_signatures(more.signatures), b"")

    def _only_known(self, note: Note, data: bytes) -> bytes:
        """The note with one line for each key that counts: nobody else can make what is kept of it larger."""
        keys = [self.watch.log, *self.watch.witnesses.values()]
        by_id = {(key.name, key.id): key for key in keys}
        lines: dict[str, NoteSignature] = {}
        for line in note.signatures:
            key = by_id.get((line.name, line.blob[:KEY_ID_BYTES]))
            if key is not None:
                lines.setdefault(key.name, line)
        if data and len(lines) == len(note.signatures):
            return data
        return Note(note.text, tuple(lines.values())).encode()


_READERS: WeakValueDictionary[tuple[bytes, str], NoteReader] = WeakValueDictionary()


def reader_of(roster: Roster, plan_digest: str) -> NoteReader:
    """The reader that all witnesses of this log share. Raises as :class:`NoteReader` does."""
    found = _READERS.get((roster.digest, plan_digest))
    if found is None:
        found = _READERS[roster.digest, plan_digest] = NoteReader(roster, plan_digest)
    return found
