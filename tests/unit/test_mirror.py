"""An owner's mirror on the disk: there before it is cosigned, found again, shared, damaged, exchanged."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from audit_logs import SECONDS, audited_plan
from testudo_client.mirror import Mirror
from testudo_client.own_record import OwnRecord
from testudo_common.audit.extension import decode_testimony
from testudo_common.audit.log import AuditLog
from testudo_common.audit.notes import Signer, parse_line
from testudo_common.errors import AuditError, AuditFault
from watching import Watching

PLAN = audited_plan("rounds.cohort_size=5")


@pytest.fixture
def watching(tmp_path: Path) -> Watching:
    """After one round."""
    found = Watching(PLAN, tmp_path)
    found.round()
    return found


def test_restarted_process_goes_on(watching: Watching) -> None:
    watching.begun_anew()
    assert watching.size == len(watching.log.entries)
    watching.round()
    assert watching.witness._mirror.state.history == watching.log.history
    assert watching.witness._mirror.state.opened == ((7, 1), (14, 2))


def test_mirror_is_private(watching: Watching) -> None:
    assert watching.files.mirror.stat().st_mode & 0o777 == 0o600


def test_two_processes_on_one_folder_take_turns(watching: Watching) -> None:
    first, second = watching.witness, watching.begun_anew()
    for witness in (first, second, second, first, second):
        watching.witness = witness
        watching.log.incident()
        assert decode_testimony(watching.tell().body).cosignature
    assert first._mirror.state.size == len(watching.log.entries) - 1


def test_receipts_need_what_another_process_took_in(watching: Watching) -> None:
    first, second = watching.witness, watching.begun_anew()
    watching.witness = second
    watching.tell(cosigned=watching.log.note())
    assert list(first.receipts()) == [(1, 0)]


def test_nothing_is_cosigned_that_the_disk_does_not_have(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    before = watching.size
    watching.log.incident()

    def full(*_: object) -> int:
        raise AuditError(AuditFault.STORAGE, "the disk is full", where="here", remedy="make room")

    monkeypatch.setattr(AuditLog, "append", full)
    with pytest.raises(AuditError, match="the disk is full"):
        watching.tell()
    monkeypatch.undo()
    assert watching.size == before and not watching.files.halt.exists()
    watching.begun_anew()
    assert watching.size == before
    assert watching.testimony().cosignature


def test_signing_comes_last(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment of the cosignature, another process finds the entries in the file."""
    found: list[int] = []
    real = Signer.sign

    def sign(self: Signer, text: str, time: int) -> object:
        if self.cosigner:
            with sqlite3.connect(watching.files.mirror) as connection:
                found.extend(connection.execute("SELECT count(*) FROM entries").fetchone())
        return real(self, text, time)

    watching.log.incident()
    update = watching.update()
    monkeypatch.setattr(Signer, "sign", sign)
    watching.witness.answer(update)
    assert found == [len(watching.log.entries)]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from watching import Watching
from audit_logs import audited_plan
from testudo_common.audit.notes import Signer

watching = Watching(audited_plan("rounds.cohort_size=5"), Path({folder!r}), durable=True)
real = Signer.sign

def sign(self, text, time):
    if self.cosigner and {size} == int(text.split()[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, text, time)

watching.log.incident()
update = watching.update(0)
Signer.sign = sign
watching.witness.answer(update)
"""


def test_process_that_is_killed_before_it_cosigns_has_the_entries(tmp_path: Path) -> None:
    tests, size = str(Path(__file__).parents[1]), 8
    script = KILLED.format(tests=tests, folder=str(tmp_path), size=size)
    ended = subprocess.run([sys.executable, "-c", script], env=os.environ, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    watching = Watching(PLAN, tmp_path)
    assert watching.size == size
    watching.log.incident()
    assert watching.testimony().cosignature


def test_statement_is_kept_before_it_leaves(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise AuditError(AuditFault.STORAGE, "the disk is full")

    monkeypatch.setattr(OwnRecord, "keep_signed", full)
    watching.charge(2)
    with pytest.raises(AuditError, match="the disk is full"):
        watching.witness.statement(2, 0, "ab" * 32, "cd" * 32)


def test_older_copy_of_the_mirror_is_completed_again(watching: Watching, tmp_path: Path) -> None:
    """Alone it does no harm: the log extends it, and what is new is compared with all that the owner signed."""
    copy = tmp_path / "copy.db"
    shutil.copy(watching.files.mirror, copy)
    watching.round()
    for name in ("", "-wal", "-shm"):
        Path(f"{watching.files.mirror}{name}").unlink(missing_ok=True)
    shutil.copy(copy, watching.files.mirror)
    assert watching.size == 14
    assert watching.testimony().cosignature
    assert watching.witness._mirror.state.history == watching.log.history


def test_missing_mirror_is_sent_again(watching: Watching) -> None:
    for name in ("", "-wal", "-shm"):
        Path(f"{watching.files.mirror}{name}").unlink(missing_ok=True)
    answer = watching.tell(len(watching.log.entries) - 1)
    assert (answer.size, answer.body) == (0, b"")
    assert watching.testimony().cosignature


@pytest.mark.parametrize("how", ["an entry changed", "an entry more", "another note", "no note", "not a database"])
def test_damaged_mirror(watching: Watching, how: str) -> None:
    watching.begun_anew()  # which has read nothing yet
    path = watching.files.mirror
    if how == "not a database":
        path.write_bytes(b"nothing" * 1000)
    else:
        with sqlite3.connect(path) as connection:
            # A trigger that is gone is noticed too; whoever damages a file this way puts it back.
            (trigger,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'never_changed'").fetchone()
            connection.execute("DROP TRIGGER never_changed")
            match how:
                case "an entry changed":
                    connection.execute("UPDATE entries SET content = ? WHERE place = 3", (watching.log.entries[4],))
                case "an entry more":
                    connection.execute("INSERT INTO entries VALUES (14, ?)", (watching.log.entries[-1],))
                case "another note":
                    connection.execute("UPDATE notes SET note = ?", (b"hello\n\n\xe2\x80\x94 a AAAAAAA=\n",))
                case _:
                    connection.execute("DELETE FROM notes")
            connection.execute(trigger)
    with pytest.raises(AuditError) as caught:
        watching.tell(0)
    assert caught.value.fault is AuditFault.STORAGE
    assert str(path) in str(caught.value) and caught.value.remedy
    assert not watching.files.halt.exists()


def test_note_over_fewer_entries_than_there_are_is_damage(watching: Watching) -> None:
    """Entries are added with a note over all of them: anything else was not written by this owner."""
    log = AuditLog(watching.files.mirror, durable=False)
    log.append([watching.log.entries[-1]])
    log.close()
    watching.begun_anew()
    with pytest.raises(AuditError, match="damaged"):
        watching.tell(0)


def test_checkpoint_time_is_the_owners_clock(watching: Watching) -> None:
    blob = parse_line(watching.testimony().cosignature).blob
    assert int.from_bytes(blob[4:12]) == SECONDS


def test_mirrors_in_memory_share_bytes(tmp_path: Path) -> None:
    """A thousand of them have to fit: whoever reads the same message keeps the same objects."""
    one = Watching(PLAN)
    two = Watching(PLAN, log=one.log)
    update = one.update(0)
    for watching in (one, two):
        watching.witness.answer(update)
    mirrors = [watching.witness._mirror for watching in (one, two)]
    assert all(isinstance(mirror, Mirror) for mirror in mirrors)
    kept = [list(mirror.log.entries()) for mirror in mirrors]
    assert all(first is second for first, second in zip(*kept, strict=True))
    assert mirrors[0].log.latest_note() is mirrors[1].log.latest_note()
    assert mirrors[0].state.history is mirrors[1].state.history
