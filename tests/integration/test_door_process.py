"""The door as a process, over real TLS: who gets in, what gets through, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from door_process import PULL, DoorProcess, StandIn, open_door, parsed
from provisioned import founded, joined, provisioned_federation
from testudo_common.errors import UsageError
from testudo_common.provisioning.certificates import Authority, certificate_pem, client_certificate
from testudo_common.provisioning.loopback import loopback_certificate
from testudo_common.provisioning.tls_keys import read_tls_key
from testudo_server.deployment import healthcheck
from testudo_server.deployment.door_rules import Reason
from testudo_server.deployment.run_status import RunStatus, write_status

pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    made = StandIn(*loopback_certificate(tmp_path_factory.mktemp("superlink")))
    with made.running():
        yield made


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, superlink: StandIn) -> Iterator[DoorProcess]:
    folder, owners = provisioned_federation(tmp_path_factory.mktemp("federation"), ("shop-1", "shop-2"))
    with open_door(folder, owners, tmp_path_factory.mktemp("run"), superlink) as opened:
        yield opened


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """Who was admitted by another federation, and trusts this one's server."""
    other = founded(tmp_path_factory.mktemp("other") / "federation")
    home = joined(other, "shop-1", tmp_path_factory.mktemp("stranger") / "owner", datetime.now(UTC))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    files = home.folder / "connection" / "tls"
    context.load_cert_chain(files / "client.crt", files / "client.key")
    return context


def until(true: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "did not come true"
        time.sleep(0.05)


def test_a_member_gets_through_both_ways(door: DoorProcess, superlink: StandIn) -> None:
    large = os.urandom(5 * 1024 * 1024 + 300)
    status, head, body = door.ask(PULL, body=large)
    assert status == 200
    assert body == PULL.encode() + b"|" + large
    assert b"content-type: application/protobuf" in head
    for hidden in (b"server:", b"uvicorn", b"x-internal", b"set-cookie"):
        assert hidden not in head
    assert b"host" in superlink.headers and superlink.headers[b"host"] == f"127.0.0.1:{superlink.port}".encode()


def test_many_requests_share_a_connection(door: DoorProcess) -> None:
    request = (
        f"POST {PULL} HTTP/1.1\r\nhost: a\r\ncontent-type: application/protobuf\r\ncontent-length: 1\r\n"
        f"flwr-public-key: {door.node_key('shop-1')}\r\n\r\nx"
    ).encode()
    with door.context("shop-1").wrap_socket(
        socket.create_connection(("127.0.0.1", door.port), 10), server_hostname="localhost"
    ) as tls:
        for _ in range(5):
            tls.sendall(request)
            answer = b""
            while not answer.endswith(b"|x"):
                answer += tls.recv(4096)
            assert parsed(answer)[0] == 200


def nothing_comes(door: DoorProcess, context: ssl.SSLContext) -> bool:
    """Whether the handshake fails. Under TLS 1.3 the client notices at its first read: an alert, or the end."""
    try:
        return door.raw(b"GET /testudo/roster.json HTTP/1.1\r\nhost: a\r\n\r\n", context=context) == b""
    except (ssl.SSLError, ConnectionResetError):
        return True


def test_without_a_certificate_there_is_no_connection(door: DoorProcess) -> None:
    assert nothing_comes(door, door.context(None))
    assert not nothing_comes(door, door.context("shop-1"))


def test_with_a_certificate_of_another_federation_there_is_no_connection(
    door: DoorProcess, stranger: ssl.SSLContext
) -> None:
    assert nothing_comes(door, stranger)


@pytest.mark.parametrize(
    ("who", "alert"), [("nobody", "certificate_required|certificate required"), ("stranger", "unknown ca")]
)
def test_who_is_not_let_in_is_told_why(door: DoorProcess, stranger: ssl.SSLContext, who: str, alert: str) -> None:
    """By an alert of TLS: an owner can tell a certificate that is not taken from a server that is about to start."""
    context = stranger if who == "stranger" else door.context(None)
    with pytest.raises(ssl.SSLError, match=f"(?i)alert {alert}|{alert}"):
        door.raw(b"", context=context)


def test_the_servers_own_certificate_opens_no_connection(door: DoorProcess) -> None:
    context = door.context(None)
    context.load_cert_chain(door.folder.server_certificate, door.folder.server_key)
    assert nothing_comes(door, context)


def test_with_an_expired_certificate_there_is_no_connection(door: DoorProcess, tmp_path: Path) -> None:
    root = x509.load_pem_x509_certificate(door.folder.ca_certificate.read_bytes())
    authority = Authority(root, read_tls_key(door.folder.ca_key))
    key = ec.generate_private_key(ec.SECP256R1())
    tls_file = tmp_path / "both.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for days, shut in ((3650, True), (0, False)):
        made = client_certificate(authority, key.public_key(), "shop-1", datetime.now(UTC) - timedelta(days=days))
        tls_file.write_text(private + certificate_pem(made))
        context = door.context(None)
        context.load_cert_chain(tls_file)
        assert nothing_comes(door, context) == shut


def test_a_certificate_of_the_right_ca_alone_is_not_enough(door: DoorProcess, tmp_path: Path) -> None:
    home = joined(door.folder, "shop-4", tmp_path / "owner", datetime.now(UTC))
    door.folder.member_file("shop-4").unlink()
    door.owners["shop-4"] = home.folder
    try:
        until(lambda: door.ask(PULL, client="shop-4")[0] == 403)
        assert door.ask(PULL, client="shop-4")[2] == Reason.UNKNOWN.body
        assert door.raw(b"GET /testudo/plan.toml HTTP/1.1\r\nhost: a\r\n\r\n", "shop-4").endswith(Reason.UNKNOWN.body)
    finally:
        del door.owners["shop-4"]


def test_a_superlink_that_goes_away_in_the_middle_of_an_answer(door: DoorProcess, superlink: StandIn) -> None:
    superlink.cuts = True
    try:
        status, head, body = door.ask(PULL)
    finally:
        superlink.cuts = False
    assert (status, body) == (200, PULL.encode()[:5]) and b"content-length: 29" in head, "the node sees that it is cut"
    assert door.ask(PULL)[0] == 200
    assert "Traceback" not in door.log.read_text()


def test_an_owner_sees_that_it_is_the_right_server(door: DoorProcess, superlink: StandIn) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        door.raw(b"", context=door.context("shop-1", root=superlink.certificate))


def test_one_node_cannot_speak_as_another(door: DoorProcess, superlink: StandIn) -> None:
    superlink.seen.clear()
    assert door.ask(PULL, client="shop-1", key_of="shop-2")[0] == 403
    assert superlink.seen == []
    assert door.ask(PULL, client="shop-2", key_of="shop-2")[0] == 200
    until(lambda: "refused 'shop-1': wrong_node_key" in door.log.read_text())
    assert door.node_key("shop-2") not in door.log.read_text()


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/list-runs", "/v1/control/start-run", "/v1/runtime/acquire-task", "/v1/fleet/register-node",
        "/docs", "/openapi.json", "/", "//v1/fleet/pull-messages", "/v1/fleet/..%2fcontrol/list-runs",
        "/v1/fleet/../control/list-runs", "/v1/fleet/pull-messages;x", "/v1/fleet/pull-messages/",
        "/v1/fleet/pull-messages?a=b",
        "https://localhost/v1/control/list-runs", "/v1/fleet/%70ull-messages",
    ],
)  # fmt: skip
def test_nothing_else_is_reachable(door: DoorProcess, superlink: StandIn, path: str) -> None:
    superlink.seen.clear()
    status, _, body = door.ask(path)
    assert (status, body) == (404, b"")
    assert superlink.seen == []


@pytest.mark.parametrize(
    ("line", "statuses"),
    [
        (f"GET {PULL} HTTP/1.1", (404,)),
        (f"POST {PULL} HTTP/1.0", (404,)),
        (f"POST {PULL} HTTP/2.0", (400, 404)),
        ("CONNECT 127.0.0.1:1 HTTP/1.1", (404,)),
        (f"TRACE {PULL} HTTP/1.1", (404,)),
        (f"POST {PULL}", (400, 404)),
        (f"POST  {PULL} HTTP/1.1", (400, 404)),
        (f"POST {PULL} x HTTP/1.1", (400, 404)),
        (f"POST {PULL} HTTP/1.1\r\nupgrade: websocket\r\nconnection: upgrade", (404,)),
        (f"POST {PULL} HTTP/1.1\r\nupgrade: h2c\r\nconnection: upgrade", (404,)),
        (f"POST {PULL} HTTP/1.1\r\ncontent-length: 5", (400,)),
        (f"POST {PULL} HTTP/1.1\r\ntransfer-encoding: chunked", (400, 411)),
        (f"POST {PULL} HTTP/1.1\r\ntransfer-encoding : chunked", (400,)),
        (f"POST {PULL} HTTP/1.1\r\nx: {'y' * 20_000}", (400,)),
        ("\x16\x03\x01", (400,)),
    ],
)
def test_a_request_that_is_bent_does_not_get_through(
    door: DoorProcess, superlink: StandIn, line: str, statuses: tuple[int, ...]
) -> None:
    superlink.seen.clear()
    head = (
        f"{line}\r\nhost: localhost\r\ncontent-type: application/protobuf\r\ncontent-length: 2\r\n"
        f"flwr-public-key: {door.node_key('shop-1')}\r\n\r\nhi"
    )
    status, lines, body = parsed(door.raw(head.encode()))
    assert status in statuses
    assert body == b""
    assert b"server:" not in lines
    assert superlink.seen == []


def test_a_body_over_the_limit_is_refused_before_it_is_read(door: DoorProcess, superlink: StandIn) -> None:
    superlink.seen.clear()
    head = (
        f"POST {PULL} HTTP/1.1\r\nhost: a\r\ncontent-type: application/protobuf\r\ncontent-length: 16777217\r\n"
        f"flwr-public-key: {door.node_key('shop-1')}\r\n\r\n"
    )
    assert parsed(door.raw(head.encode()))[0] == 413
    assert superlink.seen == []


def test_an_error_of_the_superlink_keeps_its_words_to_itself(door: DoorProcess, superlink: StandIn) -> None:
    superlink.status = 500
    try:
        assert door.ask(PULL)[::2] == (500, b"")
    finally:
        superlink.status = 200


def test_files_for_members(door: DoorProcess) -> None:
    answer = door.raw(b"GET /testudo/roster.json HTTP/1.1\r\nhost: a\r\n\r\n")
    assert parsed(answer)[::2] == (200, (door.folder.folder / "roster.json").read_bytes())
    assert parsed(door.raw(b"GET /testudo/federation.pem HTTP/1.1\r\nhost: a\r\n\r\n"))[0] == 404


def test_who_is_revoked_stays_outside_within_seconds(door: DoorProcess) -> None:
    member = door.folder.member("shop-2")
    assert member is not None
    door.folder.keep_member(replace(member, revoked=True))
    try:
        until(lambda: door.ask(PULL, client="shop-2")[0] == 403)
        assert door.ask(PULL, client="shop-1")[0] == 200
    finally:
        door.folder.keep_member(member)
    until(lambda: door.ask(PULL, client="shop-2")[0] == 200)


def status(door: DoorProcess, path: str, *, host: str = "localhost") -> tuple[int, str, dict[str, str]]:
    request = urllib.request.Request(f"https://localhost:{door.status_port}{path}", headers={"host": host})
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=door.context(None))
    )
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers.items())
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers.items())


def shown(error: str = "", **given: object) -> RunStatus:
    values = {
        "federation": "shops <script>x</script>", "plan": "sales", "plan_digest": "ab" * 32, "state": "running",
        "started": datetime.now(UTC), "updated": datetime.now(UTC), "round": 3, "rounds": 12, "expected": 2,
        "connected": 2, "asked": 2, "counted": 2, "round_seconds": (1.5, 1.25, 2.0), "epsilon": {"example": 1.234},
        "log_size": 40, "cosigned_by": 2, "quorum": 2, "bytes_down": 5_000_000, "bytes_up": 12, "error": error,
    }  # fmt: skip
    return RunStatus.model_validate(values | given)


def test_the_status_needs_no_certificate_and_says_how_the_run_stands(door: DoorProcess) -> None:
    run = door.log.parent
    assert json.loads(status(door, "/status.json")[1])["run"] is None
    write_status(run, shown())
    code, text, headers = status(door, "/")
    assert code == 200
    assert "Round 3 of 12" in text and "&lt;script&gt;" in text and "<script" not in text
    assert headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
    found = json.loads(status(door, "/status.json")[1])
    assert found["run"]["round"] == 3
    assert found["door"]["members"] == 2
    metrics = status(door, "/metrics")[1]
    assert "testudo_rounds_planned 12.0" in metrics
    assert 'testudo_door_refused_total{reason="not_here"}' in metrics
    assert status(door, "/v1/fleet/pull-messages")[0] == 404
    assert status(door, "/", host="evil.example")[0] == 400


def test_a_container_asks_whether_the_server_is_well(door: DoorProcess, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [str(door.folder.folder), f"127.0.0.1:{door.status_port}"]
    write_status(door.log.parent, shown(state="waiting"))
    healthcheck.app(asked, standalone_mode=False)
    assert capsys.readouterr().out == "waiting\n"
    write_status(door.log.parent, shown("too few", state="failed"))
    with pytest.raises(UsageError, match="the run failed"):
        healthcheck.app(asked, standalone_mode=False)
    for elsewhere in ("127.0.0.1:1", f"127.0.0.1:{door.port}"):
        with pytest.raises(UsageError, match="does not answer"):
            healthcheck.app([asked[0], elsewhere], standalone_mode=False)


def test_a_browser_shows_the_page(door: DoorProcess, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine to show the page")
    write_status(door.log.parent, shown("round 4: <b>too few</b> owners answered", state="failed"))
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors",
        "--virtual-time-budget=1000", f"--user-data-dir={tmp_path}", "--dump-dom", f"https://127.0.0.1:{door.status_port}/",
    ]  # fmt: skip
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "<title>Failed · shops &lt;script&gt;" in dumped
    assert 'role="alert"><p>round 4: &lt;b&gt;too few&lt;/b&gt; owners answered</p>' in dumped
    assert 'aria-valuenow="3"' in dumped and "width:25.00%" in dumped
    assert dumped.count("<rect ") == 3
    assert "<script" not in dumped


def test_a_superlink_that_is_down_is_a_503_until_it_is_back(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, door: DoorProcess
) -> None:
    superlink = StandIn(*loopback_certificate(tmp_path / "superlink"))
    with superlink.running():
        pass
    with open_door(door.folder, door.owners, tmp_path, superlink) as opened:
        assert opened.ask(PULL)[::2] == (503, b"")
        with superlink.running():
            assert opened.ask(PULL)[0] == 200
        assert opened.ask(PULL)[0] == 503
        loopback_certificate(tmp_path / "superlink")
        with superlink.running():
            until(lambda: opened.ask(PULL)[0] == 200)
        opened.process.send_signal(signal.SIGTERM)
        assert opened.process.wait(10) == 0


def test_it_ends_with_its_parent(tmp_path: Path, superlink: StandIn, door: DoorProcess) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with open_door(door.folder, door.owners, tmp_path, superlink, parent=parent.pid) as opened:
        assert opened.ask(PULL)[0] == 200
        parent.kill()
        parent.communicate()
        assert opened.process.wait(10) == 0
