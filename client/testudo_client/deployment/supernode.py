"""The process of Flower's SuperNode: ``python -m testudo_client.deployment.supernode``. Executes no message.

Started and watched by ``testudo-client run``, with an environment of its own. Flower's own command does the work, in
process isolation; what is added is the owner's TLS, shorter polls, the end with the parent, and a pipe on which each
line tells the parent how things are: ``{"seen": [sha256, ...]}`` of a handshake, ``{"path": ..., "status": ...}`` of
an answer of the server, 0 where there was none.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from testudo_client.deployment.node import EXIT_LOST, EXIT_REFUSED, NodeFiles
from testudo_client.deployment.session import KeptSession
from testudo_client.deployment.tls import door_context
from testudo_client.home import OwnerHome
from testudo_client.provisioning.connection import read_connection
from testudo_common.errors import TestudoError

QUIET_SECONDS = 1.0
"""The same answer again is told once in so many seconds."""
_KILL_SECONDS = 10.0


class Reports:
    """Lines for the parent.

    Args:
        descriptor: Where they go.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._lock = descriptor, threading.Lock()
        self._last: dict[str, tuple[int, float]] = {}

    def seen(self, digests: tuple[str, ...]) -> None:
        """A handshake."""
        self._write({"seen": list(digests)})

    def contact(self, path: str, status: int) -> None:
        """An answer of the server; the same again only now and then."""
        with self._lock:
            before, now = self._last.get(path), time.monotonic()
            if before is not None and before[0] == status and now - before[1] < QUIET_SECONDS:
                return
            self._last[path] = (status, now)
        self._write({"path": path, "status": status})

    def _write(self, line: dict[str, object]) -> None:
        try:
            os.write(self._descriptor, (json.dumps(line) + "\n").encode())  # short enough to be written whole
        except OSError:
            return  # the parent is gone; the watch ends this process


def watch_parent(parent_pid: int, period_seconds: float = 0.5) -> None:
    """End this process when its parent has ended, whatever ended it."""

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(period_seconds)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_KILL_SECONDS)
        os._exit(EXIT_LOST)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def arguments_of_flower(options: argparse.Namespace, address: str, files: dict[str, Path]) -> list[str]:
    """The command line of Flower's SuperNode: it serves its Runtime API on loopback and starts nothing."""
    return [
        "flower-supernode",
        "--superlink", address,
        "--root-certificates", str(files["ca"]),
        "--auth-supernode-private-key", str(files["node_key"]),
        "--isolation", "process",
        "--superexec-auth-secret-file", str(options.secret),
        "--host", "127.0.0.1",
        "--port", str(options.port),
        "--ssl-ca-certfile", str(options.certificate),
        "--ssl-certfile", str(options.certificate),
        "--ssl-keyfile", str(options.key),
    ]  # fmt: skip


def main() -> None:
    """Run until the connection is lost, or somebody says stop."""
    options = _parser().parse_args()
    watch_parent(options.parent_pid)
    logging.getLogger("testudo").addHandler(logging.StreamHandler(sys.stderr))
    reports = Reports(options.report)
    try:
        connection = read_connection(options.folder)
        pins = OwnerHome(options.folder).policy().pins.server_certificate
        context = door_context(connection.files, pins, reports.seen)
        from testudo_common.flower_adapter import quicken_node_polls, quicken_object_pulls, use_tls_context

        use_tls_context(context, reports.contact, KeptSession(NodeFiles(options.folder).session))
        if not options.stock_polls:
            quicken_node_polls()
            quicken_object_pulls()
    except TestudoError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_REFUSED)
    from flwr.supernode.cli.flower_supernode import flower_supernode

    files = {"ca": connection.files.ca_certificate, "node_key": connection.files.node_key}
    sys.argv = arguments_of_flower(options, connection.address, files)
    flower_supernode()
    # Flower comes back here when its connection fails for good, and leaves its Runtime API running without one.
    sys.stderr.flush()
    os._exit(EXIT_LOST)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A data owner's SuperNode; started by testudo-client run.")
    parser.add_argument("--folder", type=Path, required=True, help="the owner's")
    parser.add_argument("--port", type=int, required=True, help="of the Runtime API on loopback")
    parser.add_argument("--secret", type=Path, required=True, help="that an executor has to know")
    parser.add_argument("--certificate", type=Path, required=True, help="of the Runtime API")
    parser.add_argument("--key", type=Path, required=True, help="of that certificate")
    parser.add_argument("--report", type=int, required=True, help="descriptor of the pipe to the parent")
    parser.add_argument("--parent-pid", type=int, required=True, help="who started it")
    parser.add_argument("--stock-polls", action="store_true", help="leave Flower's pauses as they are")
    return parser


if __name__ == "__main__":
    main()
