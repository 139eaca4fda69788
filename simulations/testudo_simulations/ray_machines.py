"""The machines of a Ray cluster: whether each can answer for clients, asked before the first round. Trains nothing.

Clients keep what they remember in files, and any machine may answer for any client. So all of them need the run's
folder and the data at the same paths, on a file system on which a lock holds for all, and the same code.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import platform
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from testudo_common.code_digest import digest_of_sources
from testudo_common.errors import UsageError

_PACKAGES = ("testudo_common", "testudo_client", "testudo_server", "testudo_simulations")
_DISTRIBUTIONS = ("testudo-fl", "torch", "opacus", "flwr", "numpy")
_ANSWER_SECONDS = 120.0
_FREE_SECONDS = 30.0
_PAUSE_SECONDS = 0.5
_SHARED = "every machine needs the run's folder and the data at the same paths: put them on a shared file system"
_SAME_CODE = "install the same testudo-fl[ray] on every machine, and then start Ray there"
_SAME_PATH = "install it there too, or set PYTHONPATH before Ray is started"
_LOCKS = "mount the shared file system with locks (NFS: without nolock or local_lock)"


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine of the cluster.

    Attributes:
        node: Ray's id of it, hex.
        name: For a sentence.
        address: IP.
        cores: That Ray may use.
    """

    node: str
    name: str
    address: str
    cores: int


@dataclass(frozen=True, slots=True)
class Shared:
    """What every machine must see alike.

    Attributes:
        plan: File of the complete plan, in the run's folder.
        data: File or folder of the data; empty where the federation makes its own.
        model: The plan's name of the model.
    """

    plan: str
    data: str
    model: str


@dataclass(frozen=True, slots=True)
class Sight:
    """What one machine sees.

    Attributes:
        software: Name -> version.
        code: SHA-256 of Testudo's sources.
        plan: SHA-256 of the plan's file; empty if it cannot be read.
        data: SHA-256 of the names and sizes of the data's files; empty if they are not there.
        model: SHA-256 of the module of a model of one's own; empty if it is not there.
        word: What was just written beside the plan; empty if it cannot be read.
        lock: ``held`` where the lock on that word is seen, ``free`` where it is not, empty if it may not be asked for.
    """

    software: dict[str, str]
    code: str
    plan: str
    data: str
    model: str
    word: str = field(repr=False)
    lock: str


def machines_now() -> tuple[Machine, ...]:
    """Those that are alive and run clients, sorted by name; Ray is connected."""
    import ray

    found = []
    for node in ray.nodes():
        name, host = node["NodeName"], node["NodeManagerHostname"]
        cores = int(node["Resources"].get("CPU", 0)) if node["Alive"] else 0
        if cores:
            shown = name if name == host else f"{name} ({host})"
            found.append(Machine(node["NodeID"], shown, node["NodeManagerAddress"], cores))
    return tuple(sorted(found, key=lambda machine: (machine.name, machine.node)))


def gone_among(machines: Sequence[Machine], error: str) -> str:
    """Names of those that are not there any more; where all are, of those at the address in an error of Ray's."""
    there = machines_now()
    gone = [machine.name for machine in machines if machine not in there]
    return ", ".join(gone or [machine.name for machine in machines if f"\tip: {machine.address}\n" in error])


def check_machines(machines: Sequence[Machine], shared: Shared) -> None:
    """Let every machine look, and compare with what this one sees.

    Raises:
        UsageError: One of them is not set up as this one, or all cores of the cluster are not free.
    """
    import ray

    look = ray.remote(num_cpus=0, max_retries=0)(sight)
    with _word_beside(Path(shared.plan)) as word:
        here = sight(shared, word.name)
        asked = {machine: look.options(**_on(machine)).remote(shared, word.name) for machine in machines}
        ends = time.monotonic() + _ANSWER_SECONDS
        for machine, answer in asked.items():
            try:
                there = ray.get(answer, timeout=max(0.0, ends - time.monotonic()))
            except Exception as error:
                raise UsageError(
                    f"it cannot run Testudo ({_kind_of(error)})",
                    where=machine.name,
                    remedy=_SAME_CODE,
                ) from error
            if fault := fault_of(there, here, shared):
                problem, remedy = fault
                raise UsageError(problem, where=machine.name, remedy=remedy)


def expect_free_cores(machines: Sequence[Machine]) -> None:
    """Wait until nobody else uses the cluster: Flower counts all cores as its own, and would wait for ever for them.

    Raises:
        UsageError: Somebody does.
    """
    import ray

    wanted, ends = sum(machine.cores for machine in machines), time.monotonic() + _FREE_SECONDS
    while (free := int(ray.available_resources().get("CPU", 0))) < wanted:
        if time.monotonic() > ends:
            raise UsageError(
                f"{wanted - free} of the {wanted} cores of the Ray cluster are in use",
                remedy="wait until its other jobs are done, or start a cluster for this run alone",
            )
        time.sleep(_PAUSE_SECONDS)


def fault_of(there: Sight, here: Sight, shared: Shared) -> tuple[str, str] | None:
    """What is wrong with a machine that sees ``there``, and what to do; None: nothing is."""
    for name, ours in here.software.items():
        if (theirs := there.software[name]) != ours:
            return f"it runs {name} {theirs}, and this machine {ours}", "install the same versions on every machine"
    folder, module = Path(shared.plan).parent, shared.model.partition(":")[0]
    checks = (
        (there.code == here.code, "it runs other sources of testudo-fl than this machine", _SAME_CODE),
        (there.plan and there.word, f"it does not see {folder}, or may not read it", _SHARED),
        ((there.plan, there.word) == (here.plan, here.word), f"it sees another {folder}", _SHARED),
        (there.data == here.data, f"it does not see {shared.data}, or another one", _SHARED),
        (there.model == here.model, f"it does not have this machine's {module}", _SAME_PATH),
        (there.lock, f"it may not write in {folder}", "start Ray as the same user on every machine"),
        (there.lock == here.lock, "it does not see locks of this machine", _LOCKS),
    )
    return next(((problem, remedy) for holds, problem, remedy in checks if not holds), None)


def sight(shared: Shared, word: str) -> Sight:
    """What this machine sees.

    Args:
        shared: What to look at.
        word: File with a word, whose lock is held.
    """
    packages = map(importlib.util.find_spec, _PACKAGES)
    folders = [Path(path) for package in packages if package for path in package.submodule_search_locations or ()]
    return Sight(
        {"Python": platform.python_version(), **{name: _version(name) for name in _DISTRIBUTIONS}},
        digest_of_sources(folders),
        _digest_of(Path(shared.plan)),
        _outline_of(Path(shared.data)) if shared.data else "",
        _digest_of_module(shared.model),
        _digest_of(Path(word)),
        _lock_of(Path(word)),
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "from a folder"


def _on(machine: Machine) -> dict[str, Any]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(machine.node, soft=False)}


def _kind_of(error: Exception) -> str:
    cause = getattr(error, "cause", None)
    return type(error if cause is None else cause).__name__


@contextlib.contextmanager
def _word_beside(plan: Path) -> Iterator[Any]:
    """A file that was not there a moment ago, with a lock on it, as long as the block lasts."""
    path = plan.with_name(f".seen-{secrets.token_hex(8)}")
    with path.open("x", encoding="ascii") as file:
        try:
            file.write(secrets.token_hex(16))
            file.flush()
            os.fsync(file.fileno())
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            path.unlink()


def _lock_of(path: Path) -> str:
    """Whether another process holds the lock, as a client's participant does while it answers."""
    try:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
    except OSError:
        return ""
    return "free"


def _digest_of(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _outline_of(path: Path) -> str:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    try:
        lines = [f"{file.relative_to(path)} {file.stat().st_size}\n" for file in files if not file.is_dir()]
    except OSError:
        return ""
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _digest_of_module(model: str) -> str:
    """Of ``package.module:function``; a model that has no colon is Testudo's own."""
    module, colon, _ = model.partition(":")
    if not colon:
        return ""
    with contextlib.suppress(ImportError, ValueError):
        found = importlib.util.find_spec(module)
        if found is not None and found.origin is not None:
            return _digest_of(Path(found.origin))
    return ""
