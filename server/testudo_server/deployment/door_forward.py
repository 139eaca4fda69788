"""The door's way to the SuperLink: a pool of connections over loopback, and no other root than the SuperLink's own."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from testudo_server.deployment.door_rules import ANSWERED_HEADERS, FLEET, Reason, RefusedError

MAX_CONNECTIONS = 64
# The SuperLink closes a connection after 5 s without a request; one that it closes under a request is lost.
KEEPALIVE_SECONDS = 2.0
TIMEOUT = httpx.Timeout(connect=5.0, read=120.0, write=30.0, pool=30.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the SuperLink answered.

    Attributes:
        status: HTTP status.
        headers: Those that are passed on, with the length of the body.
        body: In pieces; empty after an error of the SuperLink, whose words are nobody's business outside.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: AsyncIterator[bytes]


class SuperLinkConnection:
    """Asks the SuperLink.

    Args:
        address: ``127.0.0.1:PORT``.
        root: The SuperLink's certificate, PEM; the only one that is trusted.
    """

    def __init__(self, address: str, root: Path) -> None:
        self._base, self._root = f"https://{address}{FLEET}", root
        self._client = self._new_client()

    @asynccontextmanager
    async def asked(self, method: str, headers: Mapping[bytes, bytes], body: bytes) -> AsyncIterator[Answer]:
        """Pass a request on, once.

        It is not tried again here: the SuperLink may have taken what it did not confirm, and the SuperNode knows best
        what may be sent twice.

        Args:
            method: Of the Fleet API.
            headers: Only those that may pass.
            body: All of it.

        Raises:
            RefusedError: The SuperLink is not there, or does not answer.
        """
        request = self._client.build_request(
            "POST",
            self._base + method,
            content=body,
            headers=[*headers.items(), (b"accept-encoding", b"identity"), (b"user-agent", b"testudo-door")],
        )
        try:
            response = await self._client.send(request, stream=True)
        except httpx.TransportError as error:
            raise RefusedError(Reason.SUPERLINK_DOWN) from error
        try:
            yield _answer_of(response)
        finally:
            await response.aclose()

    async def trust_again(self) -> None:
        """Read the SuperLink's certificate anew, after it was started with another.

        Raises:
            OSError: It cannot be read.
        """
        before, self._client = self._client, self._new_client()
        await before.aclose()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _new_client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            # A context of its own each time: of two roots with one name, OpenSSL would try the older.
            verify=ssl.create_default_context(cafile=str(self._root)),
            timeout=TIMEOUT,
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE_SECONDS),
            trust_env=False,  # no proxy stands between two processes of one machine
            follow_redirects=False,
        )


class CutOffError(Exception):
    """The SuperLink went away in the middle of an answer whose beginning the client has."""


async def _pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in response.aiter_raw():
            yield piece
    except httpx.TransportError as error:
        raise CutOffError from error


def _answer_of(response: httpx.Response) -> Answer:
    if response.status_code >= 500:
        return Answer(response.status_code, [(b"content-length", b"0")], _nothing())
    headers = [(name.lower(), value) for name, value in response.headers.raw if name.lower() in ANSWERED_HEADERS]
    length = response.headers.get("content-length")
    if length is not None:
        headers.append((b"content-length", length.encode("ascii")))
    return Answer(response.status_code, headers, _pieces(response))


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
