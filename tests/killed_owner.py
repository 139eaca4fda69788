"""A data owner in a process of its own that is killed, with SIGKILL, at a chosen write or send. No tests in here.

A point to die at, beside those of deadlines.py, is each reply that is about to leave, or has just left.
"""

from __future__ import annotations

import signal
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from deadlines import Deadline
from secure_federation import NAMES, keys_of, own_examples
from testudo_client.gate import Gate
from testudo_client.ledger import open_ledger
from testudo_client.participant import Participant
from testudo_client.store import ClientStore
from testudo_common.plan import FederationPlan
from testudo_common.wire import Message, Parts, decode, encode
from testudo_simulations.consent import SimulatedConsent

CLIENT = "ada"
_PRELOADED = [
    "__main__",
    "testudo_client.participant",
    "testudo_common.flower_records",  # Flower, which takes longer to import than the rest together
    "testudo_server.secure_exchange",
    "testudo_simulations.consent",
    "testudo_simulations.keys",
    "opacus",
]


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
