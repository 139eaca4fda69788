"""The SuperNode's process as its parent sees it: started, listened to, ended. Knows nothing of messages.

Everything it needs lies in ``node/`` of the owner's folder and is made anew at each start: a certificate for loopback,
a secret, and a home of Flower's. ``node/run.lock`` is held while a node runs; ``node/supernode.log`` is what it said.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path

from testudo_common.errors import UsageError
from testudo_common.files import create_private, make_private, write_atomically
from testudo_common.flower_environment import flower_environment
from testudo_common.provisioning.loopback import loopback_certificate

EXIT_LOST = 3
"""Flower gave up its connection to the server; its own process would stay without one."""
EXIT_REFUSED = 4
"""The process cannot be started as it must be; what to do stands on the last line."""
NODE_FOLDER = "node"
CONNECTED_SECONDS = 60.0
"""A node that answers a long message says nothing but a heartbeat, every 20 to 25 s."""
POLLS = frozenset({"/v1/fleet/activate-node", "/v1/fleet/pull-messages", "/v1/fleet/send-node-heartbeat"})
"""Paths whose answer says whether the node is let in; others are also refused when a run has ended."""
RECEIVED = "/v1/fleet/confirm-message-received"
_LOG_BYTES = 1_000_000
_STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class NodeState:
    """What a SuperNode told last.

    Attributes:
        last_success: When the server answered last as it should, by ``time.monotonic``; 0: not yet.
        last_status: Of the last answer that says whether the node is let in; 0: none came.
        certificates: SHA-256, hex, of what the server presented last; empty before that.
    """

    last_success: float = 0.0
    last_status: int = 0
    certificates: tuple[str, ...] = ()

    def connected(self, now: float) -> bool:
        """Whether the server was there lately, and nothing went wrong since."""
        return 200 <= self.last_status < 300 and now - self.last_success < CONNECTED_SECONDS


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """Paths in ``node/``.

    Attributes:
        owner: The owner's folder.
    """

    owner: Path

    @property
    def folder(self) -> Path:
        """All of them."""
        return self.owner / NODE_FOLDER

    @property
    def lock(self) -> Path:
        """Held while a node runs."""
        return self.folder / "run.lock"

    @property
    def log(self) -> Path:
        """What the SuperNode said; a full one is kept once more."""
        return self.folder / "supernode.log"

    @property
    def secret(self) -> Path:
        """What an executor has to know."""
        return self.folder / "superexec.secret"

    @property
    def health(self) -> Path:
        """Address of the health service, where there is one."""
        return self.folder / "health"

    @property
    def session(self) -> Path:
        """The node's session at the server."""
        return self.folder / "session.json"

    @property
    def flower_home(self) -> Path:
        """Flower's own home."""
        return self.folder / "flwr"


@contextmanager
def only_run(files: NodeFiles) -> Iterator[None]:
    """Keep a second ``run`` off this folder meanwhile.

    Raises:
        UsageError: One is on, or nothing can be written there.
    """
    try:
        create_private(files.lock)
        descriptor = os.open(files.lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        raise UsageError(problem, where=str(files.lock), remedy="make room, or correct its folder") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go of by the kernel, also after a kill
        except OSError as error:
            raise UsageError(
                "a node of this owner runs already", where=str(files.owner), remedy="stop that one first"
            ) from error
        yield
    finally:
        os.close(descriptor)


class NodeProcess:
    """One SuperNode at a time.

    Args:
        owner: The owner's folder.
        stock_polls: Leave Flower's pauses as they are.
        use_proxies: Go through the proxies that the environment names.

    Attributes:
        on_received: Called when a message has come whole.
    """

    def __init__(self, owner: Path, *, stock_polls: bool = False, use_proxies: bool = False) -> None:
        self.files = NodeFiles(owner)
        self.state = NodeState()
        self.on_received: Callable[[], None] = _nothing
        self._stock_polls, self._use_proxies = stock_polls, use_proxies
        self._process: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []
        self._address, self._secret, self._context = "", b"", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def runtime(self) -> tuple[str, ssl.SSLContext, bytes] | None:
        """Address, TLS and secret of its Runtime API; None: it does not run."""
        return (self._address, self._context, self._secret) if self.alive() else None

    def start(self) -> None:
        """Start one, with a port, a certificate and a secret of its own."""
        files = self.files
        make_private(files.folder)
        shutil.rmtree(files.flower_home, ignore_errors=True)
        make_private(files.flower_home)
        certificate, key = loopback_certificate(files.folder)
        self._secret = secrets.token_bytes(32)
        write_atomically(files.secret, self._secret, durable=False)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.load_verify_locations(certificate)
        port = free_port()
        self._address = f"127.0.0.1:{port}"
        self.state = NodeState()
        reading, writing = os.pipe()
        command = [
            sys.executable, "-m", "testudo_client.deployment.supernode", "--folder", str(files.owner),
            "--port", str(port), "--secret", str(files.secret), "--certificate", str(certificate), "--key", str(key),
            "--report", str(writing), "--parent-pid", str(os.getpid()),
            *(["--stock-polls"] if self._stock_polls else []),
        ]  # fmt: skip
        environment = flower_environment(os.environ, files.flower_home, use_proxies=self._use_proxies)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, by this interpreter
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                pass_fds=(writing,), start_new_session=True,  # Ctrl-C is for the parent, which ends it in order
            )  # fmt: skip
        finally:
            os.close(writing)
        self._threads = [
            threading.Thread(target=self._listen, args=(reading,), name="node reports", daemon=True),
            threading.Thread(target=self._keep_log, args=(self._process,), name="node log", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def exit_code(self) -> int | None:
        """How the last one ended; None: it runs, or none was started."""
        return None if self._process is None else self._process.poll()

    def stop(self) -> None:
        """End it: first in order, so that the server forgets its session."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for thread in self._threads:
            thread.join(timeout=2)

    def _listen(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb") as lines:
            for line in lines:
                try:
                    self._take(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    continue

    def _take(self, report: dict[str, object]) -> None:
        if "seen" in report:
            digests = report["seen"]
            certificates = tuple(map(str, digests)) if isinstance(digests, list) else ()
            self.state = NodeState(self.state.last_success, self.state.last_status, certificates)
            return
        path, status = str(report["path"]), int(str(report["status"]))
        good = 200 <= status < 300
        if path in POLLS or good:
            last = time.monotonic() if good else self.state.last_success
            self.state = NodeState(last, status, self.state.certificates)
        if path == RECEIVED and good:
            self.on_received()

    def _keep_log(self, process: subprocess.Popen[bytes]) -> None:
        with suppress(OSError):
            create_private(self.files.log, durable=False)
        handler = _QuietHandler(self.files.log, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8", delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                text = line.decode(errors="replace").rstrip()
                handler.emit(logging.LogRecord("node", logging.INFO, "", 0, text, None, None))
        handler.close()


class _QuietHandler(RotatingFileHandler):
    """A full disk must not stop the node, nor the reading of its pipe."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Let the line go."""


def _nothing() -> None:
    """Nobody wants to know."""


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
