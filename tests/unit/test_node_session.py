"""What a node remembers of its session, and when it is not believed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from testudo_client.deployment.session import KeptSession


@pytest.fixture
def boot(tmp_path: Path) -> Path:
    (tmp_path / "boot").write_text("one\n")
    (tmp_path / "node").mkdir()
    return tmp_path / "boot"


def test_it_is_remembered_over_a_kill(tmp_path: Path, boot: Path) -> None:
    file = tmp_path / "node" / "session.json"
    assert KeptSession(file, boot).last() is None
    KeptSession(file, boot).began(2**64 - 1)
    assert KeptSession(file, boot).last() == 2**64 - 1
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_copy_of_the_folder_does_not_end_the_session_of_the_original(tmp_path: Path, boot: Path) -> None:
    KeptSession(tmp_path / "node" / "session.json", boot).began(7)
    shutil.copytree(tmp_path / "node", tmp_path / "copy")
    assert KeptSession(tmp_path / "copy" / "session.json", boot).last() is None


def test_another_machine_or_another_start_of_it_is_not_believed(tmp_path: Path, boot: Path) -> None:
    file = tmp_path / "node" / "session.json"
    KeptSession(file, boot).began(7)
    boot.write_text("two\n")
    assert KeptSession(file, boot).last() is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"node": 7}', "7", '{"node": "x", "place": []}'])
def test_a_damaged_file_is_as_none(tmp_path: Path, boot: Path, text: str) -> None:
    file = tmp_path / "node" / "session.json"
    KeptSession(file, boot).began(7)
    file.write_text(text)
    assert KeptSession(file, boot).last() is None


def test_a_system_that_does_not_tell_its_start_remembers_nothing(tmp_path: Path) -> None:
    file = tmp_path / "node" / "session.json"
    (tmp_path / "node").mkdir()
    KeptSession(file, tmp_path / "none").began(7)
    assert KeptSession(file, tmp_path / "none").last() is None
