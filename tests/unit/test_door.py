"""The door without a socket: what passes, whose connection it is, how much room there is, what is counted and said."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.superlink.routers.fleet.router import router
from hypothesis import given
from hypothesis import strategies as st

from provisioned import joined, provisioned_federation
from testudo_client.provisioning.connection import ConnectionFiles
from testudo_common.errors import UsageError
from testudo_server.deployment import door_app, door_rules
from testudo_server.deployment.door import Parent, address
from testudo_server.deployment.door_app import DoorApp
from testudo_server.deployment.door_counts import SECONDS_BETWEEN_LINES, DoorCounts, RefusalLog
from testudo_server.deployment.door_forward import Answer
from testudo_server.deployment.door_members import AdmittedMembers
from testudo_server.deployment.door_rules import MAX_BODY_BYTES, Reason, RefusedError, what_is_asked
from testudo_server.provisioning.folder import FederationFolder

PULL = b"/v1/fleet/pull-messages"
PROTOBUF = (b"content-type", b"application/protobuf")


@dataclass
class FakeSuperLink:
    """Remembers what it was asked."""

    asked_for: list[tuple[str, dict[bytes, bytes], bytes]] = field(default_factory=list)
    wait: asyncio.Event | None = None

    @asynccontextmanager
    async def asked(self, method: str, headers: Mapping[bytes, bytes], body: bytes) -> AsyncIterator[Answer]:
        self.asked_for.append((method, dict(headers), body))
        if self.wait is not None:
            await self.wait.wait()

        async def pieces() -> AsyncIterator[bytes]:
            yield b"answer of "
            yield method.encode()

        yield Answer(200, [(b"content-type", b"application/protobuf")], pieces())


@dataclass
class Scene:
    """A federation of two, its door, and what stands behind it."""

    folder: FederationFolder
    owners: dict[str, Path]
    superlink: FakeSuperLink
    members: AdmittedMembers
    app: DoorApp

    def certificate(self, client: str) -> bytes:
        return ssl.PEM_cert_to_DER_cert(ConnectionFiles(self.owners[client]).client_certificate.read_text())

    def node_key(self, client: str) -> bytes:
        key = load_ssh_private_key(ConnectionFiles(self.owners[client]).node_key.read_bytes(), None)
        return b64encode(public_key_to_bytes(key.public_key()))  # type: ignore[arg-type]

    def ask(
        self, target: bytes = PULL, *, method: str = "POST", certificate: bytes | None = None, key: bytes = b"",
        body: bytes = b"hello", headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> tuple[int, bytes, dict[bytes, bytes]]:  # fmt: skip
        sent = ((b"content-length", str(len(body)).encode()), PROTOBUF, (b"flwr-public-key", key), *headers)
        return asyncio.run(answered(self.app, target, method, certificate, sent, body))

    def ask_as(self, client: str, target: bytes = PULL, **given: Any) -> tuple[int, bytes, dict[bytes, bytes]]:
        return self.ask(target, certificate=self.certificate(client), key=self.node_key(client), **given)


async def answered(
    app: DoorApp, target: bytes, method: str, certificate: bytes | None,
    headers: tuple[tuple[bytes, bytes], ...], body: bytes,
) -> tuple[int, bytes, dict[bytes, bytes]]:  # fmt: skip
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    path, _, query = target.partition(b"?")
    scope = {
        "type": "http", "method": method, "raw_path": path, "query_string": query, "http_version": "1.1",
        "headers": list(headers), "state": {"certificate": certificate},
    }  # fmt: skip
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(each.get("body", b"") for each in sent[1:]), dict(sent[0].get("headers", []))


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> tuple[FederationFolder, dict[str, Path]]:
    return provisioned_federation(tmp_path_factory.mktemp("door"), ("shop-1", "shop-2"))


@pytest.fixture
def scene(provisioned: tuple[FederationFolder, dict[str, Path]], tmp_path: Path) -> Any:
    folder, owners = provisioned
    before = {member.client: member for member in folder.members()}
    members = AdmittedMembers(folder, clock=iter(range(0, 10_000, 5)).__next__)
    members.look()
    superlink = FakeSuperLink()
    files = {"roster.json": folder.folder, "federation.pub": folder.folder, "plan.toml": tmp_path}
    app = DoorApp(members, superlink, {name: place / name for name, place in files.items()})  # type: ignore[arg-type]
    yield Scene(folder, owners, superlink, members, app)
    for client, member in before.items():
        if folder.member(client) != member:
            folder.keep_member(member)


def test_the_list_is_flowers_own_without_registration() -> None:
    flowers = {route.path for route in router.routes}  # type: ignore[attr-defined]
    ours = {path.decode() for path in door_rules.FLEET_PATHS}
    assert flowers - ours == {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}
    assert ours < flowers
    assert door_rules.NODE_KEY_HEADER.decode() == FLEET_HTTP_PUBLIC_KEY_HEADER


def test_a_member_passes_with_its_own_node_key_and_nothing_but_flowers_headers(scene: Scene) -> None:
    extra = ((b"flwr-timestamp", b"now"), (b"connection", b"keep-alive, flwr-timestamp"), (b"x-forwarded-for", b"1"),
             (b"cookie", b"a"), (b"te", b"trailers"), (b"flwr-task-token", b"t"), (b"authorization", b"b"))  # fmt: skip
    status, body, headers = scene.ask_as("shop-1", headers=extra)
    assert (status, body) == (200, b"answer of pull-messages")
    assert headers == {b"content-type": b"application/protobuf"}
    [(method, passed, sent)] = scene.superlink.asked_for
    assert (method, sent) == ("pull-messages", b"hello")
    assert set(passed) == {b"content-type", b"flwr-public-key", b"flwr-timestamp"}
    assert scene.app.counts.answered == {("pull-messages", 200): 1}
    assert (scene.app.counts.bytes_in, scene.app.counts.bytes_out) == (5, len(body))
    assert scene.app.room.requests.total() == scene.app.room.held.total() == 0


TRICKS = [
    b"/", b"/docs", b"/openapi.json", b"/health", b"/v1/control/list-runs", b"/v1/control/start-run",
    b"/v1/runtime/acquire-task", b"/v1/fleet/register-node", b"/v1/fleet/unregister-node", b"/v1/fleet", b"/v1/fleet/",
    b"//v1/fleet/pull-messages", b"/v1//fleet/pull-messages", b"/v1/fleet/pull-messages/", b"/v1/fleet/pull-messages?x",
    b"/v1/fleet/../control/list-runs", b"/v1/fleet/..%2fcontrol/list-runs",
    b"/v1/fleet/%2e%2e/control/list-runs", b"/v1%2ffleet/pull-messages", b"/v1/fleet/pull%2dmessages",
    b"/v1/fleet/pull-messages;x", b"/v1/fleet/pull-messages%00", b"/v1/fleet/pull-messages#x",
    b"/V1/fleet/pull-messages",
    b"/v1/fleet/./pull-messages", b"\\v1\\fleet\\pull-messages", b"https://127.0.0.1/v1/fleet/pull-messages",
    b"/testudo/roster.json", b"*", b"",
]  # fmt: skip


@pytest.mark.parametrize("target", TRICKS)
def test_no_other_target_passes_whoever_asks(scene: Scene, target: bytes) -> None:
    assert scene.ask_as("shop-1", target)[:2] == (404, b"")
    assert scene.superlink.asked_for == []
    assert scene.app.counts.refused == {"not_here": 1}


@given(st.binary(max_size=40), st.sampled_from([b"", b"/v1/fleet/", b"/v1/", PULL]))
def test_only_the_very_bytes_of_the_list_pass(tail: bytes, head: bytes) -> None:
    target = head + tail
    if target in door_rules.FLEET_PATHS:
        return
    with pytest.raises(RefusedError) as refused:
        what_is_asked("POST", target, b"", "1.1", [(b"content-length", b"0"), PROTOBUF])
    assert refused.value.reason is Reason.NOT_HERE


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "post", "PATCH"])
def test_no_other_method_passes(scene: Scene, method: str) -> None:
    assert scene.ask_as("shop-1", method=method)[0] == 404
    assert scene.superlink.asked_for == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"http_version": "1.0"}, Reason.NOT_HERE),
        ({"more": [(b"upgrade", b"websocket")]}, Reason.NOT_HERE),
        ({"length": None}, Reason.NO_LENGTH),
        ({"length": b"+5"}, Reason.NO_LENGTH),
        ({"more": [(b"transfer-encoding", b"chunked")]}, Reason.NO_LENGTH),
        ({"length": str(MAX_BODY_BYTES + 1).encode()}, Reason.TOO_LARGE),
        ({"length": b"9" * 5000}, Reason.TOO_LARGE),
        ({"more": [(b"flwr-public-key", b"a"), (b"flwr-public-key", b"b")]}, Reason.MALFORMED),
        ({"more": [PROTOBUF]}, Reason.MALFORMED),
        ({"kind": b"text/html"}, Reason.MALFORMED),
    ],
)
def test_a_request_is_refused_by_its_first_lines(fault: dict[str, Any], reason: Reason) -> None:
    length = fault.get("length", b"5")
    headers = [(b"content-type", fault.get("kind", b"application/protobuf")), *fault.get("more", [])]
    headers += [] if length is None else [(b"content-length", length)]
    with pytest.raises(RefusedError) as refused:
        what_is_asked("POST", PULL, b"", fault.get("http_version", "1.1"), headers)
    assert refused.value.reason is reason


def test_a_body_of_the_very_limit_passes() -> None:
    length = str(MAX_BODY_BYTES).encode()
    assert what_is_asked("POST", PULL, b"", "1.1", [PROTOBUF, (b"content-length", length)]).length == MAX_BODY_BYTES


def test_one_member_cannot_come_with_the_others_node_key(scene: Scene) -> None:
    mine, other = scene.certificate("shop-1"), scene.node_key("shop-2")
    status, body, _ = scene.ask(certificate=mine, key=other)
    assert (status, body) == (403, Reason.WRONG_KEY.body)
    assert scene.ask(certificate=mine)[0] == 403
    both = ((b"flwr-public-key", scene.node_key("shop-1")),)
    assert scene.ask(certificate=mine, key=other, headers=both)[0] == 400
    assert scene.superlink.asked_for == []
    assert scene.app.counts.refused == {"wrong_node_key": 2, "malformed": 1}


def test_a_certificate_of_nobody_is_refused(scene: Scene) -> None:
    for certificate in (None, b"", b"not the one", scene.certificate("shop-1") + b"\0"):
        assert scene.ask(certificate=certificate, key=scene.node_key("shop-1"))[:2] == (403, Reason.UNKNOWN.body)


def test_a_certificate_that_runs_out_on_an_open_connection_is_refused(scene: Scene) -> None:
    later = datetime.now(UTC) + timedelta(days=4000)
    with pytest.raises(RefusedError) as refused:
        scene.members.who(scene.certificate("shop-1"), later)
    assert (refused.value.reason, refused.value.client) == (Reason.EXPIRED, "shop-1")


def test_who_is_revoked_is_refused_at_the_next_look_without_a_restart(scene: Scene) -> None:
    member = scene.folder.member("shop-1")
    assert member is not None
    assert scene.ask_as("shop-1")[0] == 200
    scene.folder.keep_member(replace(member, revoked=True))
    scene.members.look()
    assert scene.ask_as("shop-1")[:2] == (403, Reason.REVOKED.body)
    assert scene.ask_as("shop-2")[0] == 200
    assert scene.members.counted() == (1, 1)


def test_who_is_admitted_passes_at_the_next_look(scene: Scene, tmp_path: Path) -> None:
    home = joined(scene.folder, "shop-9", tmp_path / "new", datetime.now(UTC))
    try:
        scene.owners["shop-9"] = home.folder
        assert scene.ask_as("shop-9")[0] == 403
        scene.members.look()
        assert scene.ask_as("shop-9")[0] == 200
    finally:
        del scene.owners["shop-9"]
        scene.folder.member_file("shop-9").unlink()


def test_the_certificate_before_a_renewal_passes_too_until_its_owner_is_revoked(scene: Scene) -> None:
    first, second = scene.folder.member("shop-1"), scene.folder.member("shop-2")
    assert first is not None and second is not None
    other = ssl.DER_cert_to_PEM_cert(scene.certificate("shop-2"))
    scene.folder.member_file("shop-2").unlink()
    renewed = replace(first, certificate=other, earlier_certificate=first.certificate)
    scene.folder.keep_member(renewed)
    scene.members.look()
    for certificate in (scene.certificate("shop-1"), scene.certificate("shop-2")):
        assert scene.ask(certificate=certificate, key=scene.node_key("shop-1"))[0] == 200
    scene.folder.keep_member(replace(renewed, revoked=True))
    scene.members.look()
    for certificate in (scene.certificate("shop-1"), scene.certificate("shop-2")):
        assert scene.ask(certificate=certificate, key=scene.node_key("shop-1"))[:2] == (403, Reason.REVOKED.body)
    scene.folder.keep_member(second)


@pytest.mark.parametrize("fault", ["broken", "shared key", "shared certificate"])
def test_nobody_passes_while_the_members_files_are_not_clear(scene: Scene, fault: str) -> None:
    first, second = scene.folder.member("shop-1"), scene.folder.member("shop-2")
    assert first is not None and second is not None
    if fault == "broken":
        scene.folder.member_file("shop-2").write_text("{")
    elif fault == "shared key":
        scene.folder.keep_member(replace(second, node_key=first.node_key))
    else:
        scene.folder.keep_member(replace(second, certificate=first.certificate))
    with pytest.raises(UsageError, match="shop-2"):
        scene.members.look()
    assert scene.ask_as("shop-1")[0] == 503
    scene.folder.keep_member(second)
    scene.members.look()
    assert scene.ask_as("shop-1")[0] == 200


def test_the_doors_own_files_are_read_anew_and_only_for_members(scene: Scene) -> None:
    def get(name: bytes, client: str | None = "shop-1") -> tuple[int, bytes, dict[bytes, bytes]]:
        certificate = scene.certificate(client) if client else None
        return scene.ask(b"/testudo/" + name, method="GET", certificate=certificate)

    status, body, headers = get(b"roster.json")
    assert (status, body) == (200, (scene.folder.folder / "roster.json").read_bytes())
    assert headers[b"cache-control"] == b"no-store"
    assert get(b"federation.pub")[1] == (scene.folder.folder / "federation.pub").read_bytes()
    assert get(b"plan.toml")[:2] == (404, b"")
    scene.app.files["plan.toml"].write_text("name = 'shops'")
    assert get(b"plan.toml")[:2] == (200, b"name = 'shops'")
    assert get(b"roster.json", None)[0] == 403
    for name in (b"federation.pem", b"log.pem", b"../federation.pem", b"%2e%2e/federation.pem", b"", b"members"):
        assert get(name)[:2] == (404, b"")
    assert scene.superlink.asked_for == []


def test_one_member_cannot_take_all_the_room(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_app, "MAX_REQUESTS_OF_ONE", 2)

    async def crowd() -> list[int]:
        scene.superlink.wait = asyncio.Event()
        headers = [(PROTOBUF, (b"content-length", b"5"), (b"flwr-public-key", scene.node_key(who)))
                   for who in ("shop-1", "shop-1", "shop-1", "shop-2")]  # fmt: skip
        certificates = [scene.certificate(who) for who in ("shop-1", "shop-1", "shop-1", "shop-2")]
        tasks = [
            asyncio.create_task(answered(scene.app, PULL, "POST", certificate, lines, b"hello"))
            for certificate, lines in zip(certificates, headers, strict=True)
        ]
        await asyncio.sleep(0.01)
        scene.superlink.wait.set()
        return [status for status, _, _ in await asyncio.gather(*tasks)]

    assert asyncio.run(crowd()) == [200, 200, 503, 200]
    assert scene.app.counts.refused == {"busy": 1}
    assert scene.app.room.requests.total() == 0


def test_bodies_that_are_held_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    room = door_app.Room()
    monkeypatch.setattr(door_app, "MAX_BYTES_OF_ONE", 100)
    monkeypatch.setattr(door_app, "MAX_BYTES", 150)
    with room.taken("a", 80):
        with pytest.raises(RefusedError), room.taken("a", 30):
            pass
        with room.taken("b", 70), pytest.raises(RefusedError), room.taken("c", 1):
            pass
    with room.taken("c", 100):
        pass


def test_a_slow_body_is_given_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_app, "GRACE_SECONDS", 0.01)

    async def never() -> dict[str, Any]:
        await asyncio.sleep(10)
        raise AssertionError

    async def drip() -> None:
        await door_app._body(never, 10)

    with pytest.raises(RefusedError) as refused:
        asyncio.run(drip())
    assert refused.value.reason is Reason.SLOW


def test_a_line_a_minute_says_who_was_refused_and_no_key(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    log = RefusalLog(lambda: now[0])
    with caplog.at_level(logging.WARNING, "testudo.door"):
        for _ in range(1000):
            log.refused("shop-1", Reason.WRONG_KEY)
        log.refused("shop-2\n", Reason.WRONG_KEY)
        now[0] = SECONDS_BETWEEN_LINES
        log.refused("shop-1", Reason.WRONG_KEY)
    assert caplog.messages == [
        "refused 'shop-1': wrong_node_key",
        r"refused 'shop-2\n': wrong_node_key",
        "refused 'shop-1': wrong_node_key (999 more since the last line)",
    ]


def test_seconds_fall_into_their_buckets() -> None:
    counts = DoorCounts()
    for seconds in (0.001, 0.005, 0.006, 100.0):
        counts.took(seconds)
    assert counts.seconds[:2] == [2, 1] and counts.seconds[-1] == 1 and sum(counts.seconds) == 4


@pytest.mark.parametrize(
    "text", ["127.0.0.1", ":1", "127.0.0.1:", "127.0.0.1:70000", "127.0.0.1:-1", "127.0.0.1:x", ""]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        address(text)


@pytest.mark.parametrize("text", ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "example.org:1", "localhost.:1", "[fe80::1]:1"])
def test_the_status_page_is_not_shown_to_other_machines(text: str) -> None:
    assert address(text).port == 1
    with pytest.raises(UsageError, match="other machines"):
        address(text, loopback=True)
    assert str(address("[::1]:5", loopback=True)) == "[::1]:5"
    assert str(address("localhost:5", loopback=True)) == "127.0.0.1:5"


def test_a_parent_that_is_gone_is_noticed() -> None:
    assert not Parent(os.getppid()).gone()
    assert not Parent(os.getpid()).gone()
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert Parent(child).gone()


def test_reasons_are_distinct_words_with_fixed_bodies() -> None:
    words = [reason.word for reason in Reason]
    assert len(set(words)) == len(words)
    assert all(reason.status in (400, 403, 404, 408, 411, 413, 503) for reason in Reason)
    assert json.dumps(words).isascii()
