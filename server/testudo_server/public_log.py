"""The server's log in front of its witnesses: add to it, sign it, show it, and take what they decide.

Everything that is added is replayed by the owners' own rules first, so that a fault of the server stops the server. A
checkpoint is signed only over what the disk has. What is added when is log_journal.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from testudo_common.audit.checkpoints import Checkpoint, cosigners_of, watch_of
from testudo_common.audit.entries import AnyEntry, OwnerWithdrawn, PlanApproved, encode_entry
from testudo_common.audit.extension import Decision
from testudo_common.audit.history import History, begin_history, extend
from testudo_common.audit.log import AuditLog
from testudo_common.audit.notes import Note, Signer, parse_note
from testudo_common.audit.statements import Approval
from testudo_server.exchange import Transport
from testudo_server.roster import ServerKeys
from testudo_server.witnesses import Enough, Showing, Witnesses

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The clock that entries and checkpoints are dated by."""
    return datetime.now(UTC)


def entry_time(now: datetime) -> str:
    """A moment as entries have it."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Shown:
    """A checkpoint that was shown.

    Attributes:
        showing: Its note has the cosignatures that came.
        cosigners: Client ids.
    """

    showing: Showing
    cosigners: frozenset[str]


class PublicLog:
    """A log that its witnesses see.

    Args:
        keys: Of the federation, with the log's.
        log: Empty, or as it was left.
        plan_digest: Of the log's plan, hex.
        transport: To the clients.
        clients: Those that are there.
        deadline_seconds: How long cosignatures are waited for.
        now: The clock.

    Attributes:
        history: Of all entries.
        witnesses: Those of the clients that are on the roster.
        faults: Client id -> why it did not cosign, or its decision was refused, when it was last asked.

    Raises:
        AuditError: The roster names no key of a log, or the log breaks a rule.
    """

    def __init__(
        self,
        keys: ServerKeys,
        log: AuditLog,
        plan_digest: str,
        transport: Transport,
        clients: Iterable[str],
        *,
        deadline_seconds: float,
        now: Clock = utc_now,
    ) -> None:
        self._log, self._deadline_seconds, self._now = log, deadline_seconds, now
        self._watch = watch_of(keys.roster, plan_digest)
        self._signer = Signer(self._watch.log.name, keys.log_key)
        self.history: History = extend(begin_history(keys.federation_key, plan_digest), tuple(log.entries()))
        there = [client for client in clients if client in self._watch.witnesses]
        self.witnesses = Witnesses(transport, there, log, plan_digest)
        self.faults: Mapping[str, str] = {}
        self._cosigned = self._last_with_a_quorum()

    @property
    def size(self) -> int:
        """Entries."""
        return self._log.size

    @property
    def quorum(self) -> int:
        """k, witnesses that have to cosign."""
        assert self.history.quorum is not None  # the second entry says who is enrolled
        return self.history.quorum

    def time(self) -> str:
        """Now, as entries have it."""
        return entry_time(self._now())

    def append(self, *entries: AnyEntry) -> int:
        """Add entries in one transaction; the disk has them on return.

        Returns:
            The index of the first.

        Raises:
            AuditError: They break a rule of the log, or it cannot be written. Nothing was added.
        """
        if not entries:
            return self.size
        with self.witnesses.timed():
            data = tuple(encode_entry(entry) for entry in entries)
            grown = extend(self.history, data)
            first = self._log.append(data)
            self.history = grown
        return first

    def publish(
        self,
        round_number: int = 0,
        attempt: int = 0,
        *,
        to: Iterable[str] | None = None,
        deadline_seconds: float | None = None,
        enough: Enough | None = None,
    ) -> Shown:
        """Sign a checkpoint, show it, keep it with its cosignatures, and log what owners decided.

        Args:
            round_number: That is about to begin or is under way; 0: none is.
            attempt: 0 and up.
            to: Client ids; None: all.
            deadline_seconds: Where it is not the usual one.
            enough: See :meth:`Witnesses.show`.

        Raises:
            AuditError: The log cannot be written.
        """
        showing = self._signed(round_number, attempt)
        deadline = deadline_seconds or self._deadline_seconds
        answers = self.witnesses.show(showing, self._watch, to=to, deadline_seconds=deadline, enough=enough)
        with self.witnesses.timed():
            lines = [answers.cosignatures[client] for client in sorted(answers.cosignatures)]
            note = showing.note.with_signatures(lines)
            self._log.keep_note(note.encode())
        settled = {client: why for client, why in self.faults.items() if client not in answers.cosignatures}
        self.faults = {**settled, **answers.faults, **answers.refused}
        self._decide(answers.decisions)
        return Shown(replace(showing, note=note), frozenset(answers.cosignatures))

    def meet(self, clients: Iterable[str]) -> None:
        """Show the log to those on the roster that it was never shown to; they are witnesses from here on.

        Raises:
            AuditError: The log cannot be written.
        """
        known = self.witnesses.clients
        new = [client for client in clients if client in self._watch.witnesses and client not in known]
        if new:
            self.witnesses.add(new)
            self.publish(to=sorted(new))

    def act_on(self, shown: Shown) -> bytes:
        """The note that shows owners that enough of them have seen the log; later messages carry it too.

        Of more than k cosignatures it holds k: nobody acts on fewer or needs more, and all of them are kept here.
        """
        log, *lines = shown.showing.note.signatures
        self._cosigned = Note(shown.showing.note.text, (log, *lines[: self.quorum])).encode()
        return self._cosigned

    def hand_out(self, shown: Shown) -> None:
        """Show a checkpoint again to whoever cosigned it, with the note of :meth:`act_on`: it gets its receipts."""
        showing = replace(shown.showing, note=Note(shown.showing.note.text, shown.showing.note.signatures[:1]))
        self.witnesses.show(
            replace(showing, cosigned=self.act_on(shown)),
            self._watch,
            to=shown.cosigners,
            deadline_seconds=self._deadline_seconds,
        )

    def _signed(self, round_number: int, attempt: int) -> Showing:
        """A checkpoint over all entries, which the disk has."""
        with self.witnesses.timed():
            checkpoint = Checkpoint(self._watch.origin, self.history.size, self.history.root)
            signature = self._signer.sign(checkpoint.text(), int(self._now().timestamp()))
        return Showing(Note(checkpoint.text(), (signature,)), checkpoint, round_number, attempt, self._cosigned)

    def _decide(self, decisions: Iterable[Decision]) -> None:
        """Log what owners decided, but for what was decided before something that is logged already."""
        entries: list[AnyEntry] = []
        outdated: dict[str, str] = {}
        for decision in decisions:
            client = decision.client
            if decision.number <= self.history.decisions.get(client, -1):
                outdated[client] = "its decision is older than one that the log holds"
            elif isinstance(decision, Approval):
                entries.append(PlanApproved(time=self.time(), statement=decision))
            else:
                rounds = self.history.survived.get(client, ())
                entries.append(OwnerWithdrawn(time=self.time(), statement=decision, rounds=rounds))
        self.faults = {**self.faults, **outdated}
        self.append(*entries)

    def _last_with_a_quorum(self) -> bytes:
        """The newest kept note that a quorum cosigned; empty for none."""
        for data in reversed(list(self._log.notes())):
            if self.history.quorum and len(cosigners_of(parse_note(data), self._watch)) >= self.history.quorum:
                return data
        return b""
