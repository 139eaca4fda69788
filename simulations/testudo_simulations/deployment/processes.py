"""Commands of ours as processes of their own, with their output in a file; each is stopped by its own id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from testudo_common.errors import UsageError

_POLL_SECONDS = 0.05
_TAIL_LINES = 12


class CommandProcess:
    """A running command.

    Args:
        name: For messages.
        module: A module to run with ``python -m``, such as ``testudo_client.cli``.
        words: Its arguments.
        log: Gets standard output and standard error, at the end of what is there.
        environment: Variables beside this process's own.
        prefix: Words before the interpreter, such as those that enter a network namespace.
    """

    def __init__(
        self,
        name: str,
        module: str,
        words: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self._process = subprocess.Popen(  # noqa: S603 - our own modules, no shell
                [*prefix, sys.executable, "-m", module, *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def output(self) -> str:
        """Everything it printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait(self, seconds: float) -> int:
        """Its exit status, once it has ended.

        Raises:
            UsageError: It has not by then.
        """
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise UsageError(f"{self.name} still runs after {seconds:g} s", where=str(self.log)) from error

    def wait_for(self, there: Callable[[], bool], seconds: float, *, what: str) -> None:
        """Return once ``there`` says so.

        Raises:
            UsageError: The process ended before, or it took too long; with the end of what it printed.
        """
        ends = time.monotonic() + seconds
        while not there():
            if self.status is not None:
                raise UsageError(f"{self.name} ended with status {self.status} before {what}:\n{self._tail()}")
            if time.monotonic() > ends:
                raise UsageError(f"{self.name}: {what} did not come within {seconds:g} s:\n{self._tail()}")
            time.sleep(_POLL_SECONDS)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.status is None:
            self._process.send_signal(number)

    def stop(self, seconds: float = 20.0) -> int:
        """End it: first politely, then not. Its exit status."""
        self.send(signal.SIGTERM)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def kill(self) -> None:
        """End it as a power cut would, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def _tail(self) -> str:
        return "\n".join(self.output().splitlines()[-_TAIL_LINES:])

    def __enter__(self) -> CommandProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
