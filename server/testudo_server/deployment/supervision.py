"""Keeps a run's other processes alive: what ends is started again, and ending too often ends the run."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol

from testudo_server.deployment.process import ChildProcess

_LOOK_SECONDS = 0.25
_MOST_STARTS = 5
_WITHIN_SECONDS = 120.0


class Restartable(Protocol):
    """A process that can be started again.

    Attributes:
        process: The present one.
    """

    process: ChildProcess | None

    def start(self) -> None:
        """Start it again, as it was."""


class Supervision:
    """Looks after processes as long as the block lasts.

    Args:
        children: Name -> process.
        say: Told in words what was done.
        give_up: Called, from a thread, when one cannot be kept alive; None: this process is sent SIGTERM.

    Attributes:
        failure: Why it gave up, in words; empty if it did not.
    """

    def __init__(
        self,
        children: Sequence[tuple[str, Restartable]],
        say: Callable[[str], None],
        give_up: Callable[[], None] | None = None,
    ) -> None:
        self._children, self._say = children, say
        self._give_up = give_up or _end_this_process
        self._starts: dict[str, deque[float]] = {name: deque(maxlen=_MOST_STARTS) for name, _ in children}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="supervision")
        self.failure = ""

    def __enter__(self) -> Supervision:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            for name, child in self._children:
                if child.process is None or child.process.running:
                    continue
                words, log = child.process.last_words(), child.process.log
                now, starts = time.monotonic(), self._starts[name]
                if len(starts) == _MOST_STARTS and now - starts[0] < _WITHIN_SECONDS:
                    self.failure = f"{name} ended {_MOST_STARTS + 1} times in a row: {words} (see {log})"
                    self._give_up()
                    return
                starts.append(now)
                self._say(f"{name} ended and is started again: {words}")
                child.process.stop()
                child.start()


def _end_this_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
