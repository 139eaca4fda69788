"""Processes that write an audit log and are killed on the way; for integration/test_audit_log_kill.py.

``FOLDER``: see killed_at.kill_at_every_point. Each step of STEPS is one call, and is said when it has returned.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from killed_at import kill_at_every_point, say
from testudo_common.audit.checkpoints import Checkpoint
from testudo_common.audit.log import AuditLog
from testudo_common.audit.merkle import Tree, leaf_hash
from testudo_common.audit.notes import Note, Signer

FILE = "log/audit.db"
ENTRIES = [b'{"entry":%d,"of":"%s"}' % (number, b"x" * 400) for number in range(9)]
LOG = Signer("testudo/shops", Ed25519PrivateKey.from_private_bytes(b"l" * 32))
WITNESS = Signer("shop-1", Ed25519PrivateKey.from_private_bytes(b"w" * 32), cosigner=True)


def note_over(size: int, *cosigners: Signer) -> bytes:
    """The checkpoint of the first ``size`` entries."""
    text = Checkpoint("testudo/shops/1", size, Tree(map(leaf_hash, ENTRIES[:size])).root()).text()
    return Note(text, tuple(signer.sign(text, 1) for signer in (LOG, *cosigners))).encode()


# Entries before it, entries after it, the note that it keeps.
STEPS: list[tuple[int, int, bytes | None]] = [
    (0, 3, note_over(3)),
    (3, 5, None),
    (5, 5, note_over(3, WITNESS)),
    (5, 9, note_over(9)),
]


def work(home: Path) -> None:
    log = AuditLog(home / FILE)
    say("opened")
    for number, (first, stop, note) in enumerate(STEPS):
        if first == stop:
            assert note is not None
            log.keep_note(note)
        else:
            assert log.append(ENTRIES[first:stop], note) == first
        say("step", number)
    log.close()
    say("closed")


if __name__ == "__main__":
    kill_at_every_point(sys.argv[1], work)
