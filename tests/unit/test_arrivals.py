"""A reply whose parts have not come holds up no other, and what nobody waits for is deleted."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute
from flwr.supercore.task_identity import TaskIdentity

from testudo_server.app import Forgetful, exchange_messages
from testudo_server.deployment import arrivals
from testudo_server.deployment.arrivals import Arrivals
from testudo_server.deployment.executor import TaskGrid


@dataclass
class Runtime:
    """A SuperLink's Runtime API: replies that were announced, and the parts that are there."""

    announced: dict[str, Message] = field(default_factory=dict)
    parts: dict[str, bytes | None] = field(default_factory=dict)
    asked: list[set[str]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def announce(self, question: Message, value: int) -> Message:
        reply = Message(RecordDict({"r": ConfigRecord({"value": value})}), reply_to=question)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        self.announced[question.metadata.message_id] = reply
        self.parts.update(dict.fromkeys(get_all_nested_objects(reply), b""))
        return reply

    def bring(self, reply: Message) -> None:
        self.parts.update({name: part.deflate() for name, part in get_all_nested_objects(reply).items()})

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:  # noqa: N802 - Flower's name
        self.asked.append(set(request.message_ids))
        with no_object_id_recompute():
            found = [self.announced.pop(asked) for asked in request.message_ids if asked in self.announced]
            return PullAppMessagesResponse(
                messages_list=map(message_to_proto, found), message_object_trees=map(get_object_tree, found)
            )

    def PullObject(self, request: Any) -> Any:  # noqa: N802
        part = self.parts.get(request.object_id)
        return SimpleNamespace(object_found=part is not None, object_available=part != b"", object_content=part)

    def ConfirmMessageReceived(self, request: Any) -> None:  # noqa: N802
        self.deleted.append(request.message_object_id)


def question(name: str) -> Message:
    message = Message(RecordDict(), 7, "train", ttl=60.0)
    message.metadata.__dict__.update(_message_id=name, _run_id=5, _src_node_id=1)
    return message


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 5)


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


@pytest.fixture
def coming(runtime: Runtime) -> Arrivals:
    return Arrivals(runtime, Node(node_id=1), 5)  # type: ignore[arg-type]


def test_a_reply_that_does_not_come_holds_up_no_other(runtime: Runtime, coming: Arrivals) -> None:
    late, soon = runtime.announce(question("a"), 1), runtime.announce(question("b"), 2)
    runtime.bring(soon)
    (found,) = coming.pull(["a", "b"])
    assert found.metadata.reply_to_message_id == "b" and found.content["r"]["value"] == 2
    assert coming.pull(["a"]) == [] and runtime.deleted == [soon.metadata.message_id]
    assert runtime.asked == [{"a", "b"}], "Flower would call a message unknown whose reply it has announced"
    runtime.bring(late)
    (found,) = coming.pull(["a"])
    assert found.content["r"]["value"] == 1 and found.metadata.message_id == late.metadata.message_id


def test_a_reply_whose_parts_are_lost_is_an_error(runtime: Runtime, coming: Arrivals) -> None:
    runtime.announce(question("a"), 1)
    runtime.parts.clear()
    (found,) = coming.pull(["a"])
    assert found.has_error() and found.error.code == ErrorCode.MESSAGE_UNAVAILABLE
    assert found.metadata.reply_to_message_id == "a"


def test_what_nobody_waits_for_is_deleted(runtime: Runtime, coming: Arrivals, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(arrivals, "time", SimpleNamespace(monotonic=lambda: now[0], time=lambda: 0.0))
    announced = runtime.announce(question("a"), 1)
    assert coming.pull(["a", "b"]) == []
    coming.give_up(["a", "b"], 3.0)
    assert runtime.deleted == [announced.metadata.message_id], "its parts are not waited for"
    coming.tidy()
    assert len(runtime.asked) == 1, "Flower keeps a message that is still valid"
    late = runtime.announce(question("b"), 2)
    now[0] += 5.0
    coming.tidy()
    assert runtime.asked[1:] == [{"a", "b"}]
    assert set(runtime.deleted[1:]) == {"a", "b", late.metadata.message_id}
    coming.tidy()
    assert len(runtime.asked) == 2


def test_an_exchange_gives_up_what_did_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        given_up: tuple[list[str], float] | None = None

        def push_messages(self, messages: list[Message]) -> list[str]:
            return [f"m{message.metadata.dst_node_id}" for message in messages]

        def pull_messages(self, _ids: list[str]) -> list[Message]:
            return []

        def give_up(self, message_ids: list[str], seconds: float) -> None:
            self.given_up = sorted(message_ids), seconds

    grid: Any = Silent()
    contents = [(node, ("train", RecordDict())) for node in (1, 2)]
    assert list(exchange_messages(grid, contents, deadline_seconds=60.0, enough=lambda: True)) == []
    assert grid.given_up[0] == ["m1", "m2"] and 50 < grid.given_up[1] <= 60
    assert issubclass(TaskGrid, Forgetful)
