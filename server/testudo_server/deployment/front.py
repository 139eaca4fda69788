"""The door of a run, seen from its parent: started, waited for, started again, stopped. What it lets in is its own."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from testudo_common.errors import UsageError
from testudo_server.deployment.preflight import Address, parse_address
from testudo_server.deployment.process import ChildProcess

START_SECONDS: Final = 60.0
DOOR: Final = (sys.executable, "-m", "testudo_server.deployment.door")
_READY = "door ready"
_LOOK_SECONDS = 0.1
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[0-9A-Za-z.-]+):\d+")


class Front:
    """The door, and the status page, in a process of their own.

    Args:
        federation: The federation's folder.
        out: The run's.
        superlink: Host and port of the SuperLink.
        certificate: Of the SuperLink.
        listen: Where owners connect.
        status: Where the status page is.
        log: What the process says is added to this file.
        program: The door's command, without arguments.

    Attributes:
        listen: With the port that it got, once it is ready.
        status: Likewise.
        process: As long as it runs.
    """

    def __init__(
        self,
        federation: Path,
        out: Path,
        *,
        superlink: str,
        certificate: Path,
        listen: Address,
        status: Address,
        log: Path,
        program: Sequence[str] = DOOR,
    ) -> None:
        self._fixed = (
            *program,
            *("--federation", str(federation), "--out", str(out)),
            *("--superlink", superlink, "--superlink-ca", str(certificate), "--parent-pid", str(os.getpid())),
        )
        self.listen, self.status, self._log = listen, status, log
        self.process: ChildProcess | None = None
        self._ready = threading.Event()

    def start(self) -> None:
        """Start it, the first time or again, on the same ports."""
        self._ready = threading.Event()
        command = [*self._fixed, "--listen", str(self.listen), "--status", str(self.status)]
        self.process = ChildProcess(command, self._log, talks=True)
        threading.Thread(target=self._read, args=(self.process, self._ready), daemon=True, name="door").start()

    def wait_until_it_listens(self, seconds: float = START_SECONDS) -> None:
        """Return once owners can connect.

        Raises:
            UsageError: It ended instead, or is not there in time.
        """
        assert self.process is not None
        ends = time.monotonic() + seconds
        while self.process.running and time.monotonic() < ends:
            if self._ready.wait(_LOOK_SECONDS):
                return
        what = f"does not listen after {seconds:.0f} s" if self.process.running else "ended as it began"
        raise UsageError(
            f"the door {what}: {self.process.last_words()}", where=str(self.process.log), remedy="look at its log"
        )

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.stop()

    def _read(self, process: ChildProcess, ready: threading.Event) -> None:
        """Its lines: the one that says where it listens is kept, the others go into its log."""
        with self._log.open("ab") as log:
            for line in process.output:
                text = line.decode(errors="replace")
                if text.startswith(_READY):
                    found = [match.group(0) for match in _ADDRESS.finditer(text)]
                    if len(found) == 2:
                        self.listen, self.status = (parse_address(each, "door") for each in found)
                    ready.set()
                log.write(line)
