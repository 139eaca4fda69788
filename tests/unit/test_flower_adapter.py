"""The adapter takes effect on the Flower that it was made for; on any other, polls stay and TLS is refused."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import flwr
import httpx
import pytest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    PullMessagesRequest,
)
from flwr.supercore.inflatable import inflatable_utils as objects
from flwr.supercore.protobuf import client as protobuf
from flwr.superlink.grid import http_grid
from flwr.supernode import fleet_http_connection as fleet
from flwr.supernode import start_client_internal as node

from testudo_common import flower_adapter as adapter
from testudo_common.errors import UsageError


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    """Everything that the adapter replaces."""
    names = ("_pull_and_store_message", "_push_messages", "time")
    kept = {name: getattr(node, name) for name in names}
    client = fleet.FleetHttpClient
    pulls = (objects.pull_objects, objects.pull_and_inflate_object_from_tree)
    defaults = [dict(pull.__kwdefaults__) for pull in pulls]
    for pull, before in zip(pulls, defaults, strict=True):  # another test may have used the adapter in this process
        pull.__kwdefaults__ = {**before, "initial_backoff": 1}
    yield
    for name, value in kept.items():
        setattr(node, name, value)
    fleet.FleetHttpClient = client
    for pull, before in zip(pulls, defaults, strict=True):
        pull.__kwdefaults__ = before


class FakeClock:
    def __init__(self) -> None:
        self.now, self.slept = 100.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_a_pause_is_a_tenth_of_the_wait_and_never_longer_than_flowers() -> None:
    clock = FakeClock()
    pause = adapter.AdaptivePause(clock)
    while clock.now < 160:
        pause.sleep(3)
    assert clock.slept[0] == 0.2 and clock.slept[-1] == 3
    assert clock.slept == sorted(clock.slept)
    assert sum(1 for _ in clock.slept) < 50, "an idle node costs what Flower's does"
    pause.noted()
    pause.sleep(3)
    assert clock.slept[-1] == 0.2
    pause.noted()
    pause.sleep(0.5)
    assert clock.slept[-1] == 0.02
    clock.now += 100
    pause.sleep(0.5)
    assert clock.slept[-1] == 0.5


def test_a_server_that_answers_slowly_is_asked_less_often() -> None:
    clock = FakeClock()
    pause = adapter.AdaptivePause(clock)
    for seconds, expected in ((0.005, 0.2), (0.05, 1.0), (1.0, 3)):
        pause.asked_in_vain(seconds)
        pause.noted()
        pause.sleep(3)
        assert clock.slept[-1] == expected
    pause.noted()
    pause.sleep(0.5)
    assert clock.slept[-1] == 0.02, "its own reply is looked for in its own memory"


def test_polls_take_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "_pull_and_store_message", _function(node._pull_and_store_message, lambda **_: 7))
    assert adapter.quicken_node_polls()
    clock = FakeClock()
    pause: Any = node.time
    assert isinstance(pause, adapter.AdaptivePause)
    pause._clock, pause._last = clock, 0.0
    node.time.sleep(3)
    assert clock.slept[-1] == 3, "idle for long"
    assert node._pull_and_store_message(**{}) == 7
    node.time.sleep(3)
    assert clock.slept[-1] == 0.2, "a message came"


def _function(like: Any, body: Any) -> Any:
    body.__name__ = like.__name__
    return body


def test_a_poll_without_a_message_is_no_activity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "_pull_and_store_message", lambda **_: None)
    assert adapter.quicken_node_polls()
    pause: Any = node.time
    pause._clock, pause._last = (clock := FakeClock()), 0.0
    node._pull_and_store_message(**{})
    node.time.sleep(3)
    assert clock.slept == [3]


def _another_source(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    real = adapter.inspect.getsource

    def changed(thing: Any) -> str:
        source = real(thing)
        assert not isinstance(thing, ModuleType) or old in source
        return source.replace(old, new)

    monkeypatch.setattr(adapter.inspect, "getsource", changed)


@pytest.mark.parametrize(
    ("old", "new"),
    [("time.sleep(3)", "time.sleep(2)"), ("time.sleep(3)", "time.sleep(pause)"), ("time.sleep(3)", "time.time()")],
)
def test_a_changed_loop_keeps_flowers_polls(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    _another_source(monkeypatch, old, new)
    before = node.time
    assert not adapter.quicken_node_polls()
    assert node.time is before


def test_another_version_keeps_flowers_polls(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(flwr, "__version__", "1.42.0")
    before = node.time
    assert not adapter.quicken_node_polls()
    assert not adapter.quicken_object_pulls()
    assert node.time is before
    assert objects.pull_objects.__kwdefaults__["initial_backoff"] == 1
    assert "stay Flower's own" in caplog.text


def test_object_pulls_take_effect_at_node_and_grid() -> None:
    asked = 0

    def not_at_first(_object_id: str) -> bytes:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise objects.ObjectUnavailableError("x")
        return b"there"

    assert adapter.quicken_object_pulls()
    started = adapter.time.monotonic()
    assert node.pull_objects(["x"], not_at_first) == {"x": b"there"}
    assert adapter.time.monotonic() - started < 0.5, "Flower waits for at least 0.8 + 1.6 s"
    assert http_grid.pull_objects is node.pull_objects


def test_other_defaults_keep_flowers_pulls(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = {**objects.pull_objects.__kwdefaults__, "backoff_cap": 20}
    monkeypatch.setattr(objects.pull_objects, "__kwdefaults__", changed)
    assert not adapter.quicken_object_pulls()
    assert objects.pull_objects.__kwdefaults__ == changed
    assert objects.pull_and_inflate_object_from_tree.__kwdefaults__["initial_backoff"] == 1, "all or nothing"


def test_a_grid_that_pulls_otherwise_keeps_flowers_pulls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_grid, "pull_objects", lambda *_: {})
    assert not adapter.quicken_object_pulls()


def _client(context: ssl.SSLContext, told: list[tuple[str, int]], answer: Any) -> Any:
    adapter.use_tls_context(context, lambda path, status: told.append((path, status)))
    client = fleet.FleetHttpClient.from_server_address("door.test:443", False, b"ignored", [])
    assert not client._client.follow_redirects
    client._client._transport = httpx.MockTransport(answer)
    return client


def test_the_context_is_used_and_every_request_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    real = httpx.Client

    def watched(**more: Any) -> httpx.Client:
        used.append(more["verify"])
        return real(**more)

    context, told = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), list[tuple[str, int]]()
    monkeypatch.setattr(protobuf, "httpx", SimpleNamespace(**{**vars(httpx), "Client": watched}))
    statuses = iter([200, 403])
    client = _client(context, told, lambda _request: httpx.Response(next(statuses)))
    assert used == [context]
    client.PullMessages(PullMessagesRequest())
    with pytest.raises(httpx.HTTPStatusError):
        client.PullMessages(PullMessagesRequest())

    def lost(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("gone")

    client._client._transport = httpx.MockTransport(lost)
    with pytest.raises(httpx.ConnectError):
        client.PullMessages(PullMessagesRequest())
    assert told == [("/v1/fleet/pull-messages", status) for status in (200, 403, 0)]


class Kept:
    def __init__(self, node: int | None) -> None:
        self.node, self.begun = node, list[int]()

    def last(self) -> int | None:
        return self.node

    def began(self, node: int) -> None:
        self.begun.append(node)


def _activated(kept: Kept, statuses: list[int]) -> list[str]:
    """Paths that a node asked for until it was let in, whose requests are answered so."""
    asked = list[str]()

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path.rsplit("/", 1)[1])
        if asked[-1] == "deactivate-node":
            assert DeactivateNodeRequest.FromString(request.read()).node_id == 7
            return httpx.Response(statuses.pop(0))
        return httpx.Response(statuses.pop(0), content=ActivateNodeResponse(node_id=7).SerializeToString())

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    adapter.use_tls_context(context, lambda _path, _status: None, kept)
    client = fleet.FleetHttpClient.from_server_address("door.test:443", False, b"ignored", [])
    client._client._transport = httpx.MockTransport(answer)
    try:
        client.ActivateNode(ActivateNodeRequest())
    except httpx.HTTPStatusError as error:
        asked.append(str(error.response.status_code))
    return asked


@pytest.mark.parametrize(
    ("statuses", "asked"),
    [
        ([412, 200, 200], ["activate-node", "deactivate-node", "activate-node"]),
        ([412, 412, 200], ["activate-node", "deactivate-node", "activate-node"]),  # it ran out meanwhile
        ([200], ["activate-node"]),  # nothing is ended that is over
    ],
)
def test_a_node_ends_the_session_that_it_remembers(statuses: list[int], asked: list[str]) -> None:
    assert _activated(kept := Kept(7), statuses) == asked
    assert kept.begun == [7]


@pytest.mark.parametrize(("node", "status"), [(None, 412), (7, 403), (7, 401)])
def test_a_node_that_is_not_let_in_ends_nothing_else(node: int | None, status: int) -> None:
    assert _activated(kept := Kept(node), [status]) == ["activate-node", str(status)]
    assert not kept.begun


def test_without_tls_there_is_no_connection() -> None:
    adapter.use_tls_context(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), lambda _path, _status: None)
    with pytest.raises(UsageError, match="with TLS or not at all"):
        fleet.FleetHttpClient.from_server_address("door.test:80", True, None, [])


def test_a_changed_client_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(self: Any, base_url: str, transport: Any) -> None:
        raise AssertionError

    before = fleet.FleetHttpClient
    monkeypatch.setattr(protobuf.ProtobufClient, "__init__", other)
    with pytest.raises(UsageError, match="install the version of Flower"):
        adapter.use_tls_context(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), lambda _path, _status: None)
    assert fleet.FleetHttpClient is before


def test_another_version_is_refused_a_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flwr, "__version__", "1.42.0")
    with pytest.raises(UsageError, match=r"flwr 1\.42\.0"):
        adapter.use_tls_context(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), lambda _path, _status: None)
