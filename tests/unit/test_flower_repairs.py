"""The repairs take effect on the Flower that they were made for; any other stays as it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.common.constant import Status, SubStatus
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore import sql_mixin
from flwr.supercore.constant import TaskType
from flwr.supercore.corestate.in_memory_corestate import InMemoryCoreState
from flwr.supercore.inflatable import inflatable_utils as objects
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode import fleet_http_connection as fleet
from flwr.supernode import start_client_internal as node
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState, MessageEntry

from testudo_common import flower_adapter as adapter
from testudo_common import flower_repairs as repairs

MESSAGE, PART = "0" * 64, "1" * 64


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    """Everything that the adapter replaces."""
    names = ("_pull_and_store_message", "_push_messages", "time")
    kept = {name: getattr(node, name) for name in names}
    client = fleet.FleetHttpClient
    pulls = (objects.pull_objects, objects.pull_and_inflate_object_from_tree)
    defaults = [dict(pull.__kwdefaults__) for pull in pulls]
    yield
    for name, value in kept.items():
        setattr(node, name, value)
    fleet.FleetHttpClient = client
    for pull, before in zip(pulls, defaults, strict=True):
        pull.__kwdefaults__ = before


def test_finished_tasks_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    pushed = []

    def push(state: InMemoryNodeState, object_store: Any) -> None:
        pushed.append((state, object_store))

    monkeypatch.setattr(node, "_push_messages", push)
    assert repairs.forget_finished_tasks() and adapter.quicken_node_polls()
    state = InMemoryNodeState(InMemoryObjectStore())
    first, second = (state.create_task(TaskType.CLIENT_APP, run_id=1) for _ in range(2))
    assert first is not None and second is not None
    assert state.finish_task(first, sub_status=SubStatus.FAILED, details="")
    node._push_messages(state=state, object_store="store")  # type: ignore[arg-type, call-arg]
    assert pushed == [(state, "store")]
    assert list(state.task_store) == [second]


@pytest.mark.parametrize("comes", [True, False])
def test_the_task_of_a_message_that_is_lost_fails(monkeypatch: pytest.MonkeyPatch, comes: bool) -> None:
    """As when the run ends while a node is pulling the parts: Flower has made the task before."""
    state, store = InMemoryNodeState(InMemoryObjectStore()), InMemoryObjectStore()
    before = state.create_task(TaskType.CLIENT_APP, run_id=1)

    def pull(state: InMemoryNodeState, object_store: InMemoryObjectStore) -> int | None:
        state.create_task(TaskType.CLIENT_APP, run_id=1)
        state.msg_store[MESSAGE] = MessageEntry(Message(RecordDict(), 7, "train"))
        object_store.preregister(1, ObjectTree(object_id=MESSAGE, children=[ObjectTree(object_id=PART)]))
        if comes:
            return 1
        return None

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 5)
    monkeypatch.setattr(node, "_pull_and_store_message", pull)
    assert repairs.fail_tasks_of_lost_messages() and adapter.quicken_node_polls()
    assert node._pull_and_store_message(state=state, object_store=store) == (1 if comes else None)  # type: ignore[call-arg]
    (task,) = [task for number, task in state.task_store.items() if number != before]
    assert task.status.status == (Status.PENDING if comes else Status.FINISHED)
    assert before is not None and state.task_store[before].status.status == Status.PENDING
    assert (PART in store) is comes, "what an executor asks for is there, or is said to be lost"
    assert list(state.msg_store) == ([MESSAGE] if comes else [])


def test_another_store_of_tasks_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def otherwise(self: Any, object_store: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(InMemoryCoreState, "__init__", otherwise)
    before = node._push_messages
    assert not repairs.forget_finished_tasks()
    assert node._push_messages is before


def test_the_database_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_mixin, "SQLITE_PRAGMAS", before := sql_mixin.SQLITE_PRAGMAS)
    assert repairs.wait_for_the_database() and repairs.wait_for_the_database()
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        sql_mixin._set_sqlite_pragmas(database, None)
        assert database.execute("PRAGMA busy_timeout").fetchone() == (30000,)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",), "the others are Flower's"
    changed = tuple((name, "7" if name == "busy_timeout" else value) for name, value in before)
    monkeypatch.setattr(sql_mixin, "SQLITE_PRAGMAS", changed)
    assert not repairs.wait_for_the_database()
    assert changed == sql_mixin.SQLITE_PRAGMAS
