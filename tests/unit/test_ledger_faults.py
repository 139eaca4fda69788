"""Every way a ledger's files can be wrong, by name: noticed, refused in words, and nothing written."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger_cases import DATA, OTHER_DATA, STEP, in_folder, reserve
from testudo_client.ledger import ANCHOR_FILE, LEDGER_FILE, Adopted, Ledger, NewData
from testudo_client.ledger.chain import link
from testudo_client.ledger.entries import encode
from testudo_common.errors import LedgerError

SLOT = 512


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A ledger of five entries: four rounds are charged."""
    folder = tmp_path / "owner"
    folder.mkdir(mode=0o700)
    ledger = in_folder(folder)
    for number in range(1, 5):
        reserve(ledger, number)
    return folder


def tampered(home: Path, *statements: str | tuple[str, tuple[Any, ...]]) -> None:
    """What an owner with a database tool can do, who first takes the triggers away."""
    with contextlib.closing(sqlite3.connect(home / LEDGER_FILE, isolation_level=None)) as connection:
        triggers = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
        for name in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(*((statement,) if isinstance(statement, str) else statement))
        for sql in triggers.values():
            connection.execute(sql)


def exchanged(home: Path, other: Path) -> None:
    """``other`` in place of the ledger's bytes, in the same file."""
    with (home / LEDGER_FILE).open("r+b") as file:
        file.truncate()
        file.write(other.read_bytes())


def copy_of(home: Path, name: str) -> Path:
    kept = home.parent / name
    shutil.copytree(home, kept)
    return kept


def edited(home: Path) -> None:
    tampered(home, "UPDATE entries SET content = CAST(replace(content, '1.1', '9.9') AS BLOB) WHERE place = 2")


def edited_as_blob(home: Path) -> None:
    content = encode("2026-01-01T00:00:00Z", NewData(DATA, "x"))
    tampered(home, ("UPDATE entries SET content = ? WHERE place = 2", (content,)))


def rehashed(home: Path) -> None:
    """A chain that is whole again: what only an anchor can notice."""
    with contextlib.closing(sqlite3.connect(home / LEDGER_FILE)) as connection:
        rows = connection.execute("SELECT place, content, hash FROM entries ORDER BY place").fetchall()
    previous, statements = rows[1][2], []
    for place, content, _ in rows[2:]:
        cheaper = bytes(content).replace(b"[1.1,0.05,20]", b"[9.1,0.05,20]")
        previous = link(previous, cheaper)
        statements.append(("UPDATE entries SET content = ?, hash = ? WHERE place = ?", (cheaper, previous, place)))
    tampered(home, *statements)


def reordered(home: Path) -> None:
    tampered(
        home,
        "UPDATE entries SET place = 99 WHERE place = 2",
        "UPDATE entries SET place = 2 WHERE place = 3",
        "UPDATE entries SET place = 3 WHERE place = 99",
    )


def shortened(home: Path) -> None:
    tampered(home, "DELETE FROM entries WHERE place >= 3")


def holed(home: Path) -> None:
    tampered(home, "DELETE FROM entries WHERE place = 2")


def all_rows_removed(home: Path) -> None:
    tampered(home, "DELETE FROM entries")


def triggers_removed(home: Path) -> None:
    with contextlib.closing(sqlite3.connect(home / LEDGER_FILE)) as connection:
        connection.execute("DROP TRIGGER never_removed")


def further_table(home: Path) -> None:
    with contextlib.closing(sqlite3.connect(home / LEDGER_FILE)) as connection:
        connection.execute("CREATE TABLE notes (x)")


def truncated_file(home: Path) -> None:
    os.truncate(home / LEDGER_FILE, 5000)


def emptied_file(home: Path) -> None:
    os.truncate(home / LEDGER_FILE, 0)


def not_a_database(home: Path) -> None:
    (home / LEDGER_FILE).write_bytes(b"accounts of 2026\n" * 100)


def another_database(home: Path) -> None:
    os.truncate(home / LEDGER_FILE, 0)
    with contextlib.closing(sqlite3.connect(home / LEDGER_FILE)) as connection:
        connection.execute("CREATE TABLE entries (x)")


def schema_not_text(home: Path) -> None:
    data = (home / LEDGER_FILE).read_bytes()
    (home / LEDGER_FILE).write_bytes(data.replace(b"CREATE TABLE", b"CREATE\xb9TABLE", 1))


def missing(home: Path) -> None:
    (home / LEDGER_FILE).unlink()


def missing_with_its_folder(home: Path) -> None:
    shutil.rmtree(home / "state")


def copied(home: Path) -> None:
    """The same bytes, in another file under the same name."""
    shutil.copy2(home / LEDGER_FILE, home / "state/copy.db")
    (home / "state/copy.db").replace(home / LEDGER_FILE)


def of_another_owner(home: Path) -> None:
    other = home.parent / "other"
    other.mkdir()
    for number in range(1, 8):
        reserve(in_folder(other), number)
    exchanged(home, other / LEDGER_FILE)


def without_anchor(home: Path) -> None:
    (home / ANCHOR_FILE).unlink()


def emptied_anchor(home: Path) -> None:
    os.truncate(home / ANCHOR_FILE, 0)


def damaged_anchor(home: Path) -> None:
    (home / ANCHOR_FILE).write_bytes(b"x" * 2 * SLOT)


def readable_ledger(home: Path) -> None:
    (home / LEDGER_FILE).chmod(0o640)


def readable_anchor(home: Path) -> None:
    (home / ANCHOR_FILE).chmod(0o604)


def two_names(home: Path) -> None:
    (home / "state/second.db").hardlink_to(home / LEDGER_FILE)


FAULTS: dict[Callable[[Path], None], str] = {
    edited: "entry 2 is not what it was",
    edited_as_blob: "entry 2 is not what it was",
    rehashed: "was rewritten since this anchor saw it",
    reordered: "entry 2 is not what it was",
    shortened: "rolled back: it holds 3 entries, and this anchor has seen 5",
    holed: "entry 2 is missing",
    all_rows_removed: "was emptied",
    triggers_removed: "damaged, or not a ledger",
    further_table: "damaged, or not a ledger",
    truncated_file: "damaged",
    emptied_file: "was emptied",
    not_a_database: "damaged, or not a ledger",
    another_database: "damaged, or not a ledger",
    schema_not_text: "damaged, or not a ledger",
    missing: "the ledger is missing",
    missing_with_its_folder: "the ledger is missing",
    copied: "is a copy, or was restored from one",
    of_another_owner: "is another one than this anchor's",
    without_anchor: "anchor is missing or damaged",
    emptied_anchor: "anchor is missing or damaged",
    damaged_anchor: "anchor is missing or damaged",
    readable_ledger: "others may read or write this ledger",
    readable_anchor: "others may read or write this anchor",
    two_names: "has two names",
}


def bytes_of(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_fault_is_refused_by_every_use_and_nothing_is_written(fault: Callable[[Path], None], home: Path) -> None:
    fault(home)
    before = bytes_of(home)
    uses: list[Callable[[Ledger], object]] = [
        Ledger.entries,
        len,
        lambda ledger: ledger.head,
        lambda ledger: ledger.spent(DATA),
        lambda ledger: reserve(ledger, 9),
        lambda ledger: ledger.append(NewData(OTHER_DATA, "x")),
        lambda ledger: ledger.commit(1, "ee" * 32),
    ]
    for use in uses:
        with pytest.raises(LedgerError, match=FAULTS[fault]) as refused:
            use(in_folder(home))
        assert refused.value.where
        assert refused.value.remedy
        assert DATA not in str(refused.value)
    assert bytes_of(home) == before


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_fault_is_noticed_by_a_process_that_is_at_it(fault: Callable[[Path], None], home: Path) -> None:
    """What was verified before and changes later is verified once only; its hash in memory is the truth."""
    ledger = in_folder(home)
    assert len(ledger) == 5
    fault(home)
    if fault in {edited, edited_as_blob, reordered, holed}:
        # The last entry is as it was: this process goes on with what it has verified, which is the truth.
        assert ledger.spent(DATA) == STEP.times(4)
        return
    before = bytes_of(home)
    for use in (Ledger.entries, lambda ledger: reserve(ledger, 9)):
        with pytest.raises(LedgerError):
            use(ledger)
    assert bytes_of(home) == before


def test_a_rolled_back_file_is_noticed(home: Path) -> None:
    kept = copy_of(home, "yesterday")
    reserve(in_folder(home), 5)
    exchanged(home, kept / LEDGER_FILE)
    with pytest.raises(LedgerError, match=r"it holds 5 entries, and this anchor has seen 6.*--adopt"):
        in_folder(home).entries()


def test_a_rolled_back_folder_is_noticed_by_an_anchor_elsewhere(home: Path, tmp_path: Path) -> None:
    """And by none inside it: the limit that docs/ledger.md states."""
    far = tmp_path / "elsewhere" / "anchor"
    in_folder(home, far).adopt("a further anchor")
    kept = copy_of(home, "yesterday")
    reserve(in_folder(home, far), 5)
    exchanged(home, kept / LEDGER_FILE)
    shutil.copyfile(kept / ANCHOR_FILE, home / ANCHOR_FILE)
    assert len(in_folder(home)) == 6
    with pytest.raises(LedgerError, match="this anchor has seen 7") as refused:
        in_folder(home, far).entries()
    assert refused.value.where == str(far)


def test_a_copied_folder_is_noticed(home: Path) -> None:
    with pytest.raises(LedgerError, match="is a copy"):
        in_folder(copy_of(home, "second computer")).entries()


def test_a_moved_folder_is_the_same_ledger(home: Path) -> None:
    home.rename(home.parent / "moved")
    assert reserve(in_folder(home.parent / "moved"), 5) == 5


# --- the two slots of an anchor


@pytest.mark.parametrize("slot", [0, 1])
def test_one_torn_slot_leaves_the_other(home: Path, slot: int) -> None:
    with (home / ANCHOR_FILE).open("r+b") as file:
        file.seek(slot * SLOT + 40)
        file.write(b"#" * 60)
    assert len(in_folder(home)) == 5
    assert reserve(in_folder(home), 5) == 5
    shortened(home)
    with pytest.raises(LedgerError, match="has seen 6"):
        in_folder(home).entries()


def test_an_anchor_is_lagging_after_a_kill_and_catches_up(home: Path) -> None:
    old = (home / ANCHOR_FILE).read_bytes()
    reserve(in_folder(home), 5)
    (home / ANCHOR_FILE).write_bytes(old)
    assert len(in_folder(home)) == 6
    reserve(in_folder(home), 6)
    shortened(home)
    with pytest.raises(LedgerError, match="has seen 7"):
        in_folder(home).entries()


@pytest.mark.parametrize("left", [b"", b" " * 700], ids=["empty", "torn"])
def test_a_kill_before_the_first_anchor_costs_nothing(tmp_path: Path, left: bytes) -> None:
    """Only the first entry may stand without an anchor: it spends nothing."""
    in_folder(tmp_path).entries()
    (tmp_path / ANCHOR_FILE).write_bytes(left)
    assert reserve(in_folder(tmp_path)) == 1
    without_anchor(tmp_path)
    with pytest.raises(LedgerError, match="missing or damaged"):
        in_folder(tmp_path).entries()


# --- adopting


@pytest.mark.parametrize(
    ("fault", "left"),
    [
        (shortened, 3),
        (copied, 5),
        (rehashed, 5),
        (without_anchor, 5),
        (damaged_anchor, 5),
        (missing, 1),
        (missing_with_its_folder, 1),
        (emptied_file, 1),
        (of_another_owner, 8),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_was_refused_can_be_adopted_and_that_is_written_down(
    fault: Callable[[Path], None], left: int, home: Path
) -> None:
    head = in_folder(home).head
    fault(home)
    in_folder(home).adopt("a backup")
    ledger = in_folder(home)
    unseen = fault in {without_anchor, damaged_anchor}
    assert ledger.entries()[-1].content == Adopted("a backup", 0 if unseen else 5, "" if unseen else head.hex())
    assert len(ledger) == left + 1
    assert reserve(ledger, 9) == left + 1
    shortened(home) if left > 3 else missing(home)
    with pytest.raises(LedgerError):
        in_folder(home).entries()


@pytest.mark.parametrize("fault", [edited_as_blob, reordered, holed, not_a_database, triggers_removed, readable_ledger])
def test_a_broken_chain_is_not_adopted(fault: Callable[[Path], None], home: Path) -> None:
    fault(home)
    before = bytes_of(home)
    with pytest.raises(LedgerError):
        in_folder(home).adopt("please")
    assert bytes_of(home) == before


# --- the disk


def test_a_full_disk_charges_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own limit of pages gives the error that a full disk does."""
    from testudo_client.ledger.book import Book

    connect = Book._connect

    def nearly_full(self: Book) -> sqlite3.Connection:
        connection = connect(self)
        connection.execute("PRAGMA max_page_count = 3")
        return connection

    monkeypatch.setattr(Book, "_connect", nearly_full)
    ledger = in_folder(home)
    numbers = iter(range(5, 100))
    with pytest.raises(LedgerError, match="the disk is full, and nothing was written"):
        while True:
            reserve(ledger, next(numbers))
    monkeypatch.undo()
    assert ledger.entries() == in_folder(home).entries()
    assert ledger.spent(DATA) == STEP.times(len(ledger) - 1)
    assert reserve(ledger, 100) == len(ledger) - 1


def test_an_anchor_that_cannot_be_written_is_said_and_the_entry_counts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    ledger = in_folder(home)
    monkeypatch.setattr("testudo_client.ledger.anchor.os.pwrite", full)
    with pytest.raises(LedgerError, match=r"anchor cannot be written: No space left.*counts all the same"):
        reserve(ledger, 5)
    monkeypatch.undo()
    assert ledger.spent(DATA) == in_folder(home).spent(DATA) == STEP.times(5)


class Unwritable:
    """A root user may write anywhere, so the system's refusal is made by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *refused: str) -> None:
        original = os.open

        def opened(path: str | Path, flags: int, mode: int = 0o777) -> int:
            if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT) and Path(path).name in refused:
                raise PermissionError(errno.EACCES, "Permission denied")
            return original(path, flags, mode)

        monkeypatch.setattr("os.open", opened)


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Unwritable(monkeypatch, "ledger.db")
    with pytest.raises(LedgerError, match="Permission denied"):
        in_folder(tmp_path).entries()


def test_an_anchor_that_may_not_be_written_to_is_found_before_anything_is_charged(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Unwritable(monkeypatch, "ledger.anchor")
    with pytest.raises(LedgerError, match="cannot be written: Permission denied"):
        reserve(in_folder(home), 5)
    monkeypatch.undo()
    assert len(in_folder(home)) == 5


def test_a_read_only_database_charges_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from testudo_client.ledger.book import Book

    connect = Book._connect

    def read_only(self: Book) -> sqlite3.Connection:
        connection = connect(self)
        connection.execute("PRAGMA query_only = ON")
        return connection

    monkeypatch.setattr(Book, "_connect", read_only)
    with pytest.raises(LedgerError, match="may not be written to"):
        reserve(in_folder(home), 5)
    assert len(in_folder(home)) == 5


def test_a_file_that_another_process_holds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testudo_client.ledger.book._WAIT_SECONDS", 0.05)
    with contextlib.closing(sqlite3.connect(home / LEDGER_FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="another process holds it"):
            reserve(in_folder(home), 5)
        assert len(in_folder(home)) == 5  # reading waits for nobody
    assert reserve(in_folder(home), 5) == 5


def test_an_anchor_that_another_process_holds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testudo_client.ledger.anchor._WAIT_SECONDS", 0.05)
    with (home / ANCHOR_FILE).open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(LedgerError, match="cannot be locked"):
            reserve(in_folder(home), 5)
    assert reserve(in_folder(home), 5) == 5


def test_the_table_itself_refuses_changes(home: Path) -> None:
    with contextlib.closing(sqlite3.connect(home / LEDGER_FILE)) as connection:
        for statement in ("UPDATE entries SET hash = x'00'", "DELETE FROM entries"):
            with pytest.raises(sqlite3.IntegrityError, match="never"):
                connection.execute(statement)
