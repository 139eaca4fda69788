"""The door's ASGI application: checks a request, passes it on to the SuperLink, and hands the answer back.

In this order: is it on the list (else 404, whoever asks); is the certificate of the connection a member's; is the node
key the one that was admitted with it; is there room. Only then is a body read, whole, so that a slow sender costs the
SuperLink nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from testudo_server.deployment.door_counts import DoorCounts, RefusalLog
from testudo_server.deployment.door_forward import CutOffError, SuperLinkConnection
from testudo_server.deployment.door_members import AdmittedMembers
from testudo_server.deployment.door_rules import (
    FORWARDED_HEADERS,
    NODE_KEY_HEADER,
    Asked,
    Reason,
    RefusedError,
    header,
    what_is_asked,
)

MAX_REQUESTS = 256
MAX_REQUESTS_OF_ONE = 16  # a SuperNode has five at most: a heartbeat, a pull, and two objects each way
MAX_BYTES = 512 * 1024 * 1024
MAX_BYTES_OF_ONE = 64 * 1024 * 1024
GRACE_SECONDS = 15.0
SLOWEST_BYTES_PER_SECOND = 50_000
FILE_TYPES = {".json": "application/json", ".toml": "application/toml", ".pub": "text/plain"}


@dataclass(slots=True)
class Room:
    """What is being read or answered at this moment, so that neither one member nor all of them take the machine."""

    requests: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def taken(self, client: str, length: int) -> Iterator[None]:
        """Take the room for one request.

        Raises:
            RefusedError: There is none.
        """
        if (
            self.requests.total() >= MAX_REQUESTS
            or self.requests[client] >= MAX_REQUESTS_OF_ONE
            or self.held.total() + length > MAX_BYTES
            or self.held[client] + length > MAX_BYTES_OF_ONE
        ):
            raise RefusedError(Reason.BUSY, client)
        self.requests[client] += 1
        self.held[client] += length
        try:
            yield
        finally:
            self.requests[client] -= 1
            self.held[client] -= length


@dataclass(frozen=True, slots=True)
class DoorApp:
    """The application.

    Attributes:
        members: Who may come in.
        superlink: Where to.
        files: Folder of each of the door's own files, by the file's name.
        counts: What is counted.
        log: What is said aloud.
        room: What is going on.
    """

    members: AdmittedMembers
    superlink: SuperLinkConnection
    files: dict[str, Path]
    counts: DoorCounts = field(default_factory=DoorCounts)
    log: RefusalLog = field(default_factory=RefusalLog)
    room: Room = field(default_factory=Room)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; ``scope["state"]["certificate"]`` is the client's, DER."""
        client = ""
        try:
            asked = what_is_asked(
                scope["method"], scope["raw_path"], scope["query_string"], scope["http_version"], scope["headers"]
            )
            member = self.members.who(scope["state"].get("certificate"))
            client = member.client
            if asked.is_file:
                await self._file(asked)(scope, receive, send)
                return
            if header(scope["headers"], NODE_KEY_HEADER) != member.node_key:
                raise RefusedError(Reason.WRONG_KEY)
            with self.room.taken(client, asked.length):
                await self._pass_on(asked, scope, receive, send)
        except RefusedError as refused:
            self.refused(refused.reason, refused.client or client)
            await _refusal(refused.reason)(scope, receive, send)

    def refused(self, reason: Reason, client: str = "") -> None:
        """Count a refusal, and say it if it is time."""
        self.counts.refused[reason.word] += 1
        self.log.refused(client, reason)

    def _file(self, asked: Asked) -> Response:
        path = self.files[asked.name]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RefusedError(Reason.NOT_HERE) from error
        self.counts.answered[asked.name, 200] += 1
        self.counts.bytes_out += len(content)
        return Response(content, media_type=FILE_TYPES[path.suffix], headers={"cache-control": "no-store"})

    async def _pass_on(self, asked: Asked, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive, asked.length)
        if body is None:
            return
        headers = {name: value for name, value in scope["headers"] if name in FORWARDED_HEADERS}
        started = monotonic()
        async with self.superlink.asked(asked.name, headers, body) as answer:
            self.counts.took(monotonic() - started)
            self.counts.answered[asked.name, answer.status] += 1
            self.counts.bytes_in += len(body)
            body = b""
            await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
            try:
                async for piece in answer.body:
                    # A reader that stands still is let go: the exception makes uvicorn close the connection.
                    async with asyncio.timeout(GRACE_SECONDS + len(piece) / SLOWEST_BYTES_PER_SECOND):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                    self.counts.bytes_out += len(piece)
            except CutOffError:
                self.refused(Reason.SUPERLINK_DOWN)
                return  # an answer without its end makes uvicorn close the connection; the node asks again
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _body(receive: Receive, length: int) -> bytes | None:
    """The whole body; None if the client went away."""
    pieces = []
    try:
        async with asyncio.timeout(GRACE_SECONDS + length / SLOWEST_BYTES_PER_SECOND):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                pieces.append(message["body"])
                if not message.get("more_body", False):
                    return b"".join(pieces)
    except TimeoutError as error:
        raise RefusedError(Reason.SLOW) from error


def _refusal(reason: Reason) -> Response:
    closing = {"connection": "close"} if reason is Reason.SLOW else {}
    return Response(reason.body, reason.status, headers=closing, media_type="text/plain" if reason.body else None)
