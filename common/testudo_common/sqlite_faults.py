"""SQLite's faults in words: what was wrong and what to do. Raises nothing; whose error it is, the caller knows."""

from __future__ import annotations

import sqlite3
from typing import Final

# SQLite's name of a fault begins with this -> what was wrong, what to do.
_FAULTS: Final = {
    "SQLITE_FULL": ("the disk is full, and nothing was written", "make room, and try again"),
    "SQLITE_READONLY": ("it may not be written to", "let this user write to the file and its folder"),
    "SQLITE_CANTOPEN": ("it cannot be opened", "let this user read and write the file and its folder"),
    "SQLITE_BUSY": ("another process holds it", "try again; if that does not help, look for a process that hangs"),
    "SQLITE_IOERR": ("the disk failed", "make sure that there is room and that the disk is healthy"),
}


def in_words(error: sqlite3.Error | UnicodeDecodeError, damaged: tuple[str, str]) -> tuple[str, str]:
    """What was wrong, and what to do.

    Args:
        error: SQLite's, or of a text in the file that is none.
        damaged: The same for a file that is none of SQLite's, or not ours.
    """
    name = getattr(error, "sqlite_errorname", "")
    return next((said for start, said in _FAULTS.items() if name.startswith(start)), damaged)
