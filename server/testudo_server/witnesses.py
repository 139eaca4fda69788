"""The owners as witnesses: they are sent what is new in the log, and what they answer is verified. Writes no log.

Each is sent the entries from where its mirror ends, as far as is known, and says so itself where that was wrong. What
one of them answers costs nobody else anything: a false cosignature, a forged statement or a wrong size sets it aside.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from testudo_common.audit.checkpoints import Checkpoint, Watch
from testudo_common.audit.extension import Decision, decode_testimony, encode_extension
from testudo_common.audit.log import AuditLog
from testudo_common.audit.notes import Note, NoteSignature, parse_line
from testudo_common.audit.statements import verify_statement
from testudo_common.errors import AuditError
from testudo_common.wire import LogUpdate, Message, Refusal, Witnessed, encode
from testudo_server.exchange import NO_REPLY, REFUSED, Transport

Enough = Callable[[frozenset[str], frozenset[str]], bool]
"""Of those who answered for good, and those of them who cosigned: whether to wait no longer."""
MOST_ASKED = 3
"""Messages to one witness about one checkpoint, at most: one, and two with what it says that it needs."""


@dataclass(frozen=True, slots=True)
class Showing:
    """A checkpoint to be shown.

    Attributes:
        note: Signed by the log.
        checkpoint: What it says.
        round: That is about to begin or is under way; 0: none is.
        attempt: 0 and up.
        cosigned: An earlier note that enough witnesses have cosigned; empty: none.
    """

    note: Note
    checkpoint: Checkpoint
    round: int = 0
    attempt: int = 0
    cosigned: bytes = b""


@dataclass(frozen=True, slots=True)
class Answers:
    """What witnesses answered.

    Attributes:
        cosignatures: Client id -> its line under the note, verified.
        faults: Client id of whoever did not cosign -> why, in words.
        decisions: What owners decided, at most one each, signed by whom they name.
        refused: Client id -> why its decision is none, in words.
    """

    cosignatures: Mapping[str, NoteSignature]
    faults: Mapping[str, str]
    decisions: tuple[Decision, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)


class Witnesses:
    """The witnesses of one log that can be reached.

    Args:
        transport: To them.
        clients: Client ids; the same as those on the roster that are there.
        log: Read only.
        plan_digest: Of the log's plan, hex.

    Attributes:
        plan_digest: As given.
        bytes_down: Payload bytes sent so far.
        bytes_up: Payload bytes received so far.
        cpu_seconds: Of encoding and verifying, so far.
    """

    def __init__(self, transport: Transport, clients: Iterable[str], log: AuditLog, plan_digest: str) -> None:
        self._transport, self._log, self.plan_digest = transport, log, plan_digest
        # Whoever was there before a server was started again has about all there was; whoever has not says so.
        self._sizes = dict.fromkeys(sorted(clients), log.size)
        self.bytes_down = self.bytes_up = 0
        self.cpu_seconds = 0.0

    @property
    def clients(self) -> tuple[str, ...]:
        """Client ids, sorted."""
        return tuple(self._sizes)

    def add(self, clients: Iterable[str]) -> None:
        """These can be reached too."""
        self._sizes = dict(sorted({**self._sizes, **dict.fromkeys(clients, self._log.size)}.items()))

    def show(
        self,
        showing: Showing,
        watch: Watch,
        *,
        to: Iterable[str] | None = None,
        deadline_seconds: float,
        enough: Enough | None = None,
    ) -> Answers:
        """Send what is new, and collect the answers.

        Args:
            showing: Over all entries that the log holds.
            watch: Whose signatures count.
            to: Client ids; None: all.
            deadline_seconds: For each of up to :data:`MOST_ASKED` messages to one witness.
            enough: When to wait no longer; None: when all have answered.
        """
        asked = _Asked(self, showing, watch, self._sizes if to is None else [one for one in to if one in self._sizes])

        def is_enough() -> bool:
            return enough is not None and enough(asked.answered, frozenset(asked.cosignatures))

        requests = asked.requests()
        while requests:
            for client, reply in self._transport.deliver(requests, deadline_seconds=deadline_seconds, enough=is_enough):
                asked.take(client, reply)
            asked.nothing_more_comes()
            requests = {} if is_enough() else asked.requests()
        return asked.answers()

    def update(self, showing: Showing, first: int) -> LogUpdate:
        """The message with all entries from ``first`` on."""
        body = encode_extension(self._log.entries(first), showing.note.encode(), showing.cosigned)
        return LogUpdate(self.plan_digest, showing.round, showing.attempt, first, body)

    def size_of(self, client: str) -> int:
        """Entries that a client is known to have."""
        return self._sizes[client]

    def learn(self, client: str, size: int) -> None:
        """A client has so many entries."""
        self._sizes[client] = size

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the CPU time of a block; never with a transport in it, which in a simulation is the clients'."""
        started = time.process_time()
        try:
            yield
        finally:
            self.cpu_seconds += time.process_time() - started


class _Asked:
    """One checkpoint's conversation with the witnesses."""

    def __init__(self, witnesses: Witnesses, showing: Showing, watch: Watch, clients: Iterable[str]) -> None:
        self._witnesses, self._showing, self._watch = witnesses, showing, watch
        self._due = list(clients)
        self._times = dict.fromkeys(self._due, 0)
        self._waiting: dict[str, int] = {}
        self.cosignatures: dict[str, NoteSignature] = {}
        self._decisions: dict[str, Decision] = {}
        self._refused: dict[str, str] = {}
        self._faults: dict[str, str] = {}

    @property
    def answered(self) -> frozenset[str]:
        """Who has cosigned, or will not."""
        return frozenset(self.cosignatures) | frozenset(self._faults)

    def answers(self) -> Answers:
        """What came of it; whoever is still waited for has not answered in time."""
        late = dict.fromkeys([*self._waiting, *self._due], NO_REPLY)
        decisions = tuple(self._decisions[client] for client in sorted(self._decisions))
        return Answers(self.cosignatures, {**late, **self._faults}, decisions, self._refused)

    def requests(self) -> dict[str, Message]:
        """To whoever has to be sent something: to each the entries that it lacks."""
        made: dict[int, LogUpdate] = {}
        with self._witnesses.timed():
            self._waiting = {client: self._witnesses.size_of(client) for client in self._due}
            for first in self._waiting.values():
                if first not in made:
                    made[first] = self._witnesses.update(self._showing, first)
            sizes = {first: encode(update).size_bytes for first, update in made.items()}
        self._due = []
        for client, first in self._waiting.items():
            self._times[client] += 1
            self._witnesses.bytes_down += sizes[first]
        return {client: made[first] for client, first in self._waiting.items()}

    def take(self, client: str, reply: Message | str) -> None:
        """One answer; a second one of the same client is not looked at."""
        first = self._waiting.pop(client, None)
        if first is None:
            return
        with self._witnesses.timed():
            if not isinstance(reply, str):
                self._witnesses.bytes_up += encode(reply).size_bytes
            fault = self._fault_of(client, first, reply)
        if fault is not None:
            self._faults[client] = fault

    def nothing_more_comes(self) -> None:
        """Whoever has not answered will not."""
        self._faults.update(dict.fromkeys(self._waiting, NO_REPLY))
        self._waiting = {}

    def _fault_of(self, client: str, first: int, reply: Message | str) -> str | None:
        """Why an answer is no cosignature, in words; None if it is one, or asks for more entries."""
        match reply:
            case str():
                return reply
            case Refusal(reason=reason):
                return f"{REFUSED}: {reason.value}"
            case Witnessed():
                pass
            case _:
                return "not the answer of a witness"
        about = self._witnesses.plan_digest, self._showing.round, self._showing.attempt
        if (reply.plan_digest, reply.round, reply.attempt) != about:
            return "answered another checkpoint"
        return self._needs(client, first, reply.size) if not reply.body else self._testifies(client, reply)

    def _needs(self, client: str, first: int, size: int) -> str | None:
        """It has another number of entries than was thought; it is sent the others, but not for ever."""
        if size > self._showing.checkpoint.size:
            return f"its mirror holds {size} entries, and the log {self._showing.checkpoint.size}"
        if size == first or self._times[client] >= MOST_ASKED:
            return "it asked for entries that it was sent"
        self._witnesses.learn(client, size)
        self._due.append(client)
        return None

    def _testifies(self, client: str, reply: Witnessed) -> str | None:
        if reply.size != self._showing.checkpoint.size:
            return "its mirror does not hold what it was sent"
        try:
            testimony = decode_testimony(reply.body)
        except AuditError as error:
            return error.problem
        if testimony.statements:
            self._decides(client, max(testimony.statements, key=_number))
        return self._cosigns(client, testimony.cosignature)

    def _cosigns(self, client: str, cosignature: str) -> str | None:
        key = self._watch.witnesses[client]
        try:
            line = parse_line(cosignature)
            if not line.is_by(key):
                return "its cosignature is another's"
            line.verify(key, self._showing.note.text)
        except AuditError as error:
            return error.problem if cosignature else "it does not cosign"
        self._witnesses.learn(client, self._showing.checkpoint.size)
        self.cosignatures[client] = line
        return None

    def _decides(self, client: str, decision: Decision) -> None:
        """Of several decisions only the one that counts is taken, so that nobody can fill the log with them."""
        if decision.client != client:
            self._refused[client] = "it sent another's decision"
            return
        try:
            verify_statement(decision, self._watch.witnesses[client].raw, self._witnesses.plan_digest)
        except AuditError as error:
            self._refused[client] = error.problem
            return
        self._decisions[client] = decision


def _number(decision: Decision) -> int:
    return decision.number
