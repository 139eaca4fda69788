"""Processes that use a ledger and are killed on the way, or race each other; for integration/test_ledger_kill.py.

``kill FOLDER``: for K = 1, 2, ... a child opens a ledger in FOLDER/K, reserves two rounds and commits one, and writes
to FOLDER/K.said what was acknowledged. At the K-th point where something reaches the disk it is killed, before (odd K)
or after (even K) it. Ends after the first child that survives, and says its K.
``race``: for every line FOLDER EPSILON that comes in, reserves until it is refused.
"""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ledger_cases import ceiling, in_folder, reserve
from testudo_client.ledger import Ledger
from testudo_common.errors import BudgetError

# Of the system's calls, those that change what another process finds; all of SQLite's are behind its execute.
WRITES = ("open", "pwrite", "fdatasync", "fsync", "mkdir", "close")


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Killer:
    """Counts points, two a call, and ends the process at one of them as ``kill -9`` does."""

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

            def close(self) -> None:
                killer.around(super().close)()

        return Dangerous


def endanger(at: int) -> None:
    killer = Killer(at)
    for name in WRITES:
        setattr(os, name, killer.around(getattr(os, name)))
    connect, dangerous = sqlite3.connect, killer.connection()

    def connected(*arguments: Any, **named: Any) -> sqlite3.Connection:
        return connect(*arguments, factory=dangerous, **named)

    sqlite3.connect = connected  # type: ignore[assignment]


def work(ledger: Ledger) -> None:
    say("opened", len(ledger))
    first = reserve(ledger, 1)
    say("reserved", first)
    ledger.commit(first, "ee" * 32)
    say("committed", first)
    say("reserved", reserve(ledger, 2))


def kill(folder: str) -> None:
    for point in itertools.count(1):
        home = Path(folder) / str(point)
        home.mkdir(mode=0o700)
        child = os.fork()
        if child == 0:
            os.dup2(os.open(f"{home}.said", os.O_WRONLY | os.O_CREAT), 1)
            endanger(point)
            work(in_folder(home, home / "far" / "anchor"))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            say(point)
            return
        assert os.WIFSIGNALED(status), f"{home}: a child failed"
        assert os.WTERMSIG(status) == signal.SIGKILL


def race() -> None:
    reserve(Ledger(None), ceilings=[ceiling(99)])  # the accountant is loaded before the start
    say("ready")
    for line in sys.stdin:
        folder, epsilon = line.split()
        ledger, limit = in_folder(Path(folder)), ceiling(float(epsilon))
        try:
            for number in itertools.count(1):
                say("reserved", reserve(ledger, number, attempt=os.getpid(), ceilings=[limit]))
        except BudgetError:
            say("refused")


if __name__ == "__main__":
    {"kill": kill, "race": race}[sys.argv[1]](*sys.argv[2:])
