"""Flower's SuperLink as a process of ours: on a socket that its parent opened, and gone when its parent is.

Not ``flower-superlink``: that one leaves its Control API, through which nodes are registered and runs are started, open
to whatever can reach the port, so also to every other user of this machine. Here a request to it has to carry a secret
that only the parent knows. What node and task requests carry is checked by Flower itself: a node's signature, a token.

The parent keeps the listening socket: a SuperLink that was killed and started again serves the same port, and whoever
connects in between waits instead of being refused.

Source: ``flwr.superlink.cli.flower_superlink`` of Flower 1.41, ``_run_superlink_http_api``.
"""

from __future__ import annotations

import argparse
import hmac
import logging
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from testudo_server.deployment.presence import App, Scope, Send, noticing

CONTROL_HEADER = "x-testudo-control"
_PARENT_SECONDS = 0.2
_LAST_REQUESTS_SECONDS = 2
_OPEN_PATHS = ("/v1/fleet/", "/v1/runtime/", "/health")


def guarded(app: App, secret: bytes) -> App:
    """``app``, which answers nothing but nodes and tasks unless the request carries ``secret`` in hexadecimal."""
    expected = secret.hex().encode()

    async def guard(scope: Scope, receive: Callable[[], Awaitable[Any]], send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"].startswith(_OPEN_PATHS):
            await app(scope, receive, send)
            return
        given = [value for name, value in scope.get("headers", ()) if name == CONTROL_HEADER.encode()]
        if scope["type"] == "http" and len(given) == 1 and hmac.compare_digest(given[0], expected):
            await app(scope, receive, send)
            return
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    return guard


def end_with(parent: int) -> None:
    """End this process soon after its parent has, however that ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent").start()


def serve(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM."""
    import uvicorn
    from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE
    from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig
    from flwr.superlink.main import create_app
    from sqlalchemy.exc import SQLAlchemyError

    logging.getLogger("flwr").setLevel(logging.WARNING)  # else it has a line for every message
    listening = socket.socket(fileno=arguments.socket)
    host, port = listening.getsockname()[:2]
    certificate, key = str(arguments.certificate), str(arguments.key)
    root = arguments.certificate.read_bytes()
    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host=host,
        port=port,
        insecure=False,
        certificates=(root, root, arguments.key.read_bytes()),
        superexec_auth_secret=arguments.task_secret.read_bytes(),
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=certificate,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        database=str(arguments.database),
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )
    made = create_app(config, SuperLinkLifespan)

    def came(key: bytes) -> None:
        state = made.state.linkstate_factory.state()
        with suppress(SQLAlchemyError):  # its next heartbeat says the same
            node = state.get_node_id_by_public_key(key)
            if node is not None:
                state.acknowledge_node_heartbeat(node, HEARTBEAT_DEFAULT_INTERVAL)

    app = guarded(noticing(made, came), arguments.control_secret.read_bytes())
    uvicorn.Server(
        uvicorn.Config(
            app,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=_LAST_REQUESTS_SECONDS,
        )
    ).run(sockets=[listening])


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(prog="testudo-superlink", description="Flower's SuperLink, for testudo-server run")
    parser.add_argument("--socket", type=int, required=True, help="descriptor of the listening socket")
    parser.add_argument("--parent-pid", type=int, required=True)
    for name in ("certificate", "key", "task-secret", "control-secret", "database"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    arguments = parser.parse_args()
    end_with(arguments.parent_pid)
    serve(arguments)


if __name__ == "__main__":
    main()
