"""The SuperLink of a run, seen from its parent: started, waited for, started again, stopped; and what it leaves behind.

It listens on loopback, with a certificate and secrets that are made anew at each start and lie in the federation's
folder with mode 0600. Its database is kept between runs for the nodes' numbers, by which owners that stay connected are
known again, and for the runs' own, so that a late reply is told that its run is over. Whatever else a run put in it is
deleted once the run has ended.
"""

from __future__ import annotations

import os
import secrets
import socket
import sqlite3
import ssl
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from testudo_common.errors import UsageError
from testudo_common.files import make_private, write_atomically
from testudo_common.provisioning.loopback import loopback_certificate
from testudo_server.deployment.presence import forget_presence
from testudo_server.deployment.process import ChildProcess

START_SECONDS: Final = 60.0
_SECRET_BYTES = 32
_BACKLOG = 1024
_LOOK_SECONDS = 0.25
_KEPT_TABLES = frozenset({"alembic_version", "node", "run", "run_series", "series_runs", "task"})
_DATABASE = "state.db"


class SuperLink:
    """Flower's SuperLink in a process of its own.

    Args:
        folder: Of its own, which only the operator can read.

    Attributes:
        certificate: Its certificate, which is its own root; PEM.
        task_secret: By which the task of a run is taken.
        control_secret: By which runs are started and nodes registered.
        process: As long as it runs.
    """

    def __init__(self, folder: Path) -> None:
        make_private(folder)
        self._folder = folder
        self.certificate, self._key = loopback_certificate(folder)
        self.task_secret = self._new_secret("task.secret")
        self.control_secret = self._new_secret("control.secret")
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self.process: ChildProcess | None = None

    @property
    def address(self) -> str:
        """Host and port."""
        host, port = self._listening.getsockname()
        return f"{host}:{port}"

    @property
    def database(self) -> Path:
        """Flower's state."""
        return self._folder / _DATABASE

    def start(self) -> None:
        """Start it, the first time or again; it can be connected to at once, and answers later."""
        self.process = ChildProcess(
            [
                *(sys.executable, "-m", "testudo_server.deployment.superlink_process"),
                *("--socket", str(self._listening.fileno()), "--parent-pid", str(os.getpid())),
                *("--certificate", str(self.certificate), "--key", str(self._key), "--database", str(self.database)),
                *("--task-secret", str(self._folder / "task.secret")),
                *("--control-secret", str(self._folder / "control.secret")),
            ],
            self._folder / "superlink.log",
            descriptors=[self._listening.fileno()],
        )

    def wait_until_it_answers(self, seconds: float = START_SECONDS) -> None:
        """Return once it serves.

        Raises:
            UsageError: It ended instead, or is not there in time.
        """
        assert self.process is not None
        ends = time.monotonic() + seconds
        trusted = ssl.create_default_context(cafile=str(self.certificate))
        while time.monotonic() < ends:
            if not self.process.running:
                raise UsageError(
                    f"Flower's SuperLink ended as it began: {self.process.last_words()}",
                    where=str(self.process.log),
                    remedy="look at its log",
                )
            # The parent's socket takes every connection: only a handshake shows that somebody is there.
            try:
                with (
                    socket.create_connection(self._listening.getsockname(), timeout=_LOOK_SECONDS) as raw,
                    trusted.wrap_socket(raw, server_hostname="127.0.0.1"),
                ):
                    return
            except OSError:
                time.sleep(_LOOK_SECONDS)
        raise UsageError(
            f"Flower's SuperLink does not answer after {seconds:.0f} s",
            where=str(self.process.log),
            remedy="look at its log",
        )

    def stop(self) -> None:
        """End it, and stop listening."""
        if self.process is not None:
            self.process.stop()
        self._listening.close()

    def _new_secret(self, name: str) -> bytes:
        secret = secrets.token_bytes(_SECRET_BYTES)
        write_atomically(self._folder / name, secret, durable=False)
        return secret


def forget_connections(folder: Path) -> int:
    """Take every node for gone until it speaks again; of a SuperLink that does not run. How many were there."""
    return forget_presence(folder / _DATABASE)


def forget_payloads(folder: Path) -> int:
    """Delete what runs left in the database of a SuperLink that does not run: models, updates, messages, bundles.

    Of plain aggregation each owner's update would stay readable here. What is deleted is overwritten in the file; a
    disk that moves its blocks, and a copy that was made meanwhile, may still hold it.

    Returns:
        Rows deleted.
    """
    path = folder / _DATABASE
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA secure_delete = ON")
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        deleted = 0
        database.execute("BEGIN IMMEDIATE")
        for name in names:
            if name not in _KEPT_TABLES and not name.startswith("sqlite_"):
                deleted += database.execute(f'DELETE FROM "{name}"').rowcount  # noqa: S608 - a table's own name
        database.execute("COMMIT")
        database.execute("VACUUM")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return deleted
