"""What an operator asks of a SuperLink, and who may ask: against answers as Flower gives them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.proto.control_pb2 import (
    ListNodesResponse,
    ListRunsResponse,
    RegisterNodeResponse,
    StartRunResponse,
)
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.run_pb2 import Run, RunStatus
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.superlink.grid import HttpGrid

from testudo_common.errors import UsageError
from testudo_server.deployment import retries
from testudo_server.deployment.control import begin_run, node_key_of, register_members, stop_earlier_runs
from testudo_server.deployment.executor import TaskGrid
from testudo_server.deployment.retries import patient_retries
from testudo_server.deployment.superlink_process import CONTROL_HEADER, guarded
from testudo_server.provisioning.folder import Member

SECRET = bytes(range(32))


def member_of(client: str, *, revoked: bool = False, key: Any = None) -> Member:
    key = key or ec.generate_private_key(ec.SECP384R1())
    text = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return Member(client, text, "", revoked)


@dataclass
class FakeControl:
    """A SuperLink's Control API, as far as it is used."""

    nodes: list[NodeInfo] = field(default_factory=list)
    runs: dict[int, Run] = field(default_factory=dict)
    stopped: list[int] = field(default_factory=list)
    answer: StartRunResponse = field(default_factory=lambda: StartRunResponse(run_id=7))

    def ListNodes(self, _request: Any) -> ListNodesResponse:  # noqa: N802 - Flower's name
        return ListNodesResponse(nodes_info=self.nodes)

    def RegisterNode(self, request: Any) -> RegisterNodeResponse:  # noqa: N802
        number = 1000 + len(self.nodes)
        self.nodes.append(NodeInfo(node_id=number, public_key=request.public_key, status="registered"))
        return RegisterNodeResponse(node_id=number)

    def UnregisterNode(self, request: Any) -> None:  # noqa: N802
        (node,) = (node for node in self.nodes if node.node_id == request.node_id)
        node.status = "unregistered"

    def ListRuns(self, _request: Any) -> ListRunsResponse:  # noqa: N802
        return ListRunsResponse(run_dict=self.runs)

    def StopRun(self, request: Any) -> None:  # noqa: N802
        self.stopped.append(request.run_id)

    def StartRun(self, request: Any) -> StartRunResponse:  # noqa: N802
        assert request.fab.hash_str
        return self.answer


def test_members_are_registered_once() -> None:
    control, members = FakeControl(), [member_of("ada"), member_of("bob")]
    first = register_members(control, members)
    assert register_members(control, members) == first == {"ada": 1000, "bob": 1001}
    assert len(control.nodes) == 2


def test_revoked_members_and_strangers_are_unregistered() -> None:
    control, ada, bob = FakeControl(), member_of("ada"), member_of("bob")
    register_members(control, [ada, bob, member_of("eve")])
    revoked = Member(bob.client, bob.node_key, "", revoked=True)
    assert register_members(control, [ada, revoked]) == {"ada": 1000}
    assert [node.status for node in control.nodes] == ["registered", "unregistered", "unregistered"]


def test_a_node_key_that_was_revoked_does_not_come_back() -> None:
    control, ada = FakeControl(), member_of("ada")
    register_members(control, [ada])
    register_members(control, [])
    with pytest.raises(UsageError, match="ada: its node key was revoked once"):
        register_members(control, [ada])


@pytest.mark.parametrize("text", ["", "ssh-rsa AAAA", "nonsense"])
def test_what_is_no_node_key_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="ada: its node key is not an EC key"):
        node_key_of(Member("ada", text, ""))


def test_node_key_of_another_curve_is_named() -> None:
    with pytest.raises(UsageError, match="not an EC key"):
        node_key_of(member_of("ada", key=ed25519.Ed25519PrivateKey.generate()))


def test_runs_that_a_killed_server_left_are_stopped() -> None:
    over, on = (Run(status=RunStatus(status=status)) for status in ("finished", "running"))
    control = FakeControl(runs={1: over, 2: on, 3: on})
    assert stop_earlier_runs(control) == 2
    assert sorted(control.stopped) == [2, 3]


def test_a_run_that_is_not_begun_is_no_run() -> None:
    assert begin_run(FakeControl(), b"bundle", "ab") == 7
    with pytest.raises(UsageError, match="did not begin the run"):
        begin_run(FakeControl(answer=StartRunResponse()), b"bundle", "ab")


# Who may ask.


def answered(path: str, *headers: tuple[bytes, bytes], kind: str = "http") -> list[Any]:
    """What comes of a request: the paths that were let through, and the statuses of those that were not."""
    seen: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope.get("path", scope["type"]))

    async def send(message: Any) -> None:
        seen.extend([message["status"]] if "status" in message else [])

    async def receive() -> None:
        raise AssertionError

    scope = {"type": kind, "path": path, "headers": headers}
    asyncio.run(guarded(app, SECRET)(scope, receive, send))
    return seen


NAME = CONTROL_HEADER.encode()


@pytest.mark.parametrize("path", ["/v1/fleet/pull-messages", "/v1/runtime/acquire-task", "/health"])
def test_what_flower_checks_itself_is_let_through(path: str) -> None:
    assert answered(path) == [path]


@pytest.mark.parametrize("path", ["/v1/control/start-run", "/docs", "/openapi.json", "/", "/v1/control/../fleet/x"])
def test_everything_else_needs_the_secret(path: str) -> None:
    assert answered(path) == [401]
    assert answered(path, (NAME, b"00" * 32)) == [401]
    assert answered(path, (NAME, SECRET)) == [401]
    assert answered(path, (NAME, SECRET.hex().encode()), (NAME, SECRET.hex().encode())) == [401]
    assert answered(path, (NAME, SECRET.hex().encode())) == [path]


def test_other_protocols_are_not_let_through() -> None:
    assert answered("/v1/control/start-run", (NAME, SECRET.hex().encode()), kind="websocket") == []
    assert answered("", kind="lifespan") == [""]


# Calls to a SuperLink that is away.


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(retries.time, "sleep", pauses.append)
    return pauses


def status(code: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "https://127.0.0.1")
    return httpx.HTTPStatusError("", request=request, response=httpx.Response(code, request=request))


def calling(*outcomes: Exception | str) -> Any:
    left = list(outcomes)

    def call() -> str:
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return call


def test_a_call_is_made_again_while_nobody_answers(slept: list[float]) -> None:
    away = httpx.ConnectError("refused"), httpx.ReadError("reset"), status(503)
    assert patient_retries().invoke(calling(*away, "answer")) == "answer"
    assert slept == [0.05, 0.1, 0.2]


@pytest.mark.parametrize("code", [401, 403, 404, 500])
def test_an_answer_is_an_answer_and_sends_no_signal(slept: list[float], code: int) -> None:
    """Flower's own way of calling again ends the process with SIGINT at a 401, and with a BaseException at a 403."""
    with pytest.raises(httpx.HTTPStatusError):
        patient_retries().invoke(calling(status(code)))
    assert slept == []


def test_a_part_that_arrives_twice_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = tmp_path / "root.crt"
    root.write_bytes(b"")

    class Pushed:
        class metadata:  # noqa: N801 - Flower's name
            message_id = "m1"

    def fail(_self: HttpGrid, _messages: Any) -> list[str]:
        raise ObjectPushError("object", 1, "session")

    monkeypatch.setattr(HttpGrid, "push_messages", fail)
    grid: Any = TaskGrid("127.0.0.1:1", root, "token")
    assert grid.push_messages([Pushed()]) == ["m1"]
