"""A run with a log, over owners that do no more than belongs to one: mirror, replay, cosign, send a signed update.

    run = WatchedRun(audited_plan())
    run.begin(); run.run()
    run.history, run.entries(RoundClosed)

What passes between server and owners can be meddled with. Trains nothing, and imports no torch. No tests in here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from audit_logs import audited_plan
from testudo_common.audit.checkpoints import watch_of, witness_name
from testudo_common.audit.entries import AnyEntry, decode_entry
from testudo_common.audit.extension import Decision, Testimony, decode_extension
from testudo_common.audit.history import History, begin_history, extend
from testudo_common.audit.log import AuditLog
from testudo_common.audit.notes import Signer, parse_note
from testudo_common.audit.statements import Approval, Contribution, Withdrawal, encode_statement, signed
from testudo_common.plan import FederationPlan
from testudo_common.wire import LogUpdate, Message, Parts, TrainReply, TrainRequest, Witnessed, decode, encode
from testudo_server.coordinator import Coordinator
from testudo_server.exchange import Exchange, PlainExchange
from testudo_server.log_journal import LogJournal
from testudo_server.store import RunState, RunStore
from testudo_simulations.keys import SimulatedKeys

Entry = TypeVar("Entry")
Answer = Callable[[], "Message | str"]
Meddling = Callable[[str, Message, Answer], "Message | str | None"]
NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
SIZE = 8
MODEL = np.linspace(-1.0, 1.0, SIZE, dtype=np.float32)
FIVE = tuple(f"owner-{number}" for number in range(5))


def honest(_client: str, _message: Message, answer: Answer) -> Message | str:
    """Change nothing."""
    return answer()


def absent(*names: str) -> Meddling:
    """Nothing is heard of these."""

    def meddle(client: str, message: Message, answer: Answer) -> Message | str | None:
        return None if client in names else answer()

    return meddle


class Watcher:
    """One owner.

    Attributes:
        entries: Its mirror.
        notes: Every note that it was sent.
        wants: What it has decided; it says so until the log holds it.
    """

    def __init__(self, client: str, keys: SimulatedKeys, plan: FederationPlan) -> None:
        self.client, self._plan_digest = client, plan.digest
        self._membership = keys.membership_of(client)
        self._history = begin_history(keys.server_keys.federation_key, plan.digest)
        self._watch = watch_of(keys.roster, plan.digest)
        self.entries: list[bytes] = []
        self.notes: list[bytes] = []
        self.wants: type[Approval] | type[Withdrawal] | None = Approval

    @property
    def signer(self) -> Signer:
        """Its key as a witness."""
        return Signer(witness_name(self.client), self._membership.key, cosigner=True)

    def answer(self, message: Message) -> Message:
        """To what is new in the log, or to a request to train."""
        if isinstance(message, LogUpdate):
            return self.observe(message)
        assert isinstance(message, TrainRequest)
        self.notes.append(message.body)
        update = np.full(len(message.model), 0.25, dtype=np.float32)
        named = message.plan_digest, message.round, message.attempt, message.model_digest
        return TrainReply(*named, update, encode_statement(self.contribution(message.round, message.attempt)))

    def observe(self, update: LogUpdate) -> Witnessed:
        """Cosign what extends its mirror, and say what it decided."""
        if update.first > len(self.entries):
            return self.witnessed(update, b"", size=len(self.entries))
        found = decode_extension(update.body)
        known = len(self.entries) - update.first
        assert list(found.entries[:known]) == self.entries[update.first :], "the log was rewritten"
        fresh = found.entries[known:]
        self._history = extend(self._history, fresh) if fresh else self._history
        self.entries += fresh
        note = parse_note(found.note)
        assert note.signed_by(self._watch.log)
        assert note.text.split("\n")[1] == str(len(self.entries))
        self.notes += [found.note, *([found.cosigned] if found.cosigned else [])]
        shown = self._history.approved if self.wants is Approval else self._history.withdrawn
        decisions = (self.decide(self.wants),) if self.wants and self.client not in shown else ()
        line = self.signer.sign(note.text, int(NOON.timestamp())).line()
        return self.witnessed(update, Testimony(cosignature=line, statements=decisions).encode())

    def witnessed(self, update: LogUpdate, body: bytes, size: int | None = None) -> Witnessed:
        """Its answer in bytes."""
        size = len(self.entries) if size is None else size
        return Witnessed(update.plan_digest, update.round, update.attempt, size, body)

    def decide(self, kind: type[Approval] | type[Withdrawal], number: int | None = None) -> Decision:
        """A decision, signed."""
        number = self._history.decisions.get(self.client, -1) + 1 if number is None else number
        return signed(kind(client=self.client, number=number), self._membership.key, self._plan_digest)

    def contribution(self, round_number: int, attempt: int, **said: Any) -> Contribution:
        """What it signs for an update."""
        fields = {"client": self.client, "commitment": "ab" * 32, "ledger": f"{round_number:064x}", **said}
        statement = Contribution(round=round_number, attempt=attempt, **fields)
        return signed(statement, self._membership.key, self._plan_digest)


class Owners:
    """A transport to watchers, on which each message passes as bytes.

    Attributes:
        watchers: Client id -> owner.
        log: (client, message, reply) of all that passed.
        deadlines: Of each delivery, in seconds.
        late: Client ids whose replies arrive after all others.
    """

    def __init__(self, watchers: Mapping[str, Watcher], meddle: Meddling = honest) -> None:
        self.watchers, self.meddle = dict(watchers), meddle
        self.log: list[tuple[str, Message, Message | str | None]] = []
        self.deadlines: list[float] = []
        self.late: frozenset[str] = frozenset()

    def deliver(
        self, requests: Mapping[str, Message], *, deadline_seconds: float, enough: Callable[[], bool] | None = None
    ) -> Iterator[tuple[str, Message | str]]:
        self.deadlines.append(deadline_seconds)
        replies = {client: self._reply(client, message) for client, message in requests.items()}
        for client in sorted(replies, key=lambda client: client in self.late):
            if client in self.late and enough is not None and enough():
                return
            reply = replies[client]
            if reply is not None:
                yield client, reply

    def _reply(self, client: str, message: Message) -> Message | str | None:
        reply = self.meddle(client, message, lambda: self.watchers[client].answer(carried(message)))
        self.log.append((client, message, reply))
        return carried(reply) if isinstance(reply, Message) else reply

    def sent(self, kind: type[Entry]) -> list[tuple[str, Entry]]:
        """(client, message) of all messages of a kind that were sent."""
        return [(client, message) for client, message, _ in self.log if isinstance(message, kind)]


def carried(message: Message) -> Message:
    """The message as it arrives: other memory, the same bytes."""
    parts = encode(message)
    return decode(Parts(parts.header, parts.body, None if parts.vector is None else parts.vector.copy()))


class WatchedRun:
    """A run of a plan in the open, with its log.

    Args:
        plan: With a log.
        folder: Of the server; the log is in memory.
        clients: Ids of all owners on the roster.
        there: Those that can be reached; None: all.
        meddle: With what passes.
        exchange_of: Makes another exchange than the plain one.
        federation: Its name.
    """

    def __init__(
        self,
        folder: Path,
        plan: FederationPlan | None = None,
        *,
        clients: Iterable[str] = FIVE,
        there: Iterable[str] | None = None,
        meddle: Meddling = honest,
        exchange_of: Callable[[Owners], Exchange] | None = None,
        federation: str = "shops",
    ) -> None:
        self.plan = audited_plan() if plan is None else plan
        self.clients = tuple(clients)
        self.keys = SimulatedKeys(federation, self.clients, b"k" * 32)
        self.owners = Owners({client: Watcher(client, self.keys, self.plan) for client in self.clients}, meddle)
        self.there = self.clients if there is None else tuple(there)
        self.store = RunStore(folder, durable=False)
        self._exchange_of = exchange_of or self._plain
        self.log = AuditLog(None)
        self.start()

    def start(self) -> None:
        """A server that has just been started, on what is kept."""
        self.journal = LogJournal(self.plan, self.keys.server_keys, self.log, self.owners, self.there, now=lambda: NOON)
        exchange = self._exchange_of(self.owners)
        self.coordinator = Coordinator(self.plan, exchange, self.store, journal=self.journal)

    def _plain(self, owners: Owners) -> Exchange:
        return PlainExchange(owners, deadline_seconds=5.0, max_norm=self.plan.outer.max_update_norm)

    def begin(self) -> RunState:
        """The state before the first round."""
        return self.coordinator.begin(MODEL, self.there)

    def resume(self) -> RunState:
        """The state that a server goes on from that has just been started."""
        self.start()
        return self.coordinator.resume(self.there)

    def run(self) -> RunState:
        """From the beginning to the end."""
        return self.coordinator.run(self.begin())

    def go_on(self) -> RunState:
        """The same, to the end."""
        state = self.resume()
        return self.coordinator.run(state)

    @property
    def all_entries(self) -> list[AnyEntry]:
        """What the log says."""
        return [decode_entry(entry) for entry in self.log.entries()]

    @property
    def history(self) -> History:
        """The whole log, replayed."""
        return extend(begin_history(self.keys.server_keys.federation_key, self.plan.digest), tuple(self.log.entries()))

    def entries(self, kind: type[Entry]) -> list[Entry]:
        """The entries of a kind."""
        return [entry for entry in self.all_entries if isinstance(entry, kind)]

    @property
    def types(self) -> list[str]:
        """What kind each entry is of."""
        return [entry.type for entry in self.all_entries]
