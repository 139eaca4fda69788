"""Listening with TLS, on uvicorn: who has to show a certificate, what a connection may cost, how certificates change.

uvicorn brings HTTP/1.1 by h11, which refuses what RFC 9112 does not allow. What it does not bring is here: deadlines
for the handshake and for a request's headers (slow loris), a bound on connections, and the peer's certificate.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from testudo_common.errors import UsageError
from testudo_server.deployment.door_rules import MAX_HEADER_BYTES

HEADERS_SECONDS = 10.0
HANDSHAKE_SECONDS = 10
GOODBYE_SECONDS = 2.0
IDLE_SECONDS = 75  # a SuperNode polls every 3 s; its heartbeat comes every 30 s
MAX_CONNECTIONS = 4096
MAX_CONNECTIONS_OF_ONE = 32


def server_context(certificate: Path, key: Path, client_root: Path | None = None) -> ssl.SSLContext:
    """TLS 1.2 or newer by ``certificate``; with ``client_root``, only for clients with a certificate under it.

    Raises:
        UsageError: The files are not there, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # No session is resumed: each connection shows its certificate anew, and its time is looked at.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    try:
        context.load_cert_chain(certificate, key)
        if client_root is not None:
            context.load_verify_locations(client_root)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            "the server's certificate cannot be used",
            where=str(certificate),
            remedy="it goes with its key, and with the federation's CA; make them with testudo-server init or renew",
        ) from error
    return context


@dataclass(slots=True)
class Connections:
    """Open connections by certificate.

    Attributes:
        limit: The most of all together.
        limit_of_one: The most with one certificate.
        malformed: Called for each request that is no HTTP.
    """

    limit: int = MAX_CONNECTIONS
    limit_of_one: int = MAX_CONNECTIONS_OF_ONE
    malformed: Callable[[], None] = lambda: None
    by_certificate: dict[bytes, int] = field(default_factory=dict)
    open: int = 0

    def opened(self, certificate: bytes) -> bool:
        """Count one more; false if there are too many already."""
        mark = hashlib.sha256(certificate).digest()
        if self.open >= self.limit or (certificate and self.by_certificate.get(mark, 0) >= self.limit_of_one):
            return False
        self.open += 1
        self.by_certificate[mark] = self.by_certificate.get(mark, 0) + 1
        return True

    def closed(self, certificate: bytes) -> None:
        """Count one less."""
        mark = hashlib.sha256(certificate).digest()
        self.open -= 1
        self.by_certificate[mark] -= 1
        if not self.by_certificate[mark]:
            del self.by_certificate[mark]


class DoorProtocol(H11Protocol):
    """One connection. The application finds the client's certificate, DER, in ``scope["state"]["certificate"]``."""

    def __init__(self, *, connections_open: Connections, **given: Any) -> None:
        super().__init__(**given)
        self._open = connections_open
        self._certificate: bytes | None = None
        self._counted = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the certificate that TLS verified; turn away whoever has too many connections."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self._certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        self._counted = self._open.opened(self._certificate or b"")
        if not self._counted:
            transport.abort()
            return
        self.app_state = {**self.app_state, "certificate": self._certificate}
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._cancel_deadline()
        if self._counted:
            self._counted = False
            self._open.closed(self._certificate or b"")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Between two requests, the next one's headers have to be whole by the deadline."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._cancel_deadline()
        elif self._deadline is None:
            self._set_deadline()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's signature)
        """Answer with an empty body what is no HTTP."""
        self._open.malformed()
        if self.cycle is None or self.cycle.response_complete:  # else an answer is on its way, and ends with the line
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()

    def shutdown(self) -> None:
        """Let the request that is going on end; do not wait for a client to say goodbye."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        else:
            super().shutdown()

    def _set_deadline(self) -> None:
        self._deadline = self.loop.call_later(HEADERS_SECONDS, self.transport.abort)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class TlsProtocol(SSLProtocol):
    """TLS around one connection, as asyncio makes it, which says why it ends.

    asyncio closes a connection whose handshake failed without sending the alert (RFC 8446, 6.2) that OpenSSL has made:
    an owner whose certificate is not taken could not tell that from a server that is about to start.
    """

    def _on_handshake_complete(self, handshake_exc: BaseException | None) -> None:
        if handshake_exc is not None:
            self._process_outgoing()  # type: ignore[attr-defined]
        super()._on_handshake_complete(handshake_exc)


class Listener(uvicorn.Server):
    """An application on one address.

    Args:
        app: ASGI.
        host: To listen on.
        port: To listen on; 0: any that is free.
        context: TLS.
        connections: What is counted and limited.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, context: ssl.SSLContext, connections: Connections) -> None:
        super().__init__(
            uvicorn.Config(
                app, host, port, loop="none", ws="none", lifespan="off", interface="asgi3", log_config=None,
                access_log=False, proxy_headers=False, server_header=False, timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=5, h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            )
        )  # fmt: skip
        self._context, self._connections = context, connections

    async def open(self) -> None:
        """Listen.

        Raises:
            UsageError: The address is taken, or is not this machine's.
        """
        config, loop = self.config, asyncio.get_running_loop()
        config.load()
        self.lifespan = config.lifespan_class(config)

        nobody: Any = None  # waits for a handshake

        def protocol() -> asyncio.BaseProtocol:
            inside = DoorProtocol(
                connections_open=self._connections, config=config, server_state=self.server_state, app_state={}
            )
            return TlsProtocol(
                loop, inside, self._context, nobody, server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS, ssl_shutdown_timeout=GOODBYE_SECONDS,
            )  # fmt: skip

        try:
            server = await loop.create_server(protocol, config.host, config.port, backlog=config.backlog)
        except OSError as error:
            raise UsageError(
                f"cannot listen: {error.strerror}",
                where=f"{config.host}:{config.port}",
                remedy="choose an address of this machine at which nothing listens yet",
            ) from error
        self.servers = [server]
        self.started = True

    async def answer(self) -> None:
        """Answer until ``should_exit`` is set; then end what is going on."""
        await self.main_loop()
        await self.shutdown()

    @property
    def port(self) -> int:
        """Of the first socket."""
        return cast(int, self.servers[0].sockets[0].getsockname()[1])
