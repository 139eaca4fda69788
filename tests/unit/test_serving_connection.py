"""What a connection may cost before anybody has shown a token: a head without end, or one that never comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from testudo_client.serving import http_connection
from testudo_client.serving.http_connection import HttpConnection

Work = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


def asked(work: Work) -> bytes:
    """All that comes back until the connection ends."""

    async def run() -> bytes:
        config = uvicorn.Config(
            app, port=0, loop="none", lifespan="off", ws="none", log_config=None, http=HttpConnection
        )
        server = uvicorn.Server(config)
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
        try:
            return await work(reader, writer)
        except ConnectionError:
            return b"cut off"
        finally:
            writer.close()
            await server.shutdown()

    return asyncio.run(run())


async def rest(reader: asyncio.StreamReader) -> bytes:
    return await reader.read() or b"cut off"


@pytest.mark.network
def test_a_good_request_is_answered_and_so_is_the_next_on_its_connection() -> None:
    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        found = b""
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc")
            found += (await reader.readuntil(b"\r\n\r\n"))[9:12]
        return found

    assert asked(work) == b"401401"


@pytest.mark.network
@pytest.mark.parametrize("begun", [b"GET /", b"GET / HTTP/1.1\r\nx: "])
def test_a_head_without_end_is_cut_off(begun: bytes) -> None:
    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(begun)
        for _ in range(100):
            writer.write(b"x" * 100_000)
            await writer.drain()
        return b"all was taken"

    assert asked(work) == b"cut off"


@pytest.mark.network
def test_trailers_without_end_are_cut_off() -> None:
    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n")
        await reader.readuntil(b"\r\n\r\n")  # refused long ago
        for number in range(1000):
            writer.write(b"x%d: " % number + b"x" * 50_000 + b"\r\n")
            await writer.drain()
        return b"all was taken"

    assert asked(work) == b"cut off"


@pytest.mark.network
@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nhost:"])
def test_a_head_that_never_comes_is_not_waited_for(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "HEAD_SECONDS", 0.05)

    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(begun)
        return await rest(reader)

    assert asked(work) == b"cut off"
