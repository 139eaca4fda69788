"""The server's state on disk: whole after a kill, refused when damaged, and no attempt begun twice."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from testudo_common.errors import CheckpointError
from testudo_server.exchange import GroupRecord
from testudo_server.outer_step import OuterState
from testudo_server.store import RoundRecord, RunState, RunStore

DIGEST = "ab" * 32
STATE = RunState(
    DIGEST,
    2,
    np.array([1.5, np.float32(1e-40)], dtype=np.float32),
    OuterState(np.array([0.1, 0.2]), np.array([1e-300, 2.0])),
    {"b": 2, "ä": 1},
)


def record(number: int) -> RoundRecord:
    groups = (
        GroupRecord(0, ("a", "ä\u2028"), (), "share", blamed=True),
        GroupRecord(1, ("a", "ä\u2028"), ("a",), disputes=(("a", "ä\u2028"), ("ä\u2028", "a"))),
    )
    return RoundRecord(
        number,
        "cd" * 32,
        ("a", "ä\u2028"),
        (("ä\u2028", "gone"),),
        0.1,
        2.5,
        10,
        20,
        groups,
        ("é", "z"),
        0.25,
        {"before": {"accuracy": 0.5}, "after": {"accuracy": 0.75}},
    )


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """After two rounds."""
    kept = RunStore(tmp_path, durable=False)
    kept.save(dataclasses.replace(STATE, round=0), None)
    kept.save(dataclasses.replace(STATE, round=1), record(1))
    kept.save(STATE, record(2))
    return kept


def test_state_there_and_back(store: RunStore) -> None:
    again = store.load(DIGEST)
    assert again == STATE
    for found, given in [
        (again.model, STATE.model),
        (again.outer.first, STATE.outer.first),
        (again.outer.second, STATE.outer.second),
    ]:
        assert found.dtype == given.dtype
        assert found.tobytes() == given.tobytes()
    assert store.records() == (record(1), record(2))


@pytest.mark.parametrize("durable", [True, False])
def test_durable_or_not_the_same_is_kept(tmp_path: Path, durable: bool) -> None:
    kept = RunStore(tmp_path / "new" / "folder", durable=durable)
    assert not kept.exists
    kept.save(dataclasses.replace(STATE, round=0), None)
    kept.save(dataclasses.replace(STATE, round=1), record(1))
    assert kept.exists
    assert kept.load(DIGEST).round == 1
    assert kept.records() == (record(1),)


def test_durable_line_is_on_the_disk_before_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a loss of power there may be a line too many, which is forgotten, but never one too few."""
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)

    monkeypatch.setattr("os.fsync", fsync)
    kept = RunStore(tmp_path)
    kept.save(dataclasses.replace(STATE, round=0), None)
    synced.clear()
    kept.save(STATE, record(1))
    assert synced[0] == "rounds.jsonl"
    assert len(synced) == 3, "the line, the checkpoint, its folder"


@pytest.mark.parametrize(
    "left_over",
    [
        pytest.param(json.dumps(dataclasses.asdict(record(3))) + "\n", id="a line too many"),
        pytest.param(json.dumps(dataclasses.asdict(record(3)))[:20], id="half a line"),
        pytest.param(json.dumps(dataclasses.asdict(record(3))), id="a line without its end"),
        pytest.param("\0\0\0\0", id="zeros"),
    ],
)
def test_kill_between_line_and_checkpoint(tmp_path: Path, store: RunStore, left_over: str) -> None:
    with (tmp_path / "rounds.jsonl").open("a") as file:
        file.write(left_over)
    assert store.load(DIGEST).round == 2
    assert store.records() == (record(1), record(2))
    store.save(dataclasses.replace(STATE, round=3), record(3))
    assert store.records() == (record(1), record(2), record(3))


def test_kill_while_the_checkpoint_is_written(tmp_path: Path, store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "replace", killed)
        store.save(dataclasses.replace(STATE, round=3, model=-STATE.model), record(3))
    assert store.load(DIGEST) == STATE
    assert store.load(DIGEST).model.tobytes() == STATE.model.tobytes()
    assert store.records() == (record(1), record(2))
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.safetensors", "rounds.jsonl"}


def test_missing_run(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "nothing")
    assert not store.exists
    assert store.records() == ()
    with pytest.raises(CheckpointError, match="there is no run") as caught:
        store.load(DIGEST)
    assert "without --resume" in caught.value.remedy


def test_another_plans_run(store: RunStore) -> None:
    with pytest.raises(CheckpointError, match="belongs to another plan"):
        store.load("cd" * 32)


def rewritten(data: bytes, **metadata: str | None) -> bytes:
    length = int.from_bytes(data[:8], "little")
    given = {**json.loads(data[8 : 8 + length])["__metadata__"], **metadata}
    return save(load(data), {key: value for key, value in given.items() if value is not None})


DAMAGES = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[:-1],
    "other bytes": lambda data: b"\x00" * len(data),
    "no metadata": lambda data: save(load(data)),
    "another format": lambda data: rewritten(data, format="testudo-server-9"),
    "no plan": lambda data: rewritten(data, plan_digest=None),
    "round not a number": lambda data: rewritten(data, round="two"),
    "counts not JSON": lambda data: rewritten(data, participations="{"),
    "no model": lambda data: save({"first": STATE.outer.first, "second": STATE.outer.second}, {"format": "x"}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_checkpoint(tmp_path: Path, store: RunStore, damage: Any) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes(), (tmp_path / "rounds.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="damaged") as caught:
        store.load(DIGEST)
    assert caught.value.where == str(path)
    assert (path.read_bytes(), (tmp_path / "rounds.jsonl").read_bytes()) == before


def test_rewriting_alone_damages_nothing(tmp_path: Path, store: RunStore) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(rewritten(path.read_bytes()))
    assert store.load(DIGEST) == STATE


def test_attempts_count_up_from_nothing_and_begin_again_with_each_round(store: RunStore, tmp_path: Path) -> None:
    assert [store.begin_attempt(3) for _ in range(3)] == [0, 1, 2]
    assert RunStore(tmp_path, durable=False).begin_attempt(3) == 3, "another process goes on counting"
    assert [store.begin_attempt(4), store.begin_attempt(4)] == [0, 1]
    assert store.load(DIGEST) == STATE


def test_attempt_is_kept_before_it_is_given(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    store.begin_attempt(3)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "replace", killed)
        store.begin_attempt(3)
    assert store.begin_attempt(3) == 1, "the one that was not kept was not given"


def test_new_run_in_the_same_folder_forgets_attempts(store: RunStore) -> None:
    store.begin_attempt(1)
    store.save(dataclasses.replace(STATE, round=0), None)
    assert store.begin_attempt(1) == 0


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"round": 3, "attem', id="truncated"),
        pytest.param(b"\xff", id="not text"),
        pytest.param(b"[3, 0]", id="a list"),
        pytest.param(b'{"round": 3}', id="no attempt"),
        pytest.param(b'{"attempt": 0}', id="no round"),
        pytest.param(b'{"round": 3, "attempt": "0"}', id="attempt as text"),
    ],
)
def test_damaged_attempt(store: RunStore, tmp_path: Path, content: bytes) -> None:
    """Counting from nothing would begin an attempt a second time."""
    path = tmp_path / "attempt.json"
    store.begin_attempt(3)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged") as caught:
        store.begin_attempt(3)
    assert caught.value.where == str(path)
    assert path.read_bytes() == content
