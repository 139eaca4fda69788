"""Ctrl-C and SIGTERM: the first one ends a run in order, the second one at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType

from testudo_common.commands import EXIT_INTERRUPTED

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Turns the first signal into KeyboardInterrupt in the main thread, as long as the block lasts.

    A run can be interrupted anywhere, as it can be killed anywhere: what it keeps, it keeps whole.

    Args:
        at_once: Called at the second signal, before this process is left; ends the children.

    Attributes:
        signal: The first one; None if there was none.
    """

    def __init__(self, at_once: Callable[[], None]) -> None:
        self._at_once = at_once
        self._before: list[object] = []
        self.signal: signal.Signals | None = None

    def __enter__(self) -> Interruption:
        self._before = [signal.signal(number, self._received) for number in _SIGNALS]
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for number, before in zip(_SIGNALS, self._before, strict=True):
            signal.signal(number, before)  # type: ignore[arg-type]

    def _received(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            self._at_once()
            os._exit(EXIT_INTERRUPTED)
        self.signal = signal.Signals(number)
        raise KeyboardInterrupt
