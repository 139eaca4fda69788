"""The door's listener in this process: deadlines, how many connections one may hold, and certificates that change."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from starlette.responses import PlainTextResponse

from testudo_common.errors import UsageError
from testudo_common.provisioning.loopback import loopback_certificate
from testudo_server.deployment import door_listener
from testudo_server.deployment.door import ServerCertificate
from testudo_server.deployment.door_listener import Connections, Listener, server_context
from testudo_server.provisioning.folder import FederationFolder

pytestmark = pytest.mark.network
REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def folder(tmp_path: Path) -> FederationFolder:
    return put(tmp_path, FederationFolder(tmp_path / "federation"))


def put(tmp_path: Path, folder: FederationFolder) -> FederationFolder:
    certificate, key = loopback_certificate(tmp_path / "made")
    folder.server_key.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(certificate, folder.server_certificate)
    shutil.copyfile(key, folder.server_key)
    return folder


@asynccontextmanager
async def listening(
    folder: FederationFolder, connections: Connections, context: ssl.SSLContext | None = None
) -> AsyncIterator[Callable[[], Awaitable[Streams]]]:
    listener = Listener(
        PlainTextResponse("here"), "127.0.0.1", 0,
        context or server_context(folder.server_certificate, folder.server_key), connections,
    )  # fmt: skip
    await listener.open()
    answering = asyncio.create_task(listener.answer())
    trusting = ssl.create_default_context(cafile=str(folder.server_certificate))
    opened: list[asyncio.StreamWriter] = []

    async def connected() -> Streams:
        streams = await asyncio.open_connection("127.0.0.1", listener.port, ssl=trusting)
        opened.append(streams[1])
        return streams

    try:
        yield connected
    finally:
        for writer in opened:
            writer.transport.abort()
        listener.should_exit = True
        await asyncio.wait_for(answering, 5)
        assert connections.open == 0 and not connections.by_certificate


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the other side ends the connection within two seconds."""
    try:
        return await asyncio.wait_for(reader.read(), 2) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def test_headers_that_do_not_come_end_the_connection(folder: FederationFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_listener, "HEADERS_SECONDS", 0.3)

    async def slow() -> None:
        async with listening(folder, Connections()) as connected:
            silent, _ = await connected()
            dripping, drip = await connected()
            later, writer = await connected()
            writer.write(REQUEST)
            assert (await later.readuntil(b"here")).startswith(b"HTTP/1.1 200")
            for byte in b"GET / HTTP/1.1\r\n":
                drip.write(bytes([byte]))
                await asyncio.sleep(0.04)
            assert await ended(silent)
            assert await ended(dripping)
            # A connection may rest between requests; a request that was begun has to come.
            writer.write(REQUEST)
            assert (await later.readuntil(b"here")).startswith(b"HTTP/1.1 200")
            writer.write(REQUEST[:10])
            assert await ended(later)

    asyncio.run(slow())


def test_a_handshake_that_does_not_come_ends_the_connection(
    folder: FederationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_listener, "HANDSHAKE_SECONDS", 0.2)

    async def silent() -> None:
        async with listening(folder, Connections()) as connected:
            port = (await connected())[1].get_extra_info("peername")[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await ended(reader)
            writer.close()

    asyncio.run(silent())


def test_connections_are_bounded(folder: FederationFolder) -> None:
    async def crowd() -> None:
        async with listening(folder, Connections(limit=2)) as connected:
            first, _ = await connected()
            _, second = await connected()
            third, _ = await connected()
            assert await ended(third)
            second.transport.abort()
            await asyncio.sleep(0.1)
            reader, writer = await connected()
            writer.write(REQUEST)
            assert (await reader.readuntil(b"here")).startswith(b"HTTP/1.1 200")
            assert not first.at_eof()

    asyncio.run(crowd())


def test_one_certificate_opens_so_many_connections_and_no_more() -> None:
    connections = Connections(limit=10, limit_of_one=2)
    assert [connections.opened(b"a") for _ in range(3)] == [True, True, False]
    assert connections.opened(b"b")
    connections.closed(b"a")
    assert connections.opened(b"a")
    assert connections.open == 3


def test_a_renewed_certificate_is_shown_without_a_restart(folder: FederationFolder, tmp_path: Path) -> None:
    context = server_context(folder.server_certificate, folder.server_key)
    certificate = ServerCertificate(folder, (context,))
    before = folder.server_certificate.read_bytes()

    async def shown(connected: Callable[[], Awaitable[Streams]]) -> bytes:
        _, writer = await connected()
        return bytes(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))

    async def renewed() -> None:
        async with listening(folder, Connections(), context) as connected:
            assert await shown(connected) == ssl.PEM_cert_to_DER_cert(before.decode())
        put(tmp_path, folder)
        expires = certificate.look()
        async with listening(folder, Connections(), context) as connected:
            assert await shown(connected) == ssl.PEM_cert_to_DER_cert(folder.server_certificate.read_text())
        assert folder.server_certificate.read_bytes() != before
        assert expires == x509.load_pem_x509_certificate(folder.server_certificate.read_bytes()).not_valid_after_utc

    asyncio.run(renewed())


def test_half_a_pair_is_not_taken(folder: FederationFolder, tmp_path: Path) -> None:
    context = server_context(folder.server_certificate, folder.server_key)
    certificate, before = ServerCertificate(folder, (context,)), folder.server_certificate.read_bytes()
    shutil.copyfile(loopback_certificate(tmp_path / "other")[0], folder.server_certificate)
    os.utime(folder.server_certificate, ns=(1, 1))
    with pytest.raises(UsageError, match="goes with its key"):
        certificate.look()
    folder.server_certificate.write_bytes(before)

    async def still() -> None:
        async with listening(folder, Connections(), context) as connected:
            await connected()

    asyncio.run(still())
    assert certificate.look() > datetime.now(UTC)


def test_old_tls_and_sessions_are_off(folder: FederationFolder) -> None:
    context = server_context(folder.server_certificate, folder.server_key, folder.server_certificate)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.num_tickets == 0 and context.options & ssl.OP_NO_TICKET
    with pytest.raises(UsageError, match="cannot be used"):
        server_context(folder.server_certificate, folder.ca_key)


def test_an_address_that_is_taken_is_said(folder: FederationFolder) -> None:
    async def twice() -> None:
        async with listening(folder, Connections()) as connected:
            port = (await connected())[1].get_extra_info("peername")[1]
            context = server_context(folder.server_certificate, folder.server_key)
            with pytest.raises(UsageError, match=f"127.0.0.1:{port}: cannot listen"):
                await Listener(PlainTextResponse(""), "127.0.0.1", port, context, Connections()).open()

    asyncio.run(twice())
