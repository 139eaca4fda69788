"""Peers in processes of their own, one round at a time in turn: what a round takes, and the most memory ever held.

The processes are forked from one that has imported the peers and done nothing, so that a process's own high-water mark
is that of its case. CPU time and memory are those of the process and of all below it, as Linux tells them in ``/proc``.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from testudo_common.errors import UsageError

if TYPE_CHECKING:
    from testudo_simulations.benchmarks.simulation.workload import Work

Peer = Callable[["Work", int, Callable[[], None]], None]
"""A function of a module: (work, rounds, turn), in one thread; calls ``turn`` when set up, and after every round."""

PEERS = "testudo_simulations.benchmarks.simulation.peers"
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one case took.

    Attributes:
        start_seconds: Wall seconds until the first round that counts could begin.
        seconds: Wall seconds a round, a median.
        cpu_seconds: CPU seconds a round, a median.
        peak_bytes: The most memory held, what is idle included.
        idle_bytes: Held by the process with the same imports, before it did anything.
    """

    start_seconds: float
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    idle_bytes: int


@dataclass(frozen=True, slots=True)
class _Lap:
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def in_turn(cases: Sequence[tuple[Peer, Work, int]], imported: str = PEERS) -> list[Cost]:
    """Run every case's rounds, all cases taking turns.

    Args:
        cases: (peer, work, rounds); one with fewer rounds is done earlier, one with none is measured at its start.
        imported: The module that the process which the others are forked from has imported.

    Raises:
        UsageError: A process ended early; what it printed last is said.
    """
    with ExitStack() as stack:
        children = [stack.enter_context(_child(imported, *case)) for case in cases]
        started = [(child.lap(), child.go_on().lap()) for child in children]
        laps: list[list[_Lap]] = [[] for _ in cases]
        for number in range(max(rounds for _, _, rounds in cases)):
            for child, mine, (_, _, rounds) in zip(children, laps, cases, strict=True):
                if number < rounds:
                    mine.append(child.go_on().lap())
    return [
        Cost(
            start.seconds,
            statistics.median(lap.seconds for lap in mine or [start]),
            statistics.median(lap.cpu_seconds for lap in mine or [start]),
            max(lap.peak_bytes for lap in [start, *mine]),
            idle.peak_bytes,
        )
        for (idle, start), mine in zip(started, laps, strict=True)
    ]


class _Child:
    """The parent's end."""

    def __init__(self, connection: Connection, log: Path, name: str) -> None:
        self._connection = connection
        self._log = log
        self._name = name

    def go_on(self) -> _Child:
        self._connection.send(None)
        return self

    def lap(self) -> _Lap:
        try:
            lap = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
            raise UsageError(f"{self._name} ended early", where=" ".join(last) or "it printed nothing") from error
        assert isinstance(lap, _Lap)
        return lap


@contextmanager
def _child(imported: str, peer: Peer, work: Work, rounds: int) -> Iterator[_Child]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([imported])
    ours, its = context.Pipe()
    with tempfile.TemporaryDirectory(prefix="testudo-bench-") as folder:
        log = Path(folder) / "log"
        # pfl takes a process of any other name for one of its own workers.
        process = context.Process(target=_serve, args=(its, str(log), peer, work, rounds), name="MainProcess")
        process.start()
        its.close()
        try:
            yield _Child(ours, log, peer.__name__)
            with suppress(ConnectionError):
                ours.send(None)  # after its last lap
        finally:
            ours.close()
            process.join()


def _serve(connection: Connection, log: str, peer: Peer, work: Work, rounds: int) -> None:
    """The child's end."""
    with Path(log).open("wb", buffering=0) as file:  # Ray and Flower print; whoever is measured does not draw
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    from threadpoolctl import threadpool_limits

    since: list[float] = []

    def turn() -> None:
        wall, cpu = (time.perf_counter() - since[0], cpu_seconds(os.getpid()) - since[1]) if since else (0.0, 0.0)
        connection.send(_Lap(wall, cpu, peak_bytes(os.getpid())))
        connection.recv()
        since[:] = [time.perf_counter(), cpu_seconds(os.getpid())]

    with threadpool_limits(1), suppress(EOFError):  # the parent has gone
        turn()
        peer(work, rounds, turn)


def cpu_seconds(pid: int) -> float:
    """Of this process so far, and of all below it, what has ended among them included; other processes by the tick."""
    own = time.process_time() if pid == os.getpid() else None
    total = 0.0
    for each in _with_descendants(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            times = fields[13:15] if each == pid and own is not None else fields[11:15]  # utime stime cutime cstime
            total += sum(map(int, times)) / _TICKS_PER_SECOND
    return total + (own or 0.0)


def peak_bytes(pid: int) -> int:
    """The most memory that this process has held; with processes below it, what all of them hold now (``Pss``)."""
    family = list(_with_descendants(pid))
    if len(family) == 1:
        return _kilobytes(f"/proc/{pid}/status", "VmHWM") * 1024
    total = 0
    for each in family:
        with suppress(OSError):
            total += _kilobytes(f"/proc/{each}/smaps_rollup", "Pss")
    return total * 1024


def _kilobytes(path: str, key: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    return 0


def _with_descendants(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _with_descendants(int(child))
