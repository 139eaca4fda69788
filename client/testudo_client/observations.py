"""What an own model was asked, what it answered, and what turned out to be true: kept at the owner, for watching.

One SQLite file of mode 0600; the oldest go when there are more than ``most``. Never leaves, and is never logged.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from testudo_common.errors import UsageError
from testudo_common.files import create_private
from testudo_common.sqlite_faults import in_words

FILE = "observations.db"
MOST = 20_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS observed (
  id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT UNIQUE, time REAL NOT NULL, version INTEGER NOT NULL,
  inputs BLOB NOT NULL, outputs BLOB NOT NULL, target REAL
)
"""


@dataclass(frozen=True, slots=True)
class Observed:
    """Some requests, in the order they came; never printed.

    Attributes:
        last: Number of the newest of them; 0 for none.
        inputs: ``float32[n, d]``, as the plan encodes them.
        outputs: ``float32[n, C]`` calibrated probabilities, or ``float32[n, 1]`` predictions in the scaled target.
        targets: ``float64[n]``: class number, or scaled target; NaN where it is not known yet.
        versions: ``int64[n]``: which version answered.
    """

    last: int
    inputs: npt.NDArray[np.float32] = field(repr=False)
    outputs: npt.NDArray[np.float32] = field(repr=False)
    targets: npt.NDArray[np.float64] = field(repr=False)
    versions: npt.NDArray[np.int64]


class Observations:
    """The file; one object may be used by several threads.

    Args:
        folder: The owner's ``state`` folder.
        most: How many are kept.

    Raises:
        UsageError: The file cannot be used.
    """

    def __init__(self, folder: Path, most: int = MOST) -> None:
        self._most = most
        self._path = folder / FILE
        self._lock = threading.Lock()
        try:
            create_private(self._path)
            self._database = sqlite3.connect(self._path, check_same_thread=False, timeout=30)
            self._database.execute("PRAGMA journal_mode=WAL")
            with self._database:
                self._database.execute(_SCHEMA)
        except sqlite3.Error as error:
            problem, remedy = in_words(error, ("not a file of observations", "move it away"))
            raise UsageError(problem, where=str(self._path), remedy=remedy) from error

    def close(self) -> None:
        """Leave the file."""
        self._database.close()

    def add(
        self,
        version: int,
        keys: Sequence[str | None],
        inputs: npt.NDArray[np.float32],
        outputs: npt.NDArray[np.float32],
        targets: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """Keep some answers.

        Args:
            version: Which answered.
            keys: One each, under which an outcome may be told later; None: it never is. A key that is there already is
                replaced.
            inputs: ``float32[n, d]``.
            outputs: ``float32[n, C or 1]``.
            targets: ``float64[n]``; NaN or None: not known.
        """
        known = np.full(len(inputs), np.nan) if targets is None else targets
        now = time.time()
        rows = [
            (key, now, version, one.tobytes(), out.tobytes(), None if np.isnan(target) else float(target))
            for key, one, out, target in zip(keys, inputs.astype("<f4"), outputs.astype("<f4"), known, strict=True)
        ]
        with self._lock, self._database:
            self._database.executemany(
                "INSERT OR REPLACE INTO observed (key, time, version, inputs, outputs, target) VALUES (?,?,?,?,?,?)",
                rows,
            )
            self._database.execute("DELETE FROM observed WHERE id <= (SELECT MAX(id) FROM observed) - ?", (self._most,))

    def tell(self, key: str, target: float) -> bool:
        """What turned out to be true for the request ``key``; False where there is no such request any more."""
        with self._lock, self._database:
            done = self._database.execute("UPDATE observed SET target = ? WHERE key = ?", (target, key))
        return done.rowcount > 0

    def since(self, last: int = 0, *, labelled: bool = False, most: int | None = None) -> Observed:
        """The requests after number ``last``, oldest first.

        Args:
            last: 0 for all.
            labelled: Only those whose outcome is known.
            most: The newest so many of them; None: all.
        """
        where = "WHERE id > ?" + (" AND target IS NOT NULL" if labelled else "")
        query = f"SELECT id, version, inputs, outputs, target FROM observed {where} ORDER BY id DESC LIMIT ?"  # noqa: S608  # of constants
        with self._lock, closing(self._database.execute(query, (last, -1 if most is None else most))) as found:
            rows = found.fetchall()[::-1]
        return Observed(
            last=rows[-1][0] if rows else 0,
            inputs=_stacked([row[2] for row in rows]),
            outputs=_stacked([row[3] for row in rows]),
            targets=np.array([np.nan if row[4] is None else row[4] for row in rows], dtype=np.float64),
            versions=np.array([row[1] for row in rows], dtype=np.int64),
        )


def _stacked(blobs: Sequence[bytes]) -> npt.NDArray[np.float32]:
    if not blobs:
        return np.empty((0, 0), dtype=np.float32)
    return np.stack([np.frombuffer(blob, dtype="<f4").astype(np.float32) for blob in blobs])
