"""``testudo-server run``: one process that looks after SuperLink and door, and runs the plan's rounds itself.

In order: hold the folders, look at everything on disk, start the SuperLink on loopback, let it know the members' nodes,
open the door, begin a run of a bundle without code, take its task, wait for owners, and go through the rounds. Whatever
way it ends, the other processes are ended, and what Flower kept of the run is deleted.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testudo_common.errors import RoundError, TestudoError, UsageError
from testudo_common.files import write_atomically
from testudo_common.flower_environment import enter_flower_environment
from testudo_server.deployment.front import DOOR, Front
from testudo_server.deployment.interruption import Interruption
from testudo_server.deployment.preflight import PLAN_FILE, Address, Ready, check_free, look_at
from testudo_server.deployment.process import resident_bytes
from testudo_server.deployment.progress import RunProgress
from testudo_server.deployment.quorum import QuorumPatience
from testudo_server.deployment.run_lock import held_lock
from testudo_server.deployment.run_status import RunStatus
from testudo_server.deployment.superlink import SuperLink, forget_connections, forget_payloads
from testudo_server.deployment.supervision import Restartable, Supervision
from testudo_server.provisioning.folder import FederationFolder
from testudo_server.store import RoundRecord, RunState, RunStore

_HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the operator asked for.

    Attributes:
        plan: The plan's file.
        federation: The federation's folder.
        out: The run's folder.
        clients: Owners to wait for before the first round; None: as many as make a full cohort.
        listen: Of the door; None: the federation's port, on this machine alone.
        status: Of the status page; None: the port after it, on this machine alone.
        resume: Whether to go on with the run in ``out``.
        wait_seconds: How long owners are waited for; None: for ever.
        door: The door's command, without arguments.
    """

    plan: Path
    federation: Path
    out: Path
    clients: int | None = None
    listen: Address | None = None
    status: Address | None = None
    resume: bool = False
    wait_seconds: float | None = None
    door: Sequence[str] = DOOR


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that came to its end, for ``--json``.

    Attributes:
        rounds: Finished.
        seconds: From the start of the command.
        seconds_to_first_round: Until the first round of this start could begin; None if there was none left.
        forgotten_rows: Of Flower's database, which were deleted.
        resident_bytes: Process -> memory held at the end, where the system tells it.
    """

    rounds: int
    seconds: float
    seconds_to_first_round: float | None
    forgotten_rows: int
    resident_bytes: dict[str, int]


def run(options: RunOptions) -> Finished | None:
    """Run the plan.

    Returns:
        How it went; None if it was stopped by SIGTERM, as by ``testudo-server stop``.

    Raises:
        TestudoError: It cannot be started, or cannot go on; what was finished is kept.
        KeyboardInterrupt: It was stopped by Ctrl-C.
    """
    began = time.monotonic()
    folder = FederationFolder(options.federation)
    folder.settings()  # a mistyped folder is not made
    with ExitStack() as held:
        held.enter_context(
            held_lock(
                options.out,
                busy="another server is running this run",
                remedy="look at it with testudo-server status, end it with testudo-server stop",
            )
        )
        held.enter_context(
            held_lock(
                folder.superlink,
                busy="another run of this federation is on",
                remedy="wait until it is over, or stop it with testudo-server stop",
            )
        )
        ready = look_at(options.plan, folder, options.out, resume=options.resume)
        listen, status = _addresses(options, ready)
        if not status.is_loopback:
            raise UsageError(
                f"{status} can be reached from other machines",
                where="--status",
                remedy="write 127.0.0.1:PORT; who wants to look from elsewhere takes an SSH tunnel",
            )
        for address, option in ((listen, "--listen"), (status, "--status")):
            check_free(address, option)
        clients = _wanted(options, ready)
        write_atomically(options.out / PLAN_FILE, options.plan.read_bytes())
        enter_flower_environment(folder.superlink / "flower")
        return _RunningServer(options, ready, listen, status, clients, began).run()


def _addresses(options: RunOptions, ready: Ready) -> tuple[Address, Address]:
    port = ready.settings.port
    listen = options.listen or Address("127.0.0.1", port)
    beside = listen.port + 1 if 0 < listen.port < _HIGHEST_PORT else 0
    return listen, options.status or Address("127.0.0.1", beside)


def _wanted(options: RunOptions, ready: Ready) -> int:
    if options.clients is None:
        return ready.wanted
    if options.clients > len(ready.admitted):
        raise UsageError(
            f"{options.clients} owners cannot come, since {len(ready.admitted)} are admitted",
            where="--clients",
            remedy="lower it, or admit more with testudo-server admit",
        )
    return max(options.clients, ready.least)


class _RunningServer:
    """A run with its processes."""

    def __init__(
        self, options: RunOptions, ready: Ready, listen: Address, status: Address, clients: int, began: float
    ) -> None:
        self._options, self._ready, self._clients, self._began = options, ready, clients, began
        self._folder = FederationFolder(options.federation)
        self._store = RunStore(options.out)
        forget_payloads(self._folder.superlink)  # of a server that was killed
        forget_connections(self._folder.superlink)
        self._superlink = SuperLink(self._folder.superlink)
        self._front = Front(
            options.federation,
            options.out,
            superlink=self._superlink.address,
            certificate=self._superlink.certificate,
            listen=listen,
            status=status,
            log=self._folder.superlink / "door.log",
            program=options.door,
        )
        self._progress = RunProgress(options.out, self._first_status(), ready.plan)
        self._to_first: float | None = None
        self._forgotten = 0
        self._resident: dict[str, int] = {}

    def run(self) -> Finished | None:
        progress = self._progress
        with Interruption(self._kill) as interruption:
            try:
                with progress:
                    state = self._run_and_clean_up()
                    progress.change(state="finished", round=state.round)
            except KeyboardInterrupt:
                progress.change(state="stopped")
                if interruption.signal is not None and interruption.signal.name == "SIGTERM":
                    progress.say(_stopped(progress.status))
                    return None
                raise
            except BaseException as error:
                # The text of an error that is not ours could carry data.
                progress.change(
                    state="failed", error=str(error) if isinstance(error, TestudoError) else type(error).__name__
                )
                raise
        progress.say(
            f"Finished {state.round} rounds. What Flower kept of their messages was deleted; the model is in "
            f"{self._options.out}."
        )
        seconds = time.monotonic() - self._began
        return Finished(state.round, round(seconds, 3), self._to_first, self._forgotten, self._resident)

    def _run_and_clean_up(self) -> RunState:
        try:
            self._superlink.start()
            return self._begin_and_run()
        finally:
            self._front.stop()
            self._superlink.stop()
            self._forgotten = forget_payloads(self._folder.superlink)

    def _begin_and_run(self) -> RunState:
        # Imported in the environment that run() has entered.
        from testudo_common.app_bundle import app_bundle, bundle_digest
        from testudo_common.flower_adapter import quicken_object_pulls
        from testudo_server.deployment import control as operator
        from testudo_server.deployment.executor import acquire_task, task_grid

        logging.getLogger("flwr").setLevel(logging.ERROR)  # which Flower sets lower as it is imported
        superlink, front, progress = self._superlink, self._front, self._progress
        for warning in self._ready.warnings:
            progress.say(f"warning: {warning}")
        quicken_object_pulls()
        superlink.wait_until_it_answers()
        with operator.control_client(superlink.address, superlink.certificate, superlink.control_secret) as control:
            operator.stop_earlier_runs(control)
            nodes = operator.register_members(control, self._ready.members)
            front.start()
            front.wait_until_it_listens()
            progress.say(_where(front))
            number = operator.begin_run(control, app_bundle(), bundle_digest())
            token = acquire_task(superlink.address, superlink.certificate, superlink.task_secret, number)
            with (
                self._supervised(),
                self._stopped_in_the_end(control, number),
                task_grid(superlink.address, superlink.certificate, token, bundle_digest()) as grid,
            ):
                return self._rounds(grid, nodes)

    def _rounds(self, grid: Any, nodes: dict[str, int]) -> RunState:
        from testudo_server.app import run_federation
        from testudo_server.attendance import Registered

        progress, options, keys = self._progress, self._options, self._ready.keys
        if options.resume:
            progress.earlier(self._store.load(self._ready.plan.digest), self._store.records())

        def on_waiting(present: int, needed: int) -> None:
            progress.waiting(present, needed)
            if present >= needed and self._to_first is None:
                self._to_first = round(time.monotonic() - self._began, 3)

        def on_round(state: RunState, record: RoundRecord) -> None:
            progress.finished_round(state, record)
            self._resident = self._memory()

        registered = Registered(nodes, self._clients, self._ready.least, options.wait_seconds, on_waiting)
        resume, patience = options.resume, QuorumPatience(options.wait_seconds)
        while True:
            try:
                return run_federation(
                    grid,
                    self._ready.plan,
                    self._store,
                    keys=lambda: keys,
                    resume=resume,
                    on_round=on_round,
                    registered=registered,
                )
            except RoundError as error:
                pause = patience.pause_after(error, progress.status.round)
                if pause is None:
                    raise
                progress.say(f"{error.problem}; asked again in {pause:.0f} s")
                time.sleep(pause)
                resume = self._store.exists

    @contextmanager
    def _supervised(self) -> Iterator[None]:
        children: list[tuple[str, Restartable]] = [("the SuperLink", self._superlink), ("the door", self._front)]
        with Supervision(children, self._progress.say) as supervision:
            try:
                yield
            except KeyboardInterrupt:
                if supervision.failure:
                    raise RoundError(supervision.failure, remedy="look at its log, then go on with --resume") from None
                raise

    @contextmanager
    def _stopped_in_the_end(self, control: Any, number: int) -> Iterator[None]:
        from testudo_server.deployment.control import end_run

        try:
            yield
        except BaseException:
            end_run(control, number)
            raise

    def _memory(self) -> dict[str, int]:
        pids = {"server": os.getpid()}
        for name, child in (("superlink", self._superlink.process), ("door", self._front.process)):
            if child is not None:
                pids[name] = child.pid
        return {name: held for name, pid in pids.items() if (held := resident_bytes(pid)) is not None}

    def _kill(self) -> None:
        for child in (self._front.process, self._superlink.process):
            if child is not None:
                child.kill()

    def _first_status(self) -> RunStatus:
        plan, now = self._ready.plan, datetime.now(UTC)
        return RunStatus(
            federation=self._ready.settings.federation,
            plan=plan.name,
            plan_digest=plan.digest,
            state="starting",
            started=now,
            updated=now,
            rounds=plan.rounds.count,
            expected=self._clients,
            quorum=self._ready.quorum,
        )


def _where(front: Front) -> str:
    only = " (this machine alone; --listen 0.0.0.0:PORT lets others in)" if front.listen.is_loopback else ""
    return f"Owners connect to {front.listen}{only}; status on https://{front.status}/"


def _stopped(status: RunStatus) -> str:
    if not status.round:
        return "Stopped before a round was finished."
    return f"Stopped after {status.round} of {status.rounds} rounds, which are kept; --resume goes on with them."
