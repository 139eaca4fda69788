"""A server that lies: the real one, with the log's key, its own rules out of the way, and one lie to tell. No tests.

    lie = Rewrites()                       # of lies.py
    outcome = run_under(lie, plan_for(lie, secure=True), tmp_path, monkeypatch)
    outcome.error, outcome.refusals, outcome.trained

Everything that the real server would refuse to write or to send, this one writes and sends: it signs whatever its log
holds, needs no quorum, and asks whom it likes. Its clients are the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from audit_cases import rules_in
from testudo_client.app import build_client_app
from testudo_client.gate import Gate
from testudo_client.participant import Participant
from testudo_common.audit import closing_rules, round_rules
from testudo_common.audit import history as history_module
from testudo_common.audit.entries import (
    AnyEntry,
    decode_entry,
    encode_entry,
)
from testudo_common.audit.history import begin_history, extend
from testudo_common.audit.log import AuditLog
from testudo_common.audit.merkle import Frontier
from testudo_common.errors import RoundError
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import parse_plan
from testudo_common.wire import Message, RefusalReason, SecureMessage, TrainReply, TrainRequest
from testudo_server import app as server_app
from testudo_server import log_journal
from testudo_server.app import GridTransport, run_federation
from testudo_server.log_journal import LogJournal
from testudo_server.public_log import PublicLog, Shown
from testudo_server.store import RunState, RunStore
from testudo_simulations.federations import load_federation
from testudo_simulations.grid import InProcessGrid
from testudo_simulations.keys import SimulatedKeys
from testudo_simulations.owners import Owners

OWNERS = 8
QUORUM = 6
_WAVES: dict[str, Any] = {
    "name": "waves",
    "data": {"federation": "sine", "clients": OWNERS, "unseen_clients": 1},
    "task": {"kind": "regression"},
    "model": {"name": "mlp", "hidden": [4]},
    "inner": {"steps": 2, "learning_rate": 0.05},
    "rounds": {"count": 3, "cohort_size": OWNERS, "min_replies": OWNERS},
    "evaluation": {"shots": [5], "steps": 1},
}
_SECURE = ("secure_aggregation.group_size=4", "secure_aggregation.min_group=3")
_PLAIN = ('secure_aggregation.mode="plain"',)


def plan_for(lie: Lie, *, secure: bool) -> FederationPlan:
    """Eight owners, all of whom are asked in each of three rounds."""
    settings = (*(_SECURE if secure else _PLAIN), *lie.settings)
    return load_federation(parse_plan(_WAVES, source="a test", settings=settings), None).plan


class Lie:
    """What one server does wrong; by itself, nothing.

    Attributes:
        first: The round in which it is told: nobody may train in it, or later.
        settings: Of the plan, beyond the usual.
        indices: Of the entries that show it, once it was told; of no entry for some lies.
        finders: The owners that can find it out, once it was told; None: all of them.
        others_train: Whether the others cannot know, and train on in that round; in the next one they cannot.
        late: Whether it is told when all have trained for that round already, and nothing has left them.
    """

    first = 2
    settings: tuple[str, ...] = ()
    others_train = False
    late = False

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.finders: set[str] | None = None

    def says(self, log: LyingLog, entry: AnyEntry) -> AnyEntry | None:
        """The entry that is written instead; None: none is."""
        del log
        return entry

    def opens(self, request: TrainRequest) -> TrainRequest:
        """The request for which an attempt is opened."""
        return request

    def before_showing(self, log: LyingLog, round_number: int) -> None:
        """The log is about to be signed and shown."""

    def after_opening(self, log: LyingLog, request: TrainRequest) -> TrainRequest:
        """An attempt was opened and shown; the request to the cohort."""
        del log
        return request

    def to_client(self, client: str, message: Message) -> Message:
        """What is sent to one client instead."""
        del client
        return message

    def from_client(self, client: str, message: Message | str) -> Message | str:
        """What the server takes a client's answer for."""
        del client
        return message

    def on_round(self, owners: Owners, state: RunState) -> None:
        """A round was finished."""


# --- the server


class LyingLog(PublicLog):
    """A public log that holds and shows what the lie wants, and believes it.

    Args:
        lie: To be told.
        given: As for :class:`PublicLog`.
    """

    def __init__(self, lie: Lie, keys: Any, log: AuditLog, plan_digest: str, *given: Any, **more: Any) -> None:
        self.lie, self._given = lie, (keys, plan_digest, given, more)
        self.twin: LyingLog | None = None
        self.twin_shown: Shown | None = None
        super().__init__(keys, log, plan_digest, *given, **more)

    def meet(self, clients: Iterable[str]) -> None:
        """It shows its log to nobody but those that it chose for it."""

    @property
    def entries(self) -> list[bytes]:
        return list(self._log.entries())

    def append(self, *entries: AnyEntry) -> int:
        first = self.size
        for entry in entries:
            said = self.lie.says(self, entry)
            if said is not None:
                self._log.append([encode_entry(said)])
                if self.twin is not None:
                    self.twin._log.append([encode_entry(said)])
                self._believe()
        return first

    def publish(self, round_number: int = 0, attempt: int = 0, **more: Any) -> Shown:
        self.lie.before_showing(self, round_number)
        shown = super().publish(round_number, attempt, **more)
        if self.twin is not None:
            self.twin_shown = self.twin.publish(round_number, attempt, **more)
        return shown

    def tamper(self, entries: Sequence[bytes]) -> None:
        """The log holds these entries now, whatever was shown before."""
        _refill(self._log, entries)
        self._cosigned = b""
        for client in self.witnesses.clients:
            self.witnesses.learn(client, min(self.witnesses.size_of(client), len(entries)))
        self._believe()

    def fork(self, clients: Sequence[str], change: Callable[[AnyEntry], AnyEntry]) -> None:
        """From here on some clients are shown another log, whose last entry is changed."""
        keys, digest, (transport, _), more = self._given
        other = AuditLog(None)
        *before, last = self.entries
        self.twin = LyingLog(Lie(), keys, other, digest, transport, clients, **more)
        other.append([*before, encode_entry(change(decode_entry(last)))])
        self.twin._believe()
        for client in clients:
            self.twin.witnesses.learn(client, self.witnesses.size_of(client))
            del self.witnesses._sizes[client]

    def _believe(self) -> None:
        keys, digest, _, _ = self._given
        with _no_rules():
            self.history = extend.__wrapped__(begin_history(keys.federation_key, digest), tuple(self._log.entries()))
        if self.twin is not None:
            self.twin._believe()


def _refill(log: AuditLog, entries: Sequence[bytes]) -> None:
    rows: Any = log._rows
    rows._entries[:] = entries
    rows._notes.clear()
    rows._sizes.clear()
    log._frontier, log._tree = Frontier(), None


@contextmanager
def _no_rules() -> Iterator[None]:
    def passes(*_args: object) -> None:
        """Finds no fault."""

    with ExitStack() as off:
        for module in (round_rules, closing_rules):
            rules = dict.fromkeys(rules_in(module), passes)
            off.enter_context(mock.patch.multiple(module, **rules))
        off.enter_context(mock.patch.object(history_module, "_apply", passes))
        yield


class LyingJournal(LogJournal):
    """The journal of a server that asks whom it likes, with or without a quorum."""

    def __init__(self, lie: Lie, *given: Any, **more: Any) -> None:
        self._lie = lie
        super().__init__(*given, **more)

    def not_asked(self, clients: object) -> Mapping[str, str]:
        return {}

    def open_round(self, request: TrainRequest, cohort: tuple[str, ...], barred: tuple[str, ...]) -> TrainRequest:
        opened = super().open_round(self._lie.opens(request), cohort, barred)
        assert isinstance(self._log, LyingLog)
        return self._lie.after_opening(self._log, opened)

    def _need_a_quorum(self, round_number: int, seen: frozenset[str]) -> None:
        """Nobody is needed."""


class LyingTransport(GridTransport):
    """Carries what the lie makes of messages, and of answers."""

    def __init__(self, lie: Lie, *given: Any) -> None:
        self._lie = lie
        super().__init__(*given)

    def deliver(self, requests: Mapping[str, Message], **more: Any) -> Iterator[tuple[str, Message | str]]:
        changed = {client: self._lie.to_client(client, message) for client, message in requests.items()}
        for client, reply in super().deliver(changed, **more):
            yield client, self._lie.from_client(client, reply)


# --- a run


@dataclass(frozen=True, slots=True)
class Refused:
    """What an owner reads in its own log."""

    client: str
    round: int
    reason: RefusalReason
    sentence: str


@dataclass(slots=True)
class Outcome:
    """What became of a run.

    Attributes:
        owners: Real ones.
        error: Of the server; None: all rounds were finished.
        refusals: Of the owners, in order.
        trained: (client, round) of every training.
        sent: (client, round) of every update that left, masked or not.
    """

    owners: Owners
    error: RoundError | None = None
    refusals: list[Refused] = field(default_factory=list)
    trained: list[tuple[str, int]] = field(default_factory=list)
    sent: list[tuple[str, int]] = field(default_factory=list)

    def trained_in(self, round_number: int) -> set[str]:
        """Who trained in a round."""
        return {client for client, number in self.trained if number == round_number}

    def sent_in(self, round_number: int) -> set[str]:
        """Whose update left in a round."""
        return {client for client, number in self.sent if number == round_number}


def run_under(lie: Lie, plan: FederationPlan, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """A whole run of the plan under a lying server."""
    federation = load_federation(plan, None)
    keys = SimulatedKeys.of(federation, None)
    outcome = Outcome(Owners(federation, None, keys))
    extend.cache_clear()  # it does not know which rules are on
    monkeypatch.setattr(server_app, "held_log", _held_in_memory)
    monkeypatch.setattr(server_app, "LogJournal", partial(LyingJournal, lie))
    monkeypatch.setattr(server_app, "GridTransport", partial(LyingTransport, lie))
    monkeypatch.setattr(log_journal, "PublicLog", partial(LyingLog, lie))
    _watch(outcome, monkeypatch)
    grid = InProcessGrid(build_client_app(outcome.owners), OWNERS)
    try:
        run_federation(
            grid,
            plan,
            RunStore(folder, durable=False),
            clients=OWNERS,
            keys=lambda: keys.server_keys,
            on_round=lambda state, _record: lie.on_round(outcome.owners, state),
        )
    except RoundError as error:
        outcome.error = error
    finally:
        extend.cache_clear()
    return outcome


@contextmanager
def _held_in_memory(_folder: Path, *, durable: bool) -> Iterator[AuditLog]:
    del durable
    yield AuditLog(None)


def _watch(outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Note what owners refuse, and when they train."""
    refused, charged, answered = Gate.refused, Gate.charge_training, Participant.answer

    def client_of(gate: Gate) -> str:
        (client,) = (one.client_id for one in outcome.owners._participants.values() if one._gate is gate)
        return client

    def note_refusal(gate: Gate, message: Any, reason: RefusalReason, sentence: str) -> None:
        outcome.refusals.append(Refused(client_of(gate), message.round, reason, sentence))
        refused(gate, message, reason, sentence)

    def note_training(gate: Gate, round_number: int, attempt: int) -> int:
        outcome.trained.append((client_of(gate), round_number))
        return charged(gate, round_number, attempt)

    def note_update(participant: Participant, message: Any) -> Any:
        answer = answered(participant, message)
        if isinstance(answer, TrainReply) or (isinstance(answer, SecureMessage) and answer.masked is not None):
            outcome.sent.append((participant.client_id, answer.round))
        return answer

    monkeypatch.setattr(Participant, "answer", note_update)
    monkeypatch.setattr(Gate, "refused", note_refusal)
    monkeypatch.setattr(Gate, "charge_training", note_training)
