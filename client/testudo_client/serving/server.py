"""One process that answers on both faces until it is told to stop, and then ends what is in flight."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import uvicorn
from starlette.types import ASGIApp

from testudo_client.serving.access import Address, Token
from testudo_client.serving.certificate import TlsPair
from testudo_client.serving.core import Core
from testudo_client.serving.exchange import Source, follow
from testudo_client.serving.grpc_face import grpc_server
from testudo_client.serving.http_connection import HttpConnection
from testudo_client.serving.http_face import http_app
from testudo_client.serving.limits import GRACE_SECONDS, IDLE_SECONDS, MAX_REQUESTS
from testudo_client.serving.service import Adapted, Service
from testudo_common.errors import UsageError
from testudo_common.files import write_atomically

ADDRESSES_FILE = "addresses.json"
_log = logging.getLogger("testudo.serve")


@dataclass(frozen=True, slots=True)
class Listening:
    """Where and how to answer.

    Attributes:
        http: None: not by HTTP.
        grpc: None: not by gRPC.
        tls: None: in clear.
        token: To be shown.
        folder: Where the addresses are written.
    """

    http: Address | None
    grpc: Address | None
    tls: TlsPair | None
    token: Token
    folder: Path


class _Http(uvicorn.Server):
    """uvicorn without signals: the whole process is told to stop, not one face."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def serve(
    core: Core, source: Source, mark: tuple[int, int] | None, listening: Listening, *,
    adapt: Callable[[], Adapted] | None, ready: Callable[[dict[str, str | None]], None],
) -> None:  # fmt: skip
    """Answer until SIGINT or SIGTERM.

    Args:
        core: Answers.
        source: Where further versions come from.
        mark: See :func:`~testudo_client.serving.exchange.follow`.
        listening: Where.
        adapt: See :class:`~testudo_client.serving.service.Service`.
        ready: Told the addresses, once both faces answer.

    Raises:
        UsageError: An address is taken, or is not this machine's.
    """
    service, stopping, loop = Service(core, adapt), asyncio.Event(), asyncio.get_running_loop()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, stopping.set)
    bound = _bind(listening.http) if listening.http is not None else None
    http = _http(http_app(service, listening.token), listening.tls) if bound is not None else None
    rpc, health = await grpc_server(service, listening.token)
    addresses = {"http": _url(listening, bound), "grpc": _listen(rpc, listening)}
    if listening.grpc is not None:
        await rpc.start()
    following = asyncio.create_task(follow(core, source, mark))
    answering = asyncio.create_task(http.serve(sockets=[bound])) if http is not None and bound is not None else None
    while http is not None and not http.started:
        await asyncio.sleep(0.005)
    place = listening.folder / ADDRESSES_FILE
    write_atomically(place, json.dumps({**addresses, "pid": os.getpid()}, indent=2).encode(), durable=False)
    ready(addresses)
    await stopping.wait()
    _log.info("stopping: requests in flight are answered first")
    place.unlink(missing_ok=True)
    following.cancel()
    await health.enter_graceful_shutdown()
    ending = [rpc.stop(GRACE_SECONDS)]
    if http is not None and answering is not None:
        http.should_exit = True
        ending.append(answering)
    await asyncio.gather(*ending)
    if core.recorder is not None:
        await core.recorder.close()
    core.close()


def _bind(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        bound = socket.create_server((address.host, address.port), family=family, backlog=MAX_REQUESTS)
    except OSError as error:
        raise _cannot_listen(address, error.strerror or "no reason given") from error
    # Inherited by connections: head and body of an answer go out at once, whatever was acknowledged (Nagle).
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


def _listen(rpc: object, listening: Listening) -> str | None:
    address = listening.grpc
    if address is None:
        return None
    server: grpc.aio.Server = rpc
    try:
        if listening.tls is None:
            port = server.add_insecure_port(str(address))
        else:
            pair = (listening.tls.key.read_bytes(), listening.tls.certificate.read_bytes())
            port = server.add_secure_port(str(address), grpc.ssl_server_credentials([pair]))
    except RuntimeError as error:
        raise _cannot_listen(address, "the address is taken, or not this machine's") from error
    return str(Address(address.host, port))


def _cannot_listen(address: Address, reason: str) -> UsageError:
    remedy = "choose an address of this machine at which nothing listens yet"
    return UsageError(f"cannot listen: {reason}", where=str(address), remedy=remedy)


def _url(listening: Listening, bound: socket.socket | None) -> str | None:
    if listening.http is None or bound is None:
        return None
    scheme = "http" if listening.tls is None else "https"
    return f"{scheme}://{Address(listening.http.host, bound.getsockname()[1])}"


def _http(app: ASGIApp, tls: TlsPair | None) -> _Http:
    return _Http(
        uvicorn.Config(
            app, loop="none", http=HttpConnection, ws="none", lifespan="off", interface="asgi3", log_config=None,
            access_log=False, proxy_headers=False, server_header=False, limit_concurrency=MAX_REQUESTS,
            timeout_keep_alive=IDLE_SECONDS, timeout_graceful_shutdown=int(GRACE_SECONDS),
            ssl_certfile=tls.certificate if tls else None, ssl_keyfile=tls.key if tls else None,
        )
    )  # fmt: skip
