"""A process that belongs to a run: started with its output in a file, asked to end, killed if it does not.

It is in a process group of its own, so that Ctrl-C in a terminal reaches the run's own process alone, which then ends
its children in order.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from testudo_common.files import create_private

_STOP_SECONDS = 10.0
_LINES_SHOWN = 3
_BYTES_SHOWN = 600
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class ChildProcess:
    """One process.

    Args:
        command: What to start.
        log: Its output is added to this file.
        environment: Of the process; None: this one's.
        descriptors: Open files that it is given.
        talks: Whether its standard output can be read from :attr:`output` instead.

    Attributes:
        log: As given.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        descriptors: Collection[int] = (),
        talks: bool = False,
    ) -> None:
        create_private(log, durable=False)
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own program, and no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else output,
                stderr=output,
                env=None if environment is None else dict(environment),
                pass_fds=tuple(descriptors),
                start_new_session=True,
                umask=0o077,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def output(self) -> IO[bytes]:
        """Its standard output."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def last_words(self) -> str:
        """The end of its log, on one line and without what would steer a terminal."""
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _BYTES_SHOWN))
            lines = _COLOURS.sub("", file.read().decode(errors="replace")).splitlines()[-_LINES_SHOWN:]
            return " / ".join("".join(filter(str.isprintable, line)).strip() for line in lines)
        return ""

    def stop(self) -> None:
        """Ask it to end, and kill it if it does not within ten seconds."""
        if self.running:
            with suppress(ProcessLookupError):
                self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def kill(self) -> None:
        """End it at once, with whatever it has started."""
        if self.running:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def resident_bytes(pid: int) -> int | None:
    """Memory that a process holds, where the system tells it in ``/proc``."""
    with suppress(OSError, ValueError, IndexError):
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    return None
