"""Processes of our commands, forked from one that has imported all of them. No tests in here.

Server, SuperLink, door, owners and their SuperNodes are processes of their own, each with its own id, that can be
killed as any others; what they share is that nobody waits for their imports: a process costs 0.1 s instead of 8. Where
one of ours starts another by ``python -m module``, it forks it as well. What a fork cannot show, a start from nothing,
is test_deployment.py's.
"""

from __future__ import annotations

import importlib
import itertools
import os
import runpy
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, NoReturn

from testudo_common.errors import UsageError
from testudo_simulations.deployment.federation import LocalFederation
from testudo_simulations.deployment.processes import CommandProcess
from testudo_simulations.deployment.provisioned import Provisioned

ROOT = Path(__file__).resolve().parents[1]
PATHS = [str(ROOT / top) for top in ("common", "client", "server", "simulations", "tests")]
FLOWER = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "OMP_NUM_THREADS": "1",
}
PRELOADED = (
    "opacus",
    "uvicorn",
    "flwr.superlink.main",
    "flwr.superlink.cli.flower_superlink",
    "flwr.supernode.cli.flower_supernode",
    "testudo_client.app",
    "testudo_client.cli",
    "testudo_client.deployment.executor",
    "testudo_client.deployment.installed",
    "testudo_client.deployment.run_command",
    "testudo_client.deployment.runtime_api",
    "testudo_client.deployment.supernode",
    "testudo_common.app_bundle",
    "testudo_server.app",
    "testudo_server.cli",
    "testudo_server.deployment.control",
    "testudo_server.deployment.door",
    "testudo_server.deployment.executor",
    "testudo_server.deployment.run_command",
    "testudo_server.deployment.superlink_process",
)
_TICK_SECONDS = 0.02
_CONNECT_SECONDS = 10.0
PR_SET_PDEATHSIG = 1


def fork(begin: Callable[[], object]) -> int:
    """Fork a process that does ``begin`` and ends; its id."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    status = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        begin()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def become(words: Sequence[str], environment: Mapping[str, str], output: int, error: int, kept: Sequence[int]) -> None:
    """Be ``python -m words`` in this process, which was forked for it."""
    for number, descriptor in ((1, output), (2, error)):
        os.dup2(descriptor, number)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    borders = [2, *sorted(kept), os.sysconf("SC_OPEN_MAX")]
    for low, high in itertools.pairwise(borders):
        os.closerange(low + 1, high)
    for descriptor in kept:
        os.set_inheritable(descriptor, True)
    os.environ.clear()
    os.environ.update(environment)
    streams = [os.fdopen(number, mode, closefd=False) for number, mode in ((0, "r"), (1, "w"), (2, "w"))]
    sys.stdin, sys.stdout, sys.stderr = streams
    fork_instead_of_starting()
    if fault := environment.get("TESTUDO_FAULT"):
        import fault_points

        fault_points.watch(Path(fault))
    sys.argv = list(words)
    # A fork keeps the command line of what it was forked from; this name, of 15 bytes, tells it from others.
    Path("/proc/self/comm").write_text(words[0].rsplit(".", 1)[-1][:15])
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


class Forked:
    """In the place of ``subprocess.Popen``: as much of it as our processes use."""

    def __init__(self, command: Sequence[str], **more: Any) -> None:
        assert list(command[:2]) == [sys.executable, "-m"], command
        environment = dict(os.environ if more.get("env") is None else more["env"])
        self.returncode: int | None = None
        self.stdout = None
        output, ours = more["stdout"], None
        if output == subprocess.PIPE:
            ours, output = os.pipe()
            self.stdout = os.fdopen(ours, "rb")
        else:
            output = os.dup(output.fileno())
        error = output if more["stderr"] == subprocess.STDOUT else more["stderr"].fileno()

        def begin() -> None:
            os.umask(max(more.get("umask", -1), 0) or os.umask(0o077))
            become(command[2:], environment, output, error, more["pass_fds"])

        self.pid = fork(begin)
        os.close(output)

    def poll(self) -> int | None:
        if self.returncode is None:
            with suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        ends = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if ends is not None and time.monotonic() > ends:
                raise subprocess.TimeoutExpired("forked", timeout or 0.0)
            time.sleep(_TICK_SECONDS)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def fork_instead_of_starting() -> None:
    """Let this process fork the processes that it would start."""
    from testudo_client.deployment import node
    from testudo_server.deployment import process

    for module in (node, process):
        names = {name: getattr(subprocess, name) for name in ("PIPE", "STDOUT", "DEVNULL", "TimeoutExpired")}
        vars(module)["subprocess"] = SimpleNamespace(Popen=Forked, **names)


def serve(address: str) -> NoReturn:
    """Fork what is asked for, until the one who asks is gone."""
    for name in PRELOADED:
        importlib.import_module(name)
    import gc

    gc.collect()
    gc.freeze()
    started: dict[int, Connection] = {}
    with Listener(address) as listener:
        door = listener._listener._socket  # type: ignore[attr-defined]
        parent = os.getppid()
        while os.getppid() == parent:
            if select.select([door], [], [], _TICK_SECONDS)[0]:
                asking = listener.accept()
                words, log, environment = asking.recv()
                output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

                def begin(
                    words: list[str] = words, environment: dict[str, str] = environment, to: int = output
                ) -> None:
                    become(words, environment, to, to, ())

                pid = fork(begin)
                os.close(output)
                started[pid] = asking
                asking.send(pid)
            for pid, connection in list(started.items()):
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    with suppress(OSError):
                        connection.send(os.waitstatus_to_exitcode(status))
                    connection.close()
                    del started[pid]
    sys.exit(0)


def _connected(address: str) -> Connection:
    """To a zygote whose socket is there: it is, for a moment, before anybody listens."""
    ends = time.monotonic() + _CONNECT_SECONDS
    while True:
        try:
            return Client(address)
        except ConnectionRefusedError:
            if time.monotonic() > ends:
                raise
            time.sleep(_TICK_SECONDS)


class ForkedProcess(CommandProcess):
    """A command, forked by a zygote; see there for the arguments."""

    def __init__(
        self, address: str, name: str, words: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._zygote = _connected(address)
        self._zygote.send((list(words), str(log), dict(environment)))
        self._process = _Remote(self._zygote)  # type: ignore[assignment]


class _Remote:
    """A process that is another one's child, as ``subprocess.Popen`` shows its own."""

    def __init__(self, zygote: Connection) -> None:
        self._zygote = zygote
        self.pid: int = zygote.recv()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and self._zygote.poll():
            self.returncode = self._zygote.recv()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not self._zygote.poll(timeout):
                raise subprocess.TimeoutExpired("forked", timeout or 0.0)
            self.returncode = self._zygote.recv()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Zygote:
    """The process that forks, as long as the block lasts.

    Args:
        folder: For its socket and its log.
    """

    def __init__(self, folder: Path, seconds: float = 120.0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.address, self.log = str(folder / "zygote"), folder / "zygote.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__)), self.address],
                env={**os.environ, **FLOWER, "PYTHONPATH": os.pathsep.join(PATHS)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._ends = time.monotonic() + seconds

    def start(
        self, name: str, words: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> ForkedProcess:
        """Fork ``python -m words``."""
        while not Path(self.address).exists():
            if self._process.poll() is not None or time.monotonic() > self._ends:
                raise UsageError("the zygote did not start", where=str(self.log))
            time.sleep(_TICK_SECONDS)
        return ForkedProcess(self.address, name, words, log, {**os.environ, **FLOWER, **(environment or {})})

    def __enter__(self) -> Zygote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()


class ForkedFederation(LocalFederation):
    """A federation whose processes a zygote forks; an owner dies at the point that is written into its fault file."""

    def __init__(self, zygote: Zygote, provisioned: Provisioned, out: Path, logs: Path) -> None:
        super().__init__(provisioned, out, logs)
        self._zygote = zygote

    def fault_file(self, owner: str) -> Path:
        """What is written here ends the owner when it comes to that point; see fault_points.py."""
        return self.logs / f"{owner}.fault"

    def start_server(self, *words: str, prefix: Sequence[str] = ()) -> CommandProcess:
        assert not prefix
        found = self.provisioned
        command = ["run", str(found.plan), str(found.federation), "--out", str(self.out), *words]
        started = self._zygote.start("the server", ["testudo_server.cli", *command], self.logs / "server.log")
        self.server = self._stack.enter_context(started)
        return self.server

    def start_owner(self, owner: str, *words: str, prefix: Sequence[str] = ()) -> CommandProcess:
        assert not prefix
        found = self.provisioned
        command = ["run", str(found.owners[owner]), "--plan", str(found.plan), "--data", str(found.data[owner]), *words]
        started = self._zygote.start(
            owner,
            ["testudo_client.cli", *command],
            self.logs / f"{owner}.log",
            {"TESTUDO_FAULT": str(self.fault_file(owner))},
        )
        self.owners[owner] = self._stack.enter_context(started)
        return started


def children_of(pid: int) -> dict[str, int]:
    """Module -> process, of the children that a process has now; forks have names of their own, see :func:`become`."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ends meanwhile
            if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found[(path / "comm").read_text().strip()] = int(path.name)
    return found


if __name__ == "__main__":
    serve(sys.argv[1])
