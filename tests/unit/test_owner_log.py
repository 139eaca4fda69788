"""The owner's own log: for its owner alone, bounded, and without data."""

from __future__ import annotations

import fcntl
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from testudo_client.owner_log import MAX_SENTENCE_CHARACTERS, LogLine, OwnerLog, sentence_of
from testudo_common.errors import ApprovalError, Fault, PolicyError, UsageError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def log_in(folder: Path, max_bytes: int = 10_000_000) -> OwnerLog:
    return OwnerLog(folder / "own" / "owner.log", max_bytes=max_bytes, now=lambda: NOON)


def test_a_line_by_example(tmp_path: Path) -> None:
    error = ApprovalError("this plan is not approved", remedy="look at it")
    log_in(tmp_path).refused(error, plan="c2", round_number=3, attempt=0, reason="not_approved")
    assert json.loads((tmp_path / "own" / "owner.log").read_text()) == {
        "time": "2026-03-01T12:00:00Z",
        "event": "refused",
        "plan": "c2",
        "round": 3,
        "attempt": 0,
        "reason": "not_approved",
        "sentence": "this plan is not approved. look at it",
    }


def test_read_back_in_order(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    assert list(log.lines()) == []
    log.write("approved", plan="c2")
    log.write("withdrawn", plan="c2", sentence="no\nmore ü")
    assert list(log.lines()) == [
        LogLine("2026-03-01T12:00:00Z", "approved", "c2"),
        LogLine("2026-03-01T12:00:00Z", "withdrawn", "c2", sentence="no\nmore ü"),
    ]


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    log = log_in(tmp_path, max_bytes=300)
    path = tmp_path / "own" / "owner.log"
    log.write("approved")
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700
    path.chmod(0o644)
    log.write("approved")
    assert path.stat().st_mode & 0o777 == 0o600, "made private again"
    for _ in range(5):
        log.write("approved")
    assert {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "own").iterdir()} == dict.fromkeys(
        ["owner.log", "owner.log.1", ".owner.log.lock"], 0o600
    )


def test_a_full_one_is_kept_once_more(tmp_path: Path) -> None:
    log, path = log_in(tmp_path, max_bytes=1000), tmp_path / "own" / "owner.log"
    for number in range(100):
        log.write("approved", sentence=str(number))
        assert path.stat().st_size <= 1000
        assert not log.older.exists() or log.older.stat().st_size <= 1000
    kept = [int(line.sentence) for line in log.lines()]
    assert kept == list(range(kept[0], 100))
    assert len(kept) > 7, "the file before is still there"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """Two that both find the file full would throw a whole one away."""
    log = log_in(tmp_path)
    log.write("approved")
    with (tmp_path / "own" / ".owner.log.lock").open("r+b") as other, ThreadPoolExecutor(1) as pool:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = pool.submit(log.write, "withdrawn")
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.2)
        fcntl.flock(other, fcntl.LOCK_UN)
        waiting.result(timeout=10)
    assert [line.event for line in log.lines()] == ["approved", "withdrawn"]


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    log = log_in(tmp_path, max_bytes=15_000)  # it is full once
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: log.write("approved", sentence=str(number)), range(200)))
    assert sorted(int(line.sentence) for line in log.lines()) == list(range(200))


def test_an_error_that_is_not_ours_leaves_only_its_kind(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.refused(ValueError("row 7: income 83211"))
    (line,) = log.lines()
    assert (line.reason, line.sentence) == ("ValueError", "ValueError")
    assert "83211" not in (tmp_path / "own" / "owner.log").read_text()


def test_a_refusal_is_one_line_of_bounded_length(tmp_path: Path) -> None:
    error = PolicyError([Fault("a", "b", "c")] * 500, source="policy.toml")
    assert "\n" not in sentence_of(error)
    log = log_in(tmp_path)
    log.refused(error)
    (line,) = log.lines()
    assert line.reason == "PolicyError"
    assert len(line.sentence) == MAX_SENTENCE_CHARACTERS


@pytest.mark.parametrize("torn", [b'{"time":"2026', b"\xff\xfe", b"[]", b'{"time":"x","event":"y","more":1}'])
def test_a_torn_line_is_passed_over(tmp_path: Path, torn: bytes) -> None:
    log = log_in(tmp_path)
    log.write("approved")
    with (tmp_path / "own" / "owner.log").open("ab") as file:
        file.write(torn + b"\n")
    log.write("withdrawn")
    assert [line.event for line in log.lines()] == ["approved", "withdrawn"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "owner.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="cannot be written"):
        log_in(tmp_path).write("approved")
    assert not (tmp_path / "elsewhere").exists()
