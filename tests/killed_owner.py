"""A data owner in a process of its own that is killed, with SIGKILL, at a chosen write or send. No tests in here.

What counts as a point to die at: each statement of the ledger's database that begins, writes or commits; each write,
sync and renaming of a file; each reply that is about to leave, or has just left. Dying right after a write is dying
before the next point, since nothing on disk changes in between.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from secure_federation import NAMES, keys_of, own_examples
from testudo_client.gate import Gate
from testudo_client.ledger import open_ledger
from testudo_client.participant import Participant
from testudo_client.store import ClientStore
from testudo_common.plan import FederationPlan
from testudo_common.wire import Message, Parts, decode, encode
from testudo_simulations.consent import SimulatedConsent

CLIENT = "ada"
_WATCHED = ("fsync", "fdatasync", "pwrite", "write", "replace", "rename", "ftruncate", "link")
_PRELOADED = [
    "__main__",
    "testudo_client.participant",
    "testudo_server.secure_exchange",
    "testudo_simulations.consent",
    "testudo_simulations.keys",
    "torch._dynamo",
]


class Deadline:
    """Counts the points passed, and dies at one of them.

    Args:
        at: Which, from 1; 0 for never.
    """

    def __init__(self, at: int) -> None:
        self._at = at
        self.passed = 0

    def point(self) -> None:
        """Pass one point, or die there."""
        self.passed += 1
        if self.passed == self._at:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call`` with a point before it."""

        def watched(*given: Any, **more: Any) -> Any:
            self.point()
            return call(*given, **more)

        return watched

    def watch(self) -> None:
        """Put a point before whatever changes the disk, in this process from now on."""
        for name in _WATCHED:
            setattr(os, name, self.before(getattr(os, name)))
        Path.replace = self.before(Path.replace)  # type: ignore[method-assign]
        point = self.point

        class Watched(sqlite3.Connection):
            def execute(self, statement: str, *given: Any) -> sqlite3.Cursor:  # type: ignore[override]
                if statement.strip().split()[0].upper() in {"BEGIN", "INSERT", "COMMIT", "CREATE"}:
                    point()
                return super().execute(statement, *given)

            def commit(self) -> None:
                point()
                super().commit()

        connect = sqlite3.connect
        sqlite3.connect = lambda *given, **more: connect(*given, **{"factory": Watched, **more})  # type: ignore[assignment]


def participant_in(folder: Path, plan: FederationPlan) -> Participant:
    """The owner whose folder this is: a durable ledger with an anchor, and a durable store."""
    gate = Gate(plan, open_ledger(folder), SimulatedConsent(plan), "ab" * 32)
    membership = keys_of(NAMES).membership_of(CLIENT) if plan.secure else None
    examples = own_examples(NAMES.index(CLIENT))
    return Participant(CLIENT, plan, examples, ClientStore(folder / "state"), gate, membership=membership)


def serve(pipe: Connection, folder: Path, plan: FederationPlan, at: int) -> None:
    """Answer messages until the pipe closes, or death."""
    torch.set_num_threads(1)
    deadline = Deadline(at)
    participant = participant_in(folder, plan)
    deadline.watch()
    while True:
        try:
            asked = pipe.recv()
        except EOFError:
            return
        if asked is None:
            pipe.send(deadline.passed)
            continue
        reply = encode(participant.answer(decode(asked)))  # type: ignore[arg-type]
        deadline.point()
        pipe.send((reply.header, reply.body, reply.vector))
        deadline.point()


class Owner:
    """The other end: sends messages to the process, and starts a new one when it died.

    Args:
        folder: The owner's, which outlives its processes.
        plan: Of the run.
        at: Where the first process dies.

    Attributes:
        deaths: How many processes died.
        left: All replies that left, oldest first.
    """

    def __init__(self, folder: Path, plan: FederationPlan, at: int) -> None:
        self._folder, self._plan = folder, plan
        self.deaths = 0
        self.left: list[Message] = []
        self._start(at)

    def _start(self, at: int) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        forkserver.ensure_running()
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self._folder, self._plan, at), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, message: Message) -> Message | None:
        """The answer, or None where the process died over it; the next one is then ready."""
        parts = encode(message)
        try:
            self._pipe.send(Parts(parts.header, parts.body, parts.vector))
            reply = decode(Parts(*self._pipe.recv()))
        except (EOFError, OSError):
            self._process.join()
            assert self._process.exitcode == -signal.SIGKILL
            self.deaths += 1
            self._start(0)
            return None
        self.left.append(reply)
        return reply

    def points(self) -> int:
        """How many points the living process has passed."""
        self._pipe.send(None)
        return int(self._pipe.recv())

    def stop(self) -> None:
        """End the process; one that died after its last reply counts as dead too."""
        self._pipe.close()
        self._process.join()
        self.deaths += self._process.exitcode == -signal.SIGKILL
