"""A data owner's own log: one JSON object a line, for its own eyes. It never leaves, and it never holds data.

By example::

    {"time":"2026-03-01T12:00:00Z","event":"refused","plan":"c2...","round":3,"attempt":0,"reason":"not_approved",
     "sentence":"this plan is not approved. Look at it with testudo-client preview, and then approve it"}

Not the ledger: lines may be lost, and nothing is ever decided by them. Of an error that is not ours only its kind is
written, since its text could carry data.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from testudo_common.errors import TestudoError, UsageError

MAX_LOG_BYTES = 10 * 1000 * 1000
MAX_SENTENCE_CHARACTERS = 2000
_MINE_ALONE = 0o600


@dataclass(frozen=True, slots=True)
class LogLine:
    """One thing that happened.

    Attributes:
        time: UTC, ``2026-03-01T12:00:00Z``.
        event: A word, such as ``refused`` or ``approved``.
        plan: Digest of the plan, hex; empty where there is none.
        round: From 1 on; None where there is none.
        attempt: From 0 on; None where there is none.
        reason: A fixed word, such as the one that was sent.
        sentence: For a person.
    """

    time: str
    event: str
    plan: str = ""
    round: int | None = None
    attempt: int | None = None
    reason: str = ""
    sentence: str = ""


def sentence_of(error: Exception) -> str:
    """What may be written down of an error, in one line: our own sentence, or else only its kind."""
    text = str(error) if isinstance(error, TestudoError) else type(error).__name__
    return " ".join(text.split())[:MAX_SENTENCE_CHARACTERS]


class OwnerLog:
    """The log in one file, mode 0600; a full one is kept once more, as ``owner.log.1``.

    Args:
        path: The file; made when the first line is written.
        max_bytes: A line that would go over it begins a new file.
        now: The clock.
    """

    def __init__(
        self, path: Path, *, max_bytes: int = MAX_LOG_BYTES, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._path, self._max_bytes, self._now = path, max_bytes, now

    @property
    def older(self) -> Path:
        """The file that was full before."""
        return self._path.with_name(f"{self._path.name}.1")

    def write(
        self,
        event: str,
        *,
        plan: str = "",
        round_number: int | None = None,
        attempt: int | None = None,
        reason: str = "",
        sentence: str = "",
    ) -> None:
        """Add a line.

        Raises:
            UsageError: It cannot be written.
        """
        time = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        line = LogLine(time, event, plan, round_number, attempt, reason, sentence[:MAX_SENTENCE_CHARACTERS])
        data = (json.dumps(asdict(line), separators=(",", ":"), ensure_ascii=True) + "\n").encode()
        try:
            with self._locked():
                self._make_room(len(data))
                descriptor = self._open(self._path, os.O_APPEND | os.O_WRONLY)
                try:
                    os.write(descriptor, data)
                finally:
                    os.close(descriptor)
        except OSError as error:
            problem = f"your own log cannot be written: {error.strerror}"
            raise UsageError(problem, where=str(self._path), remedy="make room, or correct its folder") from error

    def refused(
        self,
        error: Exception,
        *,
        plan: str = "",
        round_number: int | None = None,
        attempt: int | None = None,
        reason: str = "",
    ) -> None:
        """Add a line on a refusal.

        Raises:
            UsageError: It cannot be written.
        """
        self.write(
            "refused",
            plan=plan,
            round_number=round_number,
            attempt=attempt,
            reason=reason or type(error).__name__,
            sentence=sentence_of(error),
        )

    def lines(self) -> Iterator[LogLine]:
        """All lines, the oldest first. One that a killed process did not finish is passed over.

        Raises:
            UsageError: A file cannot be read.
        """
        for path in (self.older, self._path):
            try:
                texts = path.read_bytes().splitlines() if path.exists() else []
            except OSError as error:
                raise UsageError(f"cannot be read: {error.strerror}", where=str(path), remedy="check it") from error
            for text in texts:
                try:
                    yield LogLine(**json.loads(text))
                except (ValueError, TypeError, RecursionError):
                    continue

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time: two that both find the file full would throw a whole one away."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = self._open(self._path.with_name(f".{self._path.name}.lock"), os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _open(self, path: Path, flags: int) -> int:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _MINE_ALONE)
        os.fchmod(descriptor, _MINE_ALONE)
        return descriptor

    def _make_room(self, length: int) -> None:
        if self._path.exists() and self._path.stat().st_size + length > self._max_bytes:
            self._path.replace(self.older)
