"""Why a node is not connected: each reason by a real handshake on loopback, and whether it lasts."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

from fake_door import FakeDoor, fake_door
from provisioned import founded, joined
from testudo_client.deployment import door as door_module
from testudo_client.deployment.diagnosis import Cause, diagnose
from testudo_client.deployment.door import KEY_PATH, ask
from testudo_client.deployment.tls import door_context
from testudo_client.home import OwnerHome
from testudo_client.provisioning.connection import Connection, ConnectionFiles
from testudo_common.errors import KeyFileError
from testudo_common.provisioning.certificates import Authority, certificate_pem, server_certificate
from testudo_common.provisioning.tls_keys import read_tls_key
from testudo_server.provisioning.folder import FederationFolder

pytestmark = pytest.mark.network
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[FederationFolder, OwnerHome]:
    folder = tmp_path_factory.mktemp("diagnosis")
    federation = founded(folder / "federation")
    return federation, joined(federation, "shop-1", folder / "owner", NOW)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> tuple[FederationFolder, OwnerHome]:
    """Another federation, with another root."""
    folder = tmp_path_factory.mktemp("other")
    federation = founded(folder / "federation")
    return federation, joined(federation, "shop-1", folder / "owner", NOW)


@pytest.fixture
def door(place: tuple[FederationFolder, OwnerHome]) -> Iterator[FakeDoor]:
    federation, _ = place
    with fake_door(federation.server_certificate, federation.server_key, federation.ca_certificate) as found:
        found.files[KEY_PATH] = b"key"
        yield found


@pytest.fixture
def owner(place: tuple[FederationFolder, OwnerHome]) -> Path:
    return place[1].folder


def test_an_answer_says_whose_certificate_it_was(
    door: FakeDoor, owner: Path, place: tuple[FederationFolder, OwnerHome]
) -> None:
    seen: list[tuple[str, ...]] = []
    connection = door.connection(owner)
    answer = ask(connection, door_context(connection.files, "any", seen.append), KEY_PATH)
    assert (answer.status, answer.body) == (200, b"key")
    assert answer.ahead_seconds is not None and abs(answer.ahead_seconds) < 2
    assert seen == [(digest_of(place[0].server_certificate), digest_of(place[0].ca_certificate))]


def digest_of(path: Path) -> str:
    (certificate, *_) = x509.load_pem_x509_certificates(path.read_bytes())
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


@pytest.mark.parametrize("pinned", ["server_certificate", "ca_certificate"])
def test_a_pinned_certificate_is_let_through(
    door: FakeDoor, owner: Path, place: tuple[FederationFolder, OwnerHome], pinned: str
) -> None:
    connection = door.connection(owner)
    pins = (digest_of(getattr(place[0], pinned)),)
    assert ask(connection, door_context(connection.files, pins), KEY_PATH).status == 200


def test_another_certificate_is_not_asked_anything(door: FakeDoor, owner: Path) -> None:
    pins = ("ab" * 32,)
    found = diagnose(door.connection(owner), pins)
    assert found.cause is Cause.NOT_PINNED and "does not pin" in found.sentence and not found.lasts
    assert door.asked == [], "the handshake ends before a byte is sent"


def test_a_context_that_would_not_look_at_a_pin_is_not_used(owner: Path) -> None:
    context = door_context(ConnectionFiles(owner), ("ab" * 32,))
    with pytest.raises(ssl.SSLCertVerificationError, match="through a proxy"):
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())


def test_expired_server_certificate(place: tuple[FederationFolder, OwnerHome], owner: Path, tmp_path: Path) -> None:
    certificate, key = made_long_ago(place[0], tmp_path)
    with fake_door(certificate, key, place[0].ca_certificate) as door:
        found = diagnose(door.connection(owner))
    assert found.cause is Cause.SERVER_EXPIRED and not found.lasts
    assert "tell your federation to renew it" in found.sentence


def made_long_ago(federation: FederationFolder, folder: Path) -> tuple[Path, Path]:
    (root,) = x509.load_pem_x509_certificates(federation.ca_certificate.read_bytes())
    authority = Authority(root, read_tls_key(federation.ca_key))
    key = read_tls_key(federation.server_key)
    certificate = server_certificate(authority, key.public_key(), ("localhost",), NOW - timedelta(days=3000))
    (folder / "old.crt").write_text(certificate_pem(certificate))
    return folder / "old.crt", federation.server_key


def test_wrong_root(place: tuple[FederationFolder, OwnerHome], other: tuple[FederationFolder, OwnerHome]) -> None:
    impostor = other[0]
    with fake_door(impostor.server_certificate, impostor.server_key, impostor.ca_certificate) as door:
        found = diagnose(door.connection(place[1].folder))
    assert found.cause is Cause.SERVER_UNTRUSTED and "not signed by your federation" in found.sentence
    assert not found.lasts, "whoever stands in between must not end a node"
    assert door.asked == []


def test_wrong_name(place: tuple[FederationFolder, OwnerHome], owner: Path) -> None:
    federation = place[0]
    with fake_door(
        federation.server_certificate, federation.server_key, federation.ca_certificate, "127.0.0.2"
    ) as door:
        found = diagnose(door.connection(owner, "127.0.0.2"))
    assert found.cause is Cause.SERVER_NAME and "another name" in found.sentence


def test_a_certificate_of_another_federation_is_refused(
    place: tuple[FederationFolder, OwnerHome], other: tuple[FederationFolder, OwnerHome], tmp_path: Path
) -> None:
    """The door is the right one, and it does not know who signed this owner's certificate."""
    federation = place[0]
    connection = door_to(other[1].folder, tmp_path)
    connection.files.ca_certificate.write_bytes(federation.ca_certificate.read_bytes())
    with fake_door(federation.server_certificate, federation.server_key, federation.ca_certificate) as door:
        found = diagnose(Connection("shops", "localhost", door.port, connection.files))
    assert found.cause is Cause.OWN_REFUSED and found.lasts
    assert "refuses your certificate" in found.sentence


def door_to(owner: Path, tmp_path: Path) -> Connection:
    """A copy of an owner's connection, to be spoilt."""
    before, after = ConnectionFiles(owner), ConnectionFiles(tmp_path / "copy")
    shutil.copytree(before.folder, after.folder, symlinks=True)
    return Connection("shops", "localhost", 1, after)


def test_expired_own_certificate(owner: Path) -> None:
    connection = Connection("shops", "localhost", 1, ConnectionFiles(owner))
    found = diagnose(connection, now=lambda: NOW + timedelta(days=3000))
    assert found.cause is Cause.OWN_EXPIRED and found.lasts and "testudo-client renew" in found.sentence
    found = diagnose(connection, now=lambda: NOW - timedelta(days=3000))
    assert found.cause is Cause.CLOCK and not found.lasts


@pytest.mark.parametrize("spoilt", ["missing", "readable", "garbage", "of another key"])
def test_own_files_that_cannot_be_used(owner: Path, tmp_path: Path, spoilt: str) -> None:
    connection = door_to(owner, tmp_path)
    key = connection.files.client_key
    match spoilt:
        case "missing":
            key.unlink()
        case "readable":
            key.chmod(0o644)
        case "garbage":
            key.write_text("no key")
        case _:
            new = ec.generate_private_key(ec.SECP256R1())
            key.write_bytes(new.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    found = diagnose(connection)
    assert found.cause is Cause.OWN_FILES and found.lasts and str(key.name) in found.sentence
    with pytest.raises(KeyFileError):
        door_context(connection.files)


def test_nobody_listens(owner: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        found = diagnose(Connection("shops", "127.0.0.1", port, ConnectionFiles(owner)))
    assert found.cause is Cause.NO_CONNECTION and "not running" in found.sentence and not found.lasts


def test_no_tls_there(owner: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:
        port = plain.getsockname()[1]

        def answer() -> None:
            connection, _ = plain.accept()
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        found = diagnose(Connection("shops", "127.0.0.1", port, ConnectionFiles(owner)))
        thread.join()
    assert found.cause is Cause.TLS and not found.lasts


def test_a_name_nobody_knows(owner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    found = diagnose(Connection("shops", "door.test", 1, ConnectionFiles(owner)))
    assert found.cause is Cause.NAME and "'door.test'" in found.sentence and not found.lasts


@pytest.mark.parametrize(
    ("status", "last", "cause", "lasts"),
    [
        (403, 403, Cause.REVOKED, True),
        (0, 403, Cause.WRONG_NODE_KEY, True),
        (0, 401, Cause.UNKNOWN_NODE, False),
        (0, 503, Cause.NOT_READY, False),
        (0, 429, Cause.NOT_READY, False),
        (0, 0, Cause.OLD_SESSION, False),
    ],
)
def test_what_the_door_answers(door: FakeDoor, owner: Path, status: int, last: int, cause: Cause, lasts: bool) -> None:
    door.status = status
    found = diagnose(door.connection(owner), last_status=last)
    assert (found.cause, found.lasts) == (cause, lasts)
    assert found.sentence.endswith(".") and "\n" not in found.sentence


@pytest.mark.parametrize(("server_ahead", "wrong"), [(-8, True), (-3, False), (300, False), (310, True), (3600, True)])
def test_a_clock_that_flower_would_refuse(door: FakeDoor, owner: Path, server_ahead: float, wrong: bool) -> None:
    door.ahead_seconds = server_ahead
    found = diagnose(door.connection(owner), last_status=401)
    assert found.cause is (Cause.CLOCK if wrong else Cause.UNKNOWN_NODE)
    if wrong:
        assert ("behind" if server_ahead > 0 else "ahead of") in found.sentence


def test_the_limits_of_the_clock_are_flowers() -> None:
    assert door_module.MAX_AHEAD_SECONDS == SYSTEM_TIME_TOLERANCE
    assert door_module.MAX_BEHIND_SECONDS == TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE


def test_an_answer_is_no_longer_than_allowed(door: FakeDoor, owner: Path) -> None:
    door.files[KEY_PATH] = os.urandom(5000)
    connection = door.connection(owner)
    assert len(ask(connection, door_context(connection.files), KEY_PATH, max_bytes=1000).body) == 1001
