"""The executor against the real Runtime API of a SuperNode, on loopback in this process; a model of 10^7 parameters."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import uvicorn
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeState, NodeStateFactory
from flwr.supernode.start_client_internal import _insert_message

from testudo_client.deployment import runtime_api
from testudo_client.deployment.executor import Executor
from testudo_client.deployment.runtime_api import HttpRuntimeApi
from testudo_client.owner_log import OwnerLog

pytestmark = pytest.mark.network
SECRET, RUN, NODE, SERIES = b"s" * 32, 11, 22, 33
BUNDLE_HASH = hashlib.sha256(b"bundle").hexdigest()


@pytest.fixture
def node() -> Iterator[tuple[str, NodeState]]:
    """Address and state of a SuperNode without its connection to a server."""
    factory = NodeStateFactory(ObjectStoreFactory())
    config = uvicorn.Config(
        create_app(factory, SECRET), host="127.0.0.1", port=0, log_level="warning", lifespan="off", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    state = factory.state()
    state.set_node_id(NODE)
    run = Run.create_empty(RUN)
    run.series_id, run.fab_hash = SERIES, BUNDLE_HASH
    state.store_run(run)
    state.store_fab(Fab(BUNDLE_HASH, b"bundle", {}))
    poisoned = Context(RUN, NODE, {"owner": "another"}, RecordDict({"x": ConfigRecord({"x": 1})}), {"plan": "evil"})
    state.set_run_series_context(SERIES, poisoned)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"127.0.0.1:{port}", state
    server.should_exit = True
    thread.join(10)


def send(
    state: NodeState, content: RecordDict, message_type: str = "train", kind: TaskType = TaskType.CLIENT_APP
) -> None:
    """As the SuperNode does with what it got from the server."""
    metadata = Metadata(RUN, "", 1, NODE, "", "", time.time(), 600.0, message_type)
    message = make_message(metadata=metadata, content=content)
    assert state.create_task(task_type=kind, run_id=RUN, fab_hash=BUNDLE_HASH) is not None
    time.sleep(0.1)  # a SuperNode puts the message beside its task a moment later, and a warm executor is quicker
    _insert_message(message, state, state.object_store)


def reply_in(state: NodeState, seconds: float = 30) -> Message:
    ends = time.monotonic() + seconds
    while not (found := state.get_messages_legacy(is_reply=True)):
        assert time.monotonic() < ends
        time.sleep(0.01)
    return found[0]


def stored_vector(state: NodeState, reply: Message) -> int:
    """Bytes of the reply's objects, once all are there."""
    tree = state.object_store.get_object_tree(reply.metadata.message_id)
    ids, ends = [], time.monotonic() + 30
    todo = [tree]
    while todo:
        ids.append((part := todo.pop()).object_id)
        todo.extend(part.children)
    while any(not state.object_store.get(object_id) for object_id in ids):
        assert time.monotonic() < ends
        time.sleep(0.01)
    return sum(len(state.object_store.get(object_id) or b"") for object_id in ids)


def serving(address: str, app: ClientApp, tmp_path, secret: bytes = SECRET) -> tuple[Executor, threading.Thread]:
    executor = Executor(
        lambda: HttpRuntimeApi(address, None, secret),
        lambda _digest: app,
        {"owner": "mine"},
        OwnerLog(tmp_path / "log"),
    )
    thread = threading.Thread(target=executor.run, daemon=True)
    thread.start()
    return executor, thread


def test_ten_million_parameters_there_and_back(node: tuple[str, NodeState], tmp_path) -> None:
    address, state = node
    app, contexts = ClientApp(), list[Context]()
    vector = np.arange(10_000_000, dtype=np.uint32)

    @app.train()
    def train(asked: Message, context: Context) -> Message:
        contexts.append(context)
        (came,) = asked.content.array_records["vector"].to_numpy_ndarrays()
        assert np.array_equal(came, vector[: len(came)])
        return Message(RecordDict({"vector": ArrayRecord([came[::-1].copy()])}), reply_to=asked)

    executor, thread = serving(address, app, tmp_path)
    for size in (len(vector), 1000):  # one after the other, by the same process
        send(state, RecordDict({"vector": ArrayRecord([vector[:size]])}))
        reply = reply_in(state)
        assert not reply.has_error() and stored_vector(state, reply) > 4 * size
        state.delete_messages(message_ids=[reply.metadata.message_id, reply.metadata.reply_to_message_id])
    executor.stop()
    thread.join(10)
    assert executor.counts.answered == 2
    assert [context.node_config for context in contexts] == [{"owner": "mine"}] * 2
    assert contexts[0].run_config == {} and len(contexts[0].state) == 0
    kept = state.get_run_series_context(SERIES)
    assert kept is not None and dict(kept.state.config_records["x"]) == {"x": 1}, "no state goes to the SuperNode"


def test_a_task_for_an_agent_is_answered_too(node: tuple[str, NodeState], tmp_path) -> None:
    """What a hostile server could send, for the node to wait for ever."""
    address, state = node
    executor, thread = serving(address, ClientApp(), tmp_path)
    send(state, RecordDict(), kind=TaskType.AGENT_APP)
    assert reply_in(state).has_error()
    executor.stop()
    thread.join(10)


def test_without_the_secret_there_is_no_task(node: tuple[str, NodeState]) -> None:
    address, state = node
    send(state, RecordDict())
    for secret in (b"x" * 32, SECRET):
        api = HttpRuntimeApi(address, None, secret)
        if secret == SECRET:
            assert api.acquire() is not None
        else:
            with pytest.raises(httpx.HTTPStatusError, match="401"):
                api.acquire()
        api.close()


def test_a_task_without_a_message_is_given_up(node: tuple[str, NodeState], monkeypatch: pytest.MonkeyPatch) -> None:
    address, state = node
    monkeypatch.setattr(runtime_api, "MESSAGE_SECONDS", 0.1)
    assert state.create_task(task_type=TaskType.CLIENT_APP, run_id=RUN, fab_hash=BUNDLE_HASH) is not None
    api = HttpRuntimeApi(address, None, SECRET)
    task = api.acquire()
    assert task is not None
    with pytest.raises(LookupError):
        api.pull(task)
    api.close()


def test_what_is_pulled_is_what_was_sent(node: tuple[str, NodeState]) -> None:
    address, state = node
    send(state, content := RecordDict({"c": ConfigRecord({"b": b"bytes"})}))
    api = HttpRuntimeApi(address, None, SECRET)
    task = api.acquire()
    assert task is not None and "token" not in repr(task).replace("HttpRuntimeApi", "") and api.beat()
    given = api.pull(task)
    assert (given.node_id, given.series_id, given.bundle) == (NODE, SERIES, b"bundle")
    assert set(get_all_nested_objects(given.message.content)) == set(get_all_nested_objects(content))
    api.finish(answered=False)
    assert api.acquire() is None
    api.close()
