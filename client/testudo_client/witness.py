"""One data owner as a witness of its federation's log: it mirrors it, cosigns it, and trains only on what it holds.

Knows no Flower and no torch, and reads no data. A cosignature says: I have these entries, on my disk, they extend what
I had before, keep the log's rules, and are what I was sent and signed. Whoever withdrew or never approved says it too.
What proves that the log's own key signed something wrong stops the owner until a person has looked; a message that was
damaged, late or not signed by the log proves nothing, and is only refused.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from testudo_client import own_checks as checks
from testudo_client.ledger import utc_now
from testudo_client.membership import Membership
from testudo_client.mirror import Mirror, State
from testudo_client.own_record import AuditFiles, OwnRecord, Signed, Told
from testudo_client.own_voice import OwnVoice
from testudo_client.seen_notes import Seen, reader_of
from testudo_common.audit.checkpoints import witness_name
from testudo_common.audit.entries import GroupsDrawn, RoundClosed, decode_entry
from testudo_common.audit.extension import Decision, Testimony
from testudo_common.audit.notes import Signer
from testudo_common.audit.receipts import receipt_for
from testudo_common.audit.statements import (
    SALT_BYTES,
    Approval,
    Contribution,
    Withdrawal,
    commitment_to,
    encode_statement,
    signed,
)
from testudo_common.errors import AuditError, AuditFault, UsageError
from testudo_common.plan import FederationPlan
from testudo_common.signed_replies import ReplySigner
from testudo_common.wire import LogUpdate, TrainRequest, Witnessed

_PROVES_NOTHING = frozenset(
    {AuditFault.QUORUM, AuditFault.NOT_LOGGED, AuditFault.TRUNCATED, AuditFault.PROOF, AuditFault.STORAGE}
)
"""Faults that dropouts, late messages, damage on the way or this computer's own disk bring about too."""


class Witness:
    """An owner's witness of one plan's log. Used by one thread and one process at a time.

    Args:
        client_id: The owner's name.
        plan: The copy installed here, with an audit log.
        membership: The owner's key, the roster and the federation's key.
        voice: What the owner decided, and its ledger.
        folder: The owner's; None: all is kept in memory.
        durable: Whether to wait until the disk has what is kept.
        now: The clock.
        bundle_digest: SHA-256 of the app bundle that came here, hex; None: not known, and not compared.

    Attributes:
        client_id: As given.

    Raises:
        UsageError: The membership does not say which key is the federation's.
        RosterError: The roster does not hold this owner with this key.
        AuditError: The roster names no key of a log.
    """

    def __init__(
        self,
        client_id: str,
        plan: FederationPlan,
        membership: Membership,
        voice: OwnVoice,
        folder: Path | None = None,
        *,
        durable: bool = True,
        now: Callable[[], datetime] = utc_now,
        bundle_digest: str | None = None,
    ) -> None:
        membership.identity_of(client_id)
        if not membership.federation_key:
            raise UsageError("the federation's key is not known, and is needed to check the log", where=client_id)
        files = None if folder is None else AuditFiles(folder, plan.digest)
        self.client_id, self._plan, self._plan_digest = client_id, plan, plan.digest
        self._membership, self._voice, self._now = membership, voice, now
        self._bundle_digest = bundle_digest
        self._reader = reader_of(membership.roster, plan.digest)
        mirror = None if files is None else files.mirror
        self._mirror = Mirror(mirror, self._reader, membership.federation_key, plan.digest, durable=durable)
        self._record = OwnRecord(files, durable=durable)
        self._signer = Signer(witness_name(client_id), membership.key, cosigner=True)

    @property
    def signer(self) -> ReplySigner:
        """Signs the owner's replies."""
        return ReplySigner(self.client_id, self._membership.key)

    def answer(self, update: LogUpdate) -> Witnessed:
        """Take in what is new, and cosign it; or say what is missing.

        Raises:
            AuditError: The log cannot be trusted, or has stopped this owner before. Nothing is cosigned.
            LedgerError: The ledger is not the one that the log knows, or cannot be used.
        """
        self._record.refuse_if_halted()
        extension = self._reader.extension(update.body)
        seen = self._reader.open(extension.note)
        cosigned = self._reader.open(extension.cosigned) if extension.cosigned else None
        with self._mirror.held():
            if update.first > self._mirror.state.size:
                return self._witnessed(update, self._mirror.state.size, b"")
            with self._evidence(extension.note):
                fresh = self._mirror.continued(update.first, extension.entries, seen.checkpoint)
                if fresh is None:
                    return self._witnessed(update, 0, b"")
                grown = self._mirror.state.grown(fresh)
            checks.roster_is_mine(grown.history, self._membership.roster)
            checks.bundle_is_mine(grown.history, self._bundle_digest)
            with self._evidence(extension.note):
                self._compare(grown, fresh)
            self._mirror.take(grown, fresh, seen)
            if cosigned is not None:
                with self._evidence(extension.cosigned):
                    self._mirror.keep(cosigned)
            self._keep_receipts()
            statements = self._statements(grown)
        return self._witnessed(update, grown.size, self._testimony(seen, statements))

    def refuse_if_halted(self) -> None:
        """Return unless the log has stopped this owner.

        Raises:
            AuditError: HALTED.
        """
        self._record.refuse_if_halted()

    def check(self, request: TrainRequest, initial_model: Callable[[], str] | None = None) -> None:
        """Return only if the log holds what ``request`` asks for, and enough witnesses have seen that it does.

        Args:
            request: Of this plan.
            initial_model: Digest of the model that the plan begins with, hex; None: not compared, since that needs
                torch.

        Raises:
            AuditError: It does not, or they have not, or the log has stopped this owner before.
        """
        self._record.refuse_if_halted()
        seen = self._reader.open(request.body)
        with self._mirror.held(), self._evidence(request.body):
            state = self._mirror.state
            if seen.checkpoint.size <= state.size:
                self._mirror.keep(seen)
            checks.note_is_over_my_mirror(seen.checkpoint, state.size)
            index, opened = checks.attempt_is_open(state.history, request)
            checks.quorum_has_seen(self._cosigners(seen, request.round), state.history.quorum)
            checks.model_is_logged(index, opened, request)
            checks.cohort_holds_me(index, opened, self.client_id)
            if initial_model is not None:
                first, model_digest = state.opened[0][0], state.history.first_model
                checks.run_began_from_the_plans_model(first, model_digest, initial_model())
            self._keep_receipts()

    def check_groups(self, round_number: int, attempt: int, coin: bytes, members: tuple[str, ...]) -> None:
        """Return only if the log holds this coin, and this group of the owner's.

        Raises:
            AuditError: It does not, or the log has stopped this owner before.
        """
        self._record.refuse_if_halted()
        with self._mirror.held(), self._evidence(self._mirror.log.latest_note() or b""):
            checks.groups_are_logged(self._mirror.state.history.groups, round_number, attempt, coin, members)

    def told_survivors(self, round_number: int, attempt: int, places: tuple[int, ...]) -> None:
        """Remember who of the owner's group it was told is in the sum: the log has to say the same.

        Args:
            round_number: From 1 on.
            attempt: From 0 on.
            places: In the group, from 0.
        """
        self._record.keep_told(Told(round=round_number, attempt=attempt, places=places))

    def statement(self, round_number: int, attempt: int, model_digest: str, update_digest: str) -> str:
        """The owner's signed contribution, kept before it leaves; the same again for the same update.

        Args:
            round_number: From 1 on.
            attempt: From 0 on.
            model_digest: Of the model that it trained from, hex.
            update_digest: Of the clipped update that leaves, hex.
        """
        before = self._record.signed(round_number, attempt)
        salt = self._record.salt(round_number, attempt)
        if before is not None and salt is not None:
            last = before.statements[-1]
            if commitment_to(salt, update_digest) == last.commitment:
                return encode_statement(last)
        salt = secrets.token_bytes(SALT_BYTES)
        unsigned = Contribution(
            client=self.client_id,
            round=round_number,
            attempt=attempt,
            commitment=commitment_to(salt, update_digest),
            ledger=self._voice.entries()[-1].hash.hex(),
        )
        statement = signed(unsigned, self._membership.key, self._plan_digest)
        earlier = () if before is None else before.statements
        kept = Signed(model_digest=model_digest, statements=(*earlier, statement))
        self._record.keep_signed(round_number, attempt, kept, salt)
        return encode_statement(statement)

    def receipts(self) -> Mapping[tuple[int, int], bytes]:
        """By round and attempt, each ``.tlog-proof`` of a contribution that a quorum has seen in the log."""
        with self._mirror.held():
            made = {
                (statement.round, statement.attempt): self._receipt_of(index)
                for index, statement in self._own_contributions()
            }
        return {attempt: receipt for attempt, receipt in made.items() if receipt is not None}

    def _compare(self, grown: State, fresh: Sequence[bytes]) -> None:
        """What is new with what this owner knows itself."""
        known, history = self._mirror.state, grown.history
        if known.history.charter is None and history.charter is not None:
            checks.charter_states_my_prices(history.charter, self._plan)
        self._compare_survivors(grown, fresh)
        mine = history.contributions.get(self.client_id, ())
        new = [index for index, _ in mine if index >= known.size]
        if not new and self.client_id not in history.withdrawn:
            return
        ledger = self._voice.entries()
        entries = [(index, decode_entry(fresh[index - known.size])) for index in new]
        before = [statement for index, statement in mine if index < known.size]
        checks.contributions_are_mine(entries, before, ledger, self._record)
        checks.withdrawal_is_mine(history, self.client_id, ledger, self._plan_digest)

    def _compare_survivors(self, grown: State, fresh: Sequence[bytes]) -> None:
        """Who is in the sum of the round that has closed, with what this owner was told when it was masked."""
        known = self._mirror.state.history
        if grown.history.closed == known.closed or (told := self._record.told()) is None:
            return
        groups = None if known.groups is None else known.groups[1]
        for index, data in enumerate(fresh, known.size):
            match decode_entry(data):
                case GroupsDrawn() as drawn:
                    groups = drawn
                case RoundClosed() as closed if (closed.round, closed.attempt) == (told.round, told.attempt):
                    own = [group for group in (groups.groups if groups else ()) if self.client_id in group]
                    for group in own:
                        checks.survivors_are_as_told(index, closed, group, told)

    def _cosigners(self, seen: Seen, round_number: int) -> frozenset[str]:
        """Whose cosignatures count in a round: those on its own checkpoint, and those of the window before it."""
        window = self._mirror.state.history.window
        if window is None or window == 1:
            return seen.cosigners
        return seen.cosigners | self._mirror.cosigned_since(round_number - window + 1)

    def _statements(self, state: State) -> tuple[Decision, ...]:
        """What the owner decided that the log does not hold yet."""
        decision, history = self._voice.decision(), state.history
        if decision is None or self.client_id in (history.approved if decision.approves else history.withdrawn):
            return ()
        number = max(decision.number, history.decisions.get(self.client_id, -1) + 1)
        kind: type[Approval] | type[Withdrawal] = Approval if decision.approves else Withdrawal
        return (signed(kind(client=self.client_id, number=number), self._membership.key, self._plan_digest),)

    def _testimony(self, seen: Seen, statements: tuple[Decision, ...]) -> bytes:
        line = self._signer.sign(seen.checkpoint.text(), int(self._now().timestamp())).line()
        return Testimony(cosignature=line, statements=statements).encode()

    def _keep_receipts(self) -> None:
        """A receipt for each contribution that a quorum has seen in the log; in memory they are made when asked for."""
        if not self._record.on_disk:
            return
        for index, statement in self._own_contributions():
            if self._record.receipt(statement.round, statement.attempt) is None and (made := self._receipt_of(index)):
                self._record.keep_receipt(statement.round, statement.attempt, made)

    def _own_contributions(self) -> tuple[tuple[int, Contribution], ...]:
        return self._mirror.state.history.contributions.get(self.client_id, ())

    def _receipt_of(self, index: int) -> bytes | None:
        quorum = self._mirror.state.history.quorum
        for seen in self._mirror.notes_beyond(index):
            if quorum is not None and len(seen.cosigners) >= quorum:
                return receipt_for(self._mirror.log, index, seen.data).encode()
        return None

    def _witnessed(self, update: LogUpdate, size: int, body: bytes) -> Witnessed:
        return Witnessed(self._plan_digest, update.round, update.attempt, size, body)

    @contextmanager
    def _evidence(self, note: bytes) -> Iterator[None]:
        """What is found wrong under a note that the log signed stops this owner, and the note is kept."""
        try:
            yield
        except AuditError as error:
            states_another_quorum = error.fault is AuditFault.QUORUM and error.index is not None
            if error.fault not in _PROVES_NOTHING or states_another_quorum:
                self._record.halt(error, note, self._now())
            raise
