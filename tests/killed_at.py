"""Ends a process, as ``kill -9`` does, at the K-th point where something reaches the disk. No test.

Points lie before and after each of the system's calls that change what another process finds, and of SQLite's.
"""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

# All of SQLite's calls are behind its execute.
WRITES = ("open", "pwrite", "fdatasync", "fsync", "mkdir", "close")


def say(*words: object) -> None:
    """One line, at once, past every buffer."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Killer:
    """Counts points, two a call, and ends the process at one of them."""

    def __init__(self, at: int) -> None:
        self._at, self._count = at, 0

    def point(self) -> None:
        self._count += 1
        if self._count == self._at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            self.point()
            found = call(*arguments, **named)
            self.point()
            return found

        return called

    def connection(self) -> type[sqlite3.Connection]:
        killer = self

        class Dangerous(sqlite3.Connection):
            def execute(self, *arguments: Any) -> sqlite3.Cursor:
                return killer.around(super().execute)(*arguments)

            def executemany(self, *arguments: Any) -> sqlite3.Cursor:
                return killer.around(super().executemany)(*arguments)

            def close(self) -> None:
                killer.around(super().close)()

        return Dangerous


def endanger(at: int) -> None:
    """From here on this process dies at its ``at``-th point."""
    killer = Killer(at)
    for name in WRITES:
        setattr(os, name, killer.around(getattr(os, name)))
    connect, dangerous = sqlite3.connect, killer.connection()

    def connected(*arguments: Any, **named: Any) -> sqlite3.Connection:
        return connect(*arguments, factory=dangerous, **named)

    sqlite3.connect = connected  # type: ignore[assignment]


def kill_at_every_point(folder: str, work: Callable[[Path], None]) -> None:
    """For K = 1, 2, ... a child does ``work(FOLDER/K)``, says to FOLDER/K.said what it likes, and is killed at point K.

    Ends after the first child that survives, and says its K.
    """
    for point in itertools.count(1):
        home = Path(folder) / str(point)
        home.mkdir(mode=0o700)
        child = os.fork()
        if child == 0:
            os.dup2(os.open(f"{home}.said", os.O_WRONLY | os.O_CREAT), 1)
            endanger(point)
            work(home)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            say(point)
            return
        assert os.WIFSIGNALED(status), f"{home}: a child failed"
        assert os.WTERMSIG(status) == signal.SIGKILL
