"""A process that kills itself, with SIGKILL, at a chosen write. No tests in here.

What counts as a point to die at: each statement of a database that begins, writes or commits; each write, sync and
renaming of a file; and what the process itself names. Dying right after a write is dying before the next point, since
nothing on disk changes in between.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WATCHED = ("fsync", "fdatasync", "pwrite", "write", "replace", "rename", "ftruncate", "link")


class Deadline:
    """Counts the points passed, and dies at one of them.

    Args:
        at: Which, from 1; 0 for never.
    """

    def __init__(self, at: int) -> None:
        self._at = at
        self.passed = 0

    def point(self) -> None:
        """Pass one point, or die there."""
        self.passed += 1
        if self.passed == self._at:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call`` with a point before it."""

        def watched(*given: Any, **more: Any) -> Any:
            self.point()
            return call(*given, **more)

        return watched

    def watch(self) -> None:
        """Put a point before whatever changes the disk, in this process from now on."""
        for name in _WATCHED:
            setattr(os, name, self.before(getattr(os, name)))
        Path.replace = self.before(Path.replace)  # type: ignore[method-assign]
        point = self.point

        class Watched(sqlite3.Connection):
            def execute(self, statement: str, *given: Any) -> sqlite3.Cursor:  # type: ignore[override]
                if statement.strip().split()[0].upper() in {"BEGIN", "INSERT", "COMMIT", "CREATE"}:
                    point()
                return super().execute(statement, *given)

            def commit(self) -> None:
                point()
                super().commit()

        connect = sqlite3.connect
        sqlite3.connect = lambda *given, **more: connect(*given, **{"factory": Watched, **more})  # type: ignore[assignment]
