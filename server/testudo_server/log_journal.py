"""What a run writes into its audit log, and when: nothing goes on before the disk has it and the owners have seen it.

====================================  =================================================  ============================
what happens                          what is written                                    who has to have seen it first
====================================  =================================================  ============================
the run begins, or is resumed         charter and enrolment, or incident                 a quorum, before any round
an owner comes later                  -                                                  itself, before it is asked
an owner answers                      its approval or withdrawal                         -
an attempt at a round is to begin     round_opened                                       a quorum, before training
the coin has drawn the groups         groups_drawn                                       the members, before masking
updates have arrived                  update_received of each                            -
an attempt brought in too little      updates_rejected                                   -
the run has kept the round            updates_rejected, round_closed, evaluation         -
a round fails                         incident                                           -
====================================  =================================================  ============================

The rounds themselves are coordinator.py's, and the log in front of its witnesses is public_log.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from testudo_common.audit.entries import AnyEntry, GroupsDrawn, Incident, IncidentKind, RoundOpened, UpdateReceived
from testudo_common.audit.log import AuditLog
from testudo_common.audit.statements import Contribution, parse_statement, verify_statement
from testudo_common.errors import AuditError, AuditFault, CheckpointError, RoundError
from testudo_common.plan import FederationPlan
from testudo_common.wire import TrainRequest
from testudo_server.charter import charter_of, code_digest, enrolment_of
from testudo_server.closing import closing, lacking, rejection
from testudo_server.exchange import NO_LOG, Collected, RoundLog, Transport
from testudo_server.public_log import Clock, PublicLog, utc_now
from testudo_server.roster import ServerKeys
from testudo_server.store import LoggedRound, RoundRecord, RunState

_NAMED_IN_AN_ERROR = 5


class LogJournal:
    """The journal of a plan with a log; see :class:`testudo_server.journal.Journal`.

    Args:
        plan: Complete.
        keys: Of the federation, with the log's.
        log: The run's; empty, or as it was left.
        transport: To the clients.
        clients: Those that are there.
        bundle: SHA-256 of the Flower app bundle, hex, where it is known.
        now: The clock.

    Raises:
        AuditError: The roster names no key of a log, or the log there breaks a rule.
    """

    tells_attempts_apart = True

    def __init__(
        self,
        plan: FederationPlan,
        keys: ServerKeys,
        log: AuditLog,
        transport: Transport,
        clients: Iterable[str],
        *,
        bundle: str | None = None,
        now: Clock = utc_now,
    ) -> None:
        self._plan, self._plan_digest, self._keys, self._bundle = plan, plan.digest, keys, bundle
        deadline = plan.audit.deadline_seconds
        self._log = PublicLog(keys, log, self._plan_digest, transport, clients, deadline_seconds=deadline, now=now)
        self._attempt: _OpenAttempt | None = None
        self._last_cosigned: dict[str, int] = {}
        self._told = 0, 0, 0.0

    @property
    def round_log(self) -> RoundLog:
        """Of the open attempt."""
        return self._attempt or NO_LOG

    # The run.

    def prepare(self) -> None:
        """Return only if the log is empty.

        Raises:
            CheckpointError: It is not.
        """
        if self._log.size:
            raise CheckpointError(
                f"there is an audit log here already, of {self._log.size} entries, and no run that goes with it",
                where="audit.db",
                remedy="restore the run's checkpoint and go on with it, or choose another folder",
            )

    def begin(self) -> None:
        """Charter and enrolment; everybody is shown them, and approves the plan or not.

        Raises:
            RoundError: Too few cosigned.
            AuditError: The log cannot be written.
        """
        time = self._log.time()
        charter = charter_of(self._plan, self._keys.roster, time, self._bundle)
        self._log.append(charter, enrolment_of(self._keys.signed_roster, time))
        self._show_before(1)

    def resume(self, state: RunState, records: Sequence[RoundRecord]) -> None:
        """What the log lacks, a changed roster, and that the run was resumed; everybody is shown it.

        Raises:
            CheckpointError: Log and checkpoint are not of one moment.
            RoundError: Too few cosigned.
            AuditError: The log cannot be written, or its entries break a rule.
        """
        if not self._log.size and not state.round:
            self.begin()
            return
        scored = self._plan.evaluates_in(state.round)
        self._catch_up(lacking(self._log.history, state, records, scored, self._log.time()), state.round)
        charter, known = self._log.history.charter, self._log.history.roster
        assert charter is not None
        if known is None or known.digest != self._keys.roster.digest:
            self._log.append(enrolment_of(self._keys.signed_roster, self._log.time()))
        other = "" if charter.code == code_digest() else f"with other code than the charter's: {code_digest()}"
        self._incident(IncidentKind.RESUMED, state.round, other)
        self._show_before(state.round + 1)

    def end(self) -> None:
        """Everybody gets the last entries, and then their last checkpoint with its cosignatures.

        Raises:
            AuditError: The log cannot be written.
        """
        shown = self._log.publish()
        if len(shown.cosigners) >= self._log.quorum:
            self._log.hand_out(shown)

    # Rounds.

    def meet(self, clients: Iterable[str]) -> None:
        """Show the log to whoever is there for the first time, so that its decision counts before a cohort is drawn.

        Raises:
            AuditError: The log cannot be written.
        """
        self._log.meet(clients)

    def not_asked(self, clients: Iterable[str]) -> Mapping[str, str]:
        """Whoever has not approved the plan in the log, or has withdrawn -> why, in words."""
        history = self._log.history
        return {client: self._why_not_asked(client) for client in clients if client not in history.approved}

    def asked(self, participations: Mapping[str, int]) -> Mapping[str, int]:
        """Whoever was in an attempt that came to nothing, and then not in the round, was asked as well."""
        history = self._log.history
        return {
            client: max(count, history.asked.get(client, 0) - (client in history.in_round))
            for client, count in participations.items()
        }

    def open_round(self, request: TrainRequest, cohort: tuple[str, ...], barred: tuple[str, ...]) -> TrainRequest:
        """Open an attempt, and wait until a quorum of owners has seen that it was.

        Raises:
            RoundError: Too few cosigned.
            AuditError: The log cannot be written.
        """
        opened = RoundOpened(
            time=self._log.time(),
            round=request.round,
            attempt=request.attempt,
            model_digest=request.model_digest,
            cohort=cohort,
            barred=barred,
            clip=request.clip,
        )
        self._attempt = _OpenAttempt(self, opened, self._log.append(opened))
        counted = self._cosigned_before(request.round)
        awaited = frozenset(cohort).intersection(self._log.witnesses.clients)

        def enough(answered: frozenset[str], cosigners: frozenset[str]) -> bool:
            return awaited <= answered and len(cosigners | counted) >= self._log.quorum

        shown = self._log.publish(request.round, request.attempt, enough=enough)
        self._attempt.cosigners = len(shown.cosigners)
        self._need_a_quorum(request.round, counted | shown.cosigners)
        self._last_cosigned.update(dict.fromkeys(shown.cosigners, request.round))
        return replace(request, body=self._log.act_on(shown))

    def give_up_attempt(self, collected: Collected) -> None:
        """Say without whose updates an attempt went that did not bring in enough.

        Raises:
            AuditError: The log cannot be written.
        """
        assert self._attempt is not None
        opened = self._attempt.opened
        self._log.append(*rejection(opened, collected.excluded, collected.records, self._log.time()))

    def described(self, record: RoundRecord) -> RoundRecord:
        """The record with what the log has cost since the one before, and where the round is in it."""
        assert self._attempt is not None
        witnesses, before = self._log.witnesses, self._told
        self._told = witnesses.bytes_down, witnesses.bytes_up, witnesses.cpu_seconds
        rejected = rejection(self._attempt.opened, record.excluded, record.groups, self._log.time())
        logged = LoggedRound(
            opened=self._attempt.index,
            closed=self._log.size + len(rejected),
            cosigners=self._attempt.cosigners,
            bytes_down=self._told[0] - before[0],
            bytes_up=self._told[1] - before[1],
            cpu_seconds=self._told[2] - before[2],
        )
        return replace(record, log=logged)

    def close_round(self, record: RoundRecord) -> None:
        """Close the open round, as its record says.

        Raises:
            AuditError: The log cannot be written.
        """
        scored = self._plan.evaluates_in(record.round)
        self._log.append(*closing(self._log.history, record, scored, self._log.time()))
        self._attempt = None

    def failed(self, round_number: int) -> None:
        """Write down that a round failed.

        Raises:
            AuditError: The log cannot be written.
        """
        self._incident(IncidentKind.ROUND_FAILED, round_number)

    # What the exchange of an open attempt writes.

    def draw_groups(self, opened: RoundOpened, coin: bytes, groups: tuple[tuple[str, ...], ...]) -> None:
        """Log the groups, and show them to their members."""
        time, number, attempt = self._log.time(), opened.round, opened.attempt
        self._log.append(GroupsDrawn(time=time, round=number, attempt=attempt, coin=coin.hex(), groups=groups))
        members = [client for group in groups for client in group]
        deadline = min(self._plan.audit.deadline_seconds, self._plan.secure_aggregation.step_deadline_seconds)
        self._log.publish(number, attempt, to=members, deadline_seconds=deadline)

    def contribution_in(self, opened: RoundOpened, client: str, statement: str | None) -> Contribution | str:
        """What an owner signed for its update; or, in words, why that is nothing."""
        if statement is None:
            return "it signed nothing for its update"
        try:
            found = parse_statement(statement)
            if not isinstance(found, Contribution) or found.client != client:
                return "what it signed is not about its update"
            if (found.round, found.attempt) != (opened.round, opened.attempt):
                return "what it signed is about another attempt"
            with self._log.witnesses.timed():
                verify_statement(found, self._keys.roster.members[client], self._plan_digest)
        except AuditError as error:
            return error.problem
        return found

    def receive(self, statements: Iterable[Contribution]) -> None:
        """Log contributions, in one transaction."""
        time = self._log.time()
        self._log.append(*(UpdateReceived(time=time, statement=statement) for statement in statements))

    def _catch_up(self, entries: Sequence[AnyEntry], round_number: int) -> None:
        try:
            self._log.append(*entries)
        except AuditError as error:
            if error.fault is AuditFault.STORAGE:
                raise
            raise CheckpointError(
                f"round {round_number} of the checkpoint does not follow from the audit log: {error.problem}",
                where="audit.db",
                remedy="one of them is an older copy: restore both from the same moment",
            ) from error

    def _cosigned_before(self, round_number: int) -> frozenset[str]:
        """Whose earlier cosignatures count. A window of one is the attempt's own checkpoint and no other: an earlier
        attempt's says nothing of what is in the log since, which could be two different things.
        """
        window = self._plan.audit.window
        oldest = round_number - window + 1
        return frozenset(client for client, last in self._last_cosigned.items() if window > 1 and last >= oldest)

    def _incident(self, kind: IncidentKind, round_number: int, note: str = "") -> None:
        self._log.append(Incident(time=self._log.time(), kind=kind, round=round_number, note=note))

    def _show_before(self, round_number: int) -> None:
        """Show the log to everybody, and go on only with a quorum: an attempt without one would be lost for nothing."""
        shown = self._log.publish()
        if round_number <= self._plan.rounds.count:
            self._need_a_quorum(round_number, shown.cosigners)

    def _need_a_quorum(self, round_number: int, seen: frozenset[str]) -> None:
        quorum, members = self._log.quorum, self._keys.roster.members
        if len(seen) >= quorum:
            return
        self._incident(IncidentKind.NO_QUORUM, round_number)
        missing = [client for client in members if client not in seen]
        named = "; ".join(
            f"{client}: {self._log.faults.get(client, 'not connected')}" for client in missing[:_NAMED_IN_AN_ERROR]
        )
        more = f"; and {len(missing) - _NAMED_IN_AN_ERROR} more" if len(missing) > _NAMED_IN_AN_ERROR else ""
        raise RoundError(
            f"{len(seen)} of {len(members)} owners have cosigned the log for round {round_number}, and {quorum} have "
            f"to ({named}{more})",
            where="audit.quorum",
            remedy="look at the clients named, then go on with --resume; owners train on nothing that fewer have seen",
        )

    def _why_not_asked(self, client: str) -> str:
        if client not in self._keys.roster.members:
            return "it is not on the roster"
        if client in self._log.history.withdrawn:
            return "it has withdrawn"
        return self._log.faults.get(client, "it has not approved the plan")


class _OpenAttempt:
    """The part of the journal that an exchange sees; see :class:`testudo_server.exchange.RoundLog`."""

    def __init__(self, journal: LogJournal, opened: RoundOpened, index: int) -> None:
        self._journal, self.opened, self.index = journal, opened, index
        self.cosigners = 0
        self._awaited = frozenset(opened.cohort)
        self._received: dict[str, Contribution] = {}
        self._unlogged: list[str] = []

    def groups_drawn(self, coin: bytes, groups: tuple[tuple[str, ...], ...]) -> None:
        self._journal.draw_groups(self.opened, coin, groups)

    def received(self, client: str, statement: str | None) -> str | None:
        if client in self._received or client not in self._awaited:
            return "no update of it is awaited"
        found = self._journal.contribution_in(self.opened, client, statement)
        if isinstance(found, str):
            return found
        self._received[client] = found
        self._unlogged.append(client)
        return None

    def all_received(self) -> None:
        self._journal.receive(self._received[client] for client in sorted(self._unlogged))
        self._unlogged.clear()
