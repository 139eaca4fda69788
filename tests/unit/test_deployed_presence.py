"""Right after a server has started nobody counts as connected that has not spoken; how long a quorum is waited for."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, NodeStatus

from testudo_common.errors import RoundError
from testudo_server.deployment.presence import forget_presence, noticing
from testudo_server.deployment.quorum import WHERE, QuorumPatience

KEY = b"-----BEGIN PUBLIC KEY-----"
POLL = "/v1/fleet/pull-messages"


def database(path: Path, *states: str) -> Path:
    with closing(sqlite3.connect(path)) as opened:
        opened.execute("CREATE TABLE node (status TEXT, online_until REAL)")
        opened.executemany("INSERT INTO node VALUES (?, 1e12)", [(state,) for state in states])
        opened.commit()
    return path


def test_all_that_were_connected_are_taken_for_gone(tmp_path: Path) -> None:
    states = (NodeStatus.ONLINE, NodeStatus.REGISTERED, NodeStatus.UNREGISTERED, NodeStatus.ONLINE)
    path = database(tmp_path / "state.db", *states)
    assert forget_presence(path) == 2
    with closing(sqlite3.connect(path)) as opened:
        found = [state for (state,) in opened.execute("SELECT status FROM node")]
    assert found == [NodeStatus.OFFLINE, NodeStatus.REGISTERED, NodeStatus.UNREGISTERED, NodeStatus.OFFLINE]
    assert forget_presence(path) == 0


def test_without_a_database_nobody_is_forgotten(tmp_path: Path) -> None:
    assert forget_presence(tmp_path / "none.db") == 0
    assert not (tmp_path / "none.db").exists()
    sqlite3.connect(tmp_path / "empty.db").close()
    assert forget_presence(tmp_path / "empty.db") == 0


def polls(*requests: tuple[str, str, int], header: str = FLEET_HTTP_PUBLIC_KEY_HEADER) -> tuple[list[bytes], list[int]]:
    """Who was noticed, and the statuses that were answered, for (path, key in base64, status) in turn."""
    noticed: list[bytes] = []
    answered: list[int] = []
    status = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(event: Any) -> None:
        if event["type"] == "http.response.start":
            answered.append(event["status"])

    watched = noticing(app, noticed.append)

    async def run() -> None:
        nonlocal status
        for path, key, each in requests:
            status = each
            scope = {"type": "http", "path": path, "headers": [(header.encode(), key.encode())]}
            await watched(scope, None, send)  # type: ignore[arg-type]

    asyncio.run(run())
    return noticed, answered


def test_a_node_is_noticed_once_at_its_first_answered_poll() -> None:
    key = base64.b64encode(KEY).decode()
    noticed, answered = polls((POLL, key, 401), (POLL, key, 200), (POLL, key, 200))
    assert (noticed, answered) == ([KEY], [401, 200, 200])


@pytest.mark.parametrize(
    ("path", "key"),
    [("/v1/fleet/push-messages", "QUJD"), (POLL, "not base64!")],
    ids=["another request", "no key"],
)
def test_nobody_is_noticed_by(path: str, key: str) -> None:
    noticed, answered = polls((path, key, 200))
    assert (noticed, answered) == ([], [200])


def too_few() -> RoundError:
    return RoundError("1 of 3 owners have cosigned", where=WHERE)


def test_pauses_grow_and_end() -> None:
    patience = QuorumPatience(None, lambda: 0.0)
    pauses = [patience.pause_after(too_few(), 4) for _ in range(21)]
    assert pauses[:3] == [5.0, 7.5, 11.25]
    assert pauses[19] == 60.0
    assert pauses[20] is None


def test_a_finished_round_makes_patience_anew() -> None:
    patience = QuorumPatience(None, lambda: 0.0)
    for _ in range(21):
        patience.pause_after(too_few(), 4)
    assert patience.pause_after(too_few(), 5) == 5.0


def test_no_longer_than_the_operator_waits() -> None:
    times = iter([0.0, 0.0, 9.0, 10.0])
    patience = QuorumPatience(10.0, lambda: next(times))
    assert patience.pause_after(too_few(), 1) == 5.0
    assert patience.pause_after(too_few(), 1) == 7.5
    assert patience.pause_after(too_few(), 1) is None


def test_other_failures_end_the_run() -> None:
    error = RoundError("round 3 brought 4 usable replies and needs 8", where="rounds")
    assert QuorumPatience(None).pause_after(error, 2) is None
