"""A provisioned federation as processes: one server, one node an owner. Waits for them, and stops them by their ids."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from testudo_common.errors import UsageError
from testudo_simulations.deployment.memory import highest
from testudo_simulations.deployment.processes import CommandProcess
from testudo_simulations.deployment.provisioned import Provisioned

_SERVER, _CLIENT = "testudo_server.cli", "testudo_client.cli"
_START_SECONDS = 120.0


class LocalFederation:
    """Processes of one federation on this machine.

    Args:
        provisioned: Its folders.
        out: The run's folder.
        logs: Gets a file for each process.
        environment: Variables for all of them.

    Attributes:
        peak_bytes: Kind of process -> the most memory that one held; see :mod:`testudo_simulations.deployment.memory`.
    """

    def __init__(
        self, provisioned: Provisioned, out: Path, logs: Path, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.provisioned, self.out, self.logs = provisioned, out, logs
        self._environment = dict(environment or {})
        self._stack = ExitStack()
        self.server: CommandProcess | None = None
        self.owners: dict[str, CommandProcess] = {}
        self.peak_bytes: dict[str, int] = {}

    def start_server(self, *words: str, prefix: Sequence[str] = ()) -> CommandProcess:
        """``testudo-server run``, with further words."""
        found = self.provisioned
        self.server = self._stack.enter_context(
            CommandProcess(
                "the server",
                _SERVER,
                ["run", str(found.plan), str(found.federation), "--out", str(self.out), *words],
                self.logs / "server.log",
                environment=self._environment,
                prefix=prefix,
            )
        )
        return self.server

    def start_owner(self, owner: str, *words: str, prefix: Sequence[str] = ()) -> CommandProcess:
        """``testudo-client run`` of one owner, with further words."""
        found = self.provisioned
        process = self._stack.enter_context(
            CommandProcess(
                owner,
                _CLIENT,
                ["run", str(found.owners[owner]), "--plan", str(found.plan), "--data", str(found.data[owner]), *words],
                self.logs / f"{owner}.log",
                environment=self._environment,
                prefix=prefix,
            )
        )
        self.owners[owner] = process
        return process

    def start(self, owners: Iterable[str] | None = None) -> None:
        """The server, and all owners or some of them."""
        self.start_server()
        for owner in self.provisioned.owners if owners is None else owners:
            self.start_owner(owner)

    def status(self) -> dict[str, Any]:
        """The run's ``status.json``; empty before there is one."""
        try:
            found: dict[str, Any] = json.loads((self.out / "status.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found

    def wait_for_round(self, number: int, seconds: float = _START_SECONDS) -> None:
        """Return once that round is finished. Raises as :meth:`CommandProcess.wait_for`."""
        assert self.server is not None, "start the server first"
        self.server.wait_for(lambda: self.status().get("round", 0) >= number, seconds, what=f"round {number}")

    def finish(self, seconds: float, *, on_status: Callable[[dict[str, Any]], None] | None = None) -> None:
        """Wait until the server has ended well.

        Args:
            seconds: To wait for at the most.
            on_status: Told of the status now and then.

        Raises:
            UsageError: It did not, or an owner's process ended before.
        """
        assert self.server is not None, "start the server first"
        ends = time.monotonic() + seconds
        while self.server.status is None:
            for owner in self.owners.values():
                if owner.status is not None:
                    raise UsageError(f"{owner.name} ended with status {owner.status}", where=str(owner.log))
            if time.monotonic() > ends:
                raise UsageError(f"the run did not finish within {seconds:g} s", where=str(self.server.log))
            self.peak_bytes = highest(
                (self.server.pid, *(owner.pid for owner in self.owners.values())), self.peak_bytes
            )
            if on_status is not None:
                on_status(self.status())
            time.sleep(0.2)
        if self.server.status != 0:
            raise UsageError(
                f"the server ended with status {self.server.status}", where=str(self.server.log), remedy="read its log"
            )

    def stop(self) -> None:
        """End whatever still runs, the owners first."""
        self._stack.close()

    def __enter__(self) -> LocalFederation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
