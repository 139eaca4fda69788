"""The log's file and its notes: grows only, whole or not at all, and says in words what is wrong with its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from testudo_common.audit.checkpoints import Checkpoint, Watch
from testudo_common.audit.log import AuditLog
from testudo_common.audit.merkle import EMPTY_ROOT, Tree, leaf_hash, verify_consistency, verify_inclusion
from testudo_common.audit.notes import Note, Signer
from testudo_common.audit.receipts import decode_receipt, receipt_for, verify_receipt
from testudo_common.errors import AuditError, AuditFault

ENTRIES = [b'{"entry":%d}' % number for number in range(20)]
LOG = Signer("testudo/shops", Ed25519PrivateKey.from_private_bytes(bytes(32)))
WITNESSES = [Signer(f"shop-{n}", Ed25519PrivateKey.from_private_bytes(bytes([n] * 32)), cosigner=True) for n in (1, 2)]
WATCH = Watch("testudo/shops/1", LOG.key, {witness.name: witness.key for witness in WITNESSES})


def note_over(entries: list[bytes], cosigned: int = 0) -> bytes:
    root = Tree(map(leaf_hash, entries)).root()
    text = Checkpoint(WATCH.origin, len(entries), root).text()
    return Note(text, tuple(each.sign(text, 1) for each in [LOG, *WITNESSES[:cosigned]])).encode()


@pytest.fixture(params=["file", "memory"])
def log(request, tmp_path: Path):
    log = AuditLog(tmp_path / "folder" / "audit.db" if request.param == "file" else None)
    yield log
    log.close()


def test_what_is_added_is_there(log):
    assert (log.size, log.root(), log.latest_note(), list(log.entries())) == (0, EMPTY_ROOT, None, [])
    assert log.append(ENTRIES[:3]) == 0
    assert log.append(ENTRIES[3:5], note_over(ENTRIES[:5])) == 3
    assert log.size == 5
    assert list(log.entries()) == ENTRIES[:5]
    assert list(log.entries(1, 4)) == ENTRIES[1:4]
    assert log.latest_note() == note_over(ENTRIES[:5])


def test_roots_and_proofs_are_the_trees(log):
    tree = Tree()
    for number, entry in enumerate(ENTRIES):
        log.append([entry])
        tree.append(leaf_hash(entry))
        assert log.root() == tree.root()
        assert log.root(number // 2) == tree.root(number // 2)
    verify_inclusion(log.root(11), 11, 7, leaf_hash(ENTRIES[7]), log.inclusion_proof(7, 11))
    verify_consistency(6, log.root(6), 20, log.root(), log.consistency_proof(6))


def test_a_note_is_found_by_what_it_covers_and_replaced_by_one_with_more_cosignatures(log):
    log.append(ENTRIES[:8], note_over(ENTRIES[:8]))
    for size in (5, 2):
        log.keep_note(note_over(ENTRIES[:size]))
    log.keep_note(note_over(ENTRIES[:5], 2))
    assert log.note_covering(1) == note_over(ENTRIES[:2])
    assert log.note_covering(2) == log.note_covering(4) == note_over(ENTRIES[:5], 2)
    assert log.note_covering(5) == log.latest_note() == note_over(ENTRIES[:8])
    assert log.note_covering(8) is None
    assert list(log.notes()) == [note_over(ENTRIES[:2]), note_over(ENTRIES[:5], 2), note_over(ENTRIES[:8])]


def test_nothing_is_kept_with_a_note_over_more_than_there_is(log):
    log.append(ENTRIES[:2])
    with pytest.raises(AuditError) as refusal:
        log.append(ENTRIES[2:4], note_over(ENTRIES[:5]))
    assert refusal.value.fault is AuditFault.TRUNCATED
    assert (log.size, log.latest_note()) == (2, None)


def test_a_receipt_comes_back_and_holds(log):
    log.append(ENTRIES, note_over(ENTRIES, 2))
    receipt = decode_receipt(receipt_for(log, 13).encode())
    checkpoint, cosigners = verify_receipt(receipt, WATCH, 2)
    assert (receipt.entry, checkpoint.size, cosigners) == (ENTRIES[13], 20, {"shop-1", "shop-2"})
    with pytest.raises(AuditError) as refusal:
        verify_receipt(receipt, WATCH, 3)
    assert refusal.value.fault is AuditFault.QUORUM


def test_opened_again_it_is_the_same(tmp_path):
    path = tmp_path / "new" / "audit.db"
    first = AuditLog(path)
    first.append(ENTRIES, note_over(ENTRIES))
    first.close()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    again = AuditLog(path)
    assert (again.size, again.latest_note(), list(again.entries())) == (20, note_over(ENTRIES), ENTRIES)
    assert again.root() == Tree(map(leaf_hash, ENTRIES)).root()
    again.close()
