"""A log and its notes: it grows only, whole or not at all, and says in words what is wrong with its file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from testudo_common.audit.checkpoints import Checkpoint, Watch
from testudo_common.audit.log import AuditLog
from testudo_common.audit.merkle import EMPTY_ROOT, Tree, leaf_hash, verify_consistency, verify_inclusion
from testudo_common.audit.notes import Note, Signer
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


def test_what_there_is_not(log):
    log.append(ENTRIES[:3])
    for ask in (
        lambda: log.root(4),
        lambda: log.root(-1),
        lambda: log.entries(0, 4),
        lambda: log.entries(4),
        lambda: log.entries(-1),
        lambda: log.inclusion_proof(3),
        lambda: log.inclusion_proof(0, 4),
        lambda: log.consistency_proof(4),
        lambda: log.consistency_proof(1, 4),
    ):
        with pytest.raises(IndexError):
            ask()
    assert list(log.entries(3)) == list(log.entries(2, 1)) == []
    log.keep_note(note_over(ENTRIES[:3]))
    assert [log.note_covering(index) for index in (-1, 3, 10**30)] == [None] * 3


@pytest.mark.parametrize(
    "note", [b"", b"not a note", note_over(ENTRIES[:1])[:-1], b"text\n\n" + note_over(ENTRIES[:1])[-80:]]
)
def test_what_is_no_note_is_not_kept(log, note):
    log.append(ENTRIES[:2])
    for keep in (log.keep_note, lambda note: log.append(ENTRIES[2:3], note)):
        with pytest.raises(AuditError) as refusal:
            keep(note)
        assert refusal.value.fault is AuditFault.FORMAT
    assert (log.size, list(log.notes())) == (2, [])


def test_entries_may_come_while_they_are_read(log):
    log.append(ENTRIES[:3])
    reading = log.entries()
    first = next(reading)
    log.append(ENTRIES[3:], note_over(ENTRIES))
    assert [first, *reading] == ENTRIES[:3]
    assert log.root() == Tree(map(leaf_hash, ENTRIES)).root()


def test_logs_in_memory_share_their_entries():
    """A thousand owners of a simulation mirror one log."""
    logs = [AuditLog(None) for _ in range(3)]
    for log in logs:
        log.append(ENTRIES)
    assert all(mine is theirs for mine, theirs in zip(logs[0].entries(), logs[2].entries(), strict=True))


# --- the file


@pytest.mark.parametrize("durable", [True, False])
def test_opened_again_it_is_the_same(tmp_path, durable):
    path = tmp_path / "new" / "audit.db"
    first = AuditLog(path, durable=durable)
    first.append(ENTRIES, note_over(ENTRIES))
    mode = first._rows._connection.execute("PRAGMA synchronous").fetchone()[0]
    assert (mode, first._rows._connection.execute("PRAGMA journal_mode").fetchone()[0]) == (2 * durable, "wal")
    assert {beside.stat().st_mode & 0o777 for beside in path.parent.iterdir()} == {0o600}
    first.close()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert list(path.parent.iterdir()) == [path], "all of it is in one file"
    again = AuditLog(path)
    assert (again.size, again.latest_note(), list(again.entries())) == (20, note_over(ENTRIES), ENTRIES)
    assert again.root() == Tree(map(leaf_hash, ENTRIES)).root()
    again.close()


def test_two_that_are_open_do_not_write_over_each_other(home):
    first, second = AuditLog(home), AuditLog(home)
    first.append(ENTRIES[8:9])
    with pytest.raises(AuditError, match=r"another process has added to it\. open it again") as refusal:
        second.append(ENTRIES[9:10])
    assert refusal.value.fault is AuditFault.STORAGE
    assert list(second.entries()) == ENTRIES[:8], "what it knows of stays as it was"
    assert second.root() == Tree(map(leaf_hash, ENTRIES[:8])).root()
    first.close()
    second.close()
    again = AuditLog(home)
    assert list(again.entries()) == ENTRIES[:9]
    again.close()


def test_entries_cannot_be_changed_by_mistake(home):
    with contextlib.closing(sqlite3.connect(home)) as connection:
        for statement in ("UPDATE entries SET content = x'00'", "DELETE FROM entries WHERE place = 7"):
            with pytest.raises(sqlite3.IntegrityError, match="entries are never"):
                connection.execute(statement)


@pytest.fixture
def home(tmp_path):
    """The file of a log of eight entries, with notes over five and over all."""
    path = tmp_path / "audit.db"
    log = AuditLog(path, durable=False)
    log.append(ENTRIES[:8], note_over(ENTRIES[:8]))
    log.keep_note(note_over(ENTRIES[:5]))
    log.close()
    return path


def tampered(path, *statements):
    """What somebody with a database tool can do, who first takes the triggers away."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        triggers = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
        for name in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        for sql in triggers.values():
            connection.execute(sql)


def executed(path, *statements):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def overwritten(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


FAULTS = {
    "an entry in the middle removed": (
        lambda path: tampered(path, "DELETE FROM entries WHERE place = 3"),
        "it holds 7 entries, and the last is number 7",
    ),
    "the first entry removed": (
        lambda path: tampered(path, "DELETE FROM entries WHERE place = 0"),
        "it holds 7 entries, and the last is number 7",
    ),
    "the last entries removed": (
        lambda path: tampered(path, "DELETE FROM entries WHERE place > 5"),
        "it holds 6 entries, and a note over 8",
    ),
    "all entries removed": (
        lambda path: tampered(path, "DELETE FROM entries"),
        "it holds 0 entries, and a note over 8",
    ),
    "an entry below the first": (
        lambda path: executed(path, "INSERT INTO entries VALUES (-1, x'00')"),
        "it holds 9 entries, and the last is number 7",
    ),
    "an entry moved below the first": (
        lambda path: tampered(path, "UPDATE entries SET place = -1 WHERE place = 3"),
        "it holds 8 entries, and the last is number 7",
    ),
    "an entry far behind": (
        lambda path: executed(path, "INSERT INTO entries VALUES (9223372036854775807, x'00')"),
        "it is damaged|it holds 9 entries",
    ),
    "no trigger": (lambda path: executed(path, "DROP TRIGGER never_removed"), "damaged, or not an audit log"),
    "a further table": (lambda path: executed(path, "CREATE TABLE more (x)"), "damaged, or not an audit log"),
    "a view in the place of a table": (
        lambda path: executed(path, "DROP TABLE notes", "CREATE VIEW notes AS SELECT 1 AS size, x'00' AS note"),
        "damaged, or not an audit log",
    ),
    "another application": (lambda path: executed(path, "PRAGMA application_id = 7"), "damaged, or not an audit log"),
    "another database": (
        lambda path: (path.unlink(), executed(path, "CREATE TABLE entries (x)"), path.chmod(0o600)),
        "damaged, or not an audit log",
    ),
    "an empty database of another application": (
        lambda path: (path.unlink(), executed(path, "PRAGMA application_id = 7"), path.chmod(0o600)),
        "damaged, or not an audit log",
    ),
    "no database": (lambda path: path.write_bytes(b"entries of 2026\n" * 600), "damaged, or not an audit log"),
    "truncated": (lambda path: os.truncate(path, 5000), "damaged, or not an audit log"),
    "a damaged header": (lambda path: overwritten(path, 0, b"SQLite"[::-1]), "damaged, or not an audit log"),
    "a damaged schema": (lambda path: overwritten(path, 100, b"\xff" * 300), "damaged, or not an audit log"),
    "readable by others": (lambda path: path.chmod(0o640), "others may read or write this log. chmod 600 it"),
    "writable by others": (lambda path: path.chmod(0o602), "others may read or write this log. chmod 600 it"),
    "two names": (lambda path: (path.parent / "second.db").hardlink_to(path), "this log's file has two names"),
    "a folder": (lambda path: (path.unlink(), path.mkdir(mode=0o700)), "it cannot be opened|two names"),
}


@pytest.mark.parametrize(("fault", "words"), FAULTS.values(), ids=FAULTS)
def test_file_that_is_wrong(home, fault, words):
    fault(home)
    before = home.read_bytes() if home.is_file() else None
    with pytest.raises(AuditError, match=words) as refusal:
        AuditLog(home)
    assert (refusal.value.fault, refusal.value.where) == (AuditFault.STORAGE, str(home))
    assert refusal.value.remedy
    if before is not None:
        assert home.read_bytes() == before, "nothing was written"


def test_file_that_is_wrong_inside_is_noticed_when_it_is_read(home):
    """Opening looks at rows, not at what is in them; what reads them says it."""
    log = AuditLog(home)
    tampered(home, "DELETE FROM entries WHERE place = 3")
    for read in (lambda: list(log.entries()), log.root, lambda: log.inclusion_proof(1)):
        with pytest.raises(AuditError, match="entry 3 is missing") as refusal:
            read()
        assert refusal.value.fault is AuditFault.STORAGE
    assert list(log.entries(4)) == ENTRIES[4:8]
    log.close()


def test_what_is_no_bytes_in_a_row_is_noticed(home):
    """SQLite's tables are strict, so only a damaged page can hold such a row."""
    log = AuditLog(home)
    executed(
        home,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = replace(sql, ' STRICT', '') WHERE type = 'table'",
        "PRAGMA writable_schema = RESET",
    )
    tampered(home, "UPDATE entries SET content = 'text' WHERE place = 3", "UPDATE notes SET note = 7 WHERE size = 8")
    for read in (lambda: list(log.entries()), log.root, lambda: log.inclusion_proof(3), log.latest_note):
        with pytest.raises(AuditError, match="damaged, or not an audit log"):
            read()
    log.close()


def test_damaged_pages_are_refused_or_change_the_root(home):
    """A byte changed anywhere in the file: an error in words, or another root, or bytes that nobody reads."""
    good, size = home.read_bytes(), home.stat().st_size
    outcomes = set()
    for offset in range(0, size, 61):
        home.write_bytes(good[:offset] + bytes([good[offset] ^ 0xFF]) + good[offset + 1 :])
        try:
            log = AuditLog(home)
            try:
                found = (log.root(), list(log.entries()), list(log.notes()))
                log.append(ENTRIES[8:9])
            finally:
                log.close()
        except AuditError as error:
            assert error.fault is AuditFault.STORAGE
            outcomes.add("refused")
        else:
            assert found[0] == Tree(map(leaf_hash, found[1])).root()
            outcomes.add("same" if found[1] == ENTRIES[:8] else "other")
        for beside in home.parent.glob("audit.db-*"):
            beside.unlink()
    assert {"refused", "same"} <= outcomes


def test_a_full_disk_adds_nothing(home):
    """SQLite's own limit of pages gives the error that a full disk does."""
    log = AuditLog(home)
    log._rows._connection.execute("PRAGMA max_page_count = 8")
    big = [b"x" * 3000] * 3
    with pytest.raises(AuditError, match="the disk is full, and nothing was written") as refusal:
        while True:
            log.append(big)
    assert (refusal.value.fault, refusal.value.where) == (AuditFault.STORAGE, str(home))
    size = log.size
    assert len(list(log.entries())) == size
    log._rows._connection.execute("PRAGMA max_page_count = 800")
    assert log.append(big) == size
    log.close()


def test_a_log_that_another_process_holds(home, monkeypatch):
    monkeypatch.setattr("testudo_common.audit.rows._WAIT_SECONDS", 0.01)
    log = AuditLog(home)
    with contextlib.closing(sqlite3.connect(home, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for use in (lambda: log.append(ENTRIES[8:9]), lambda: AuditLog(home)):
            with pytest.raises(AuditError, match="another process holds it") as refusal:
                use()
            assert refusal.value.fault is AuditFault.STORAGE
        assert list(log.entries()) == ENTRIES[:8], "it can be read meanwhile"
    assert log.append(ENTRIES[8:9]) == 8
    log.close()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AuditError, match="it cannot be used: ") as refusal:
        AuditLog(tmp_path / "file" / "audit.db")
    assert refusal.value.fault is AuditFault.STORAGE
    assert refusal.value.remedy


def test_a_closed_log_is_ours_to_answer_for(home):
    log = AuditLog(home)
    log.close()
    log.close()
    for use in (lambda: log.append([b"x"]), log.latest_note, log.root, lambda: list(log.notes())):
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            use()
