"""What the audit log adds to what travels between one client and the server: its own messages, and what others carry.

Measured on messages of the right shape that hold nothing. The log's own messages are those of a round without scores
in which everybody takes part, after another such round; numbers are taken to be as long as they can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from testudo_common.audit.checkpoints import Checkpoint, default_quorum, watch_of, witness_name
from testudo_common.audit.entries import (
    Account,
    AnyEntry,
    Charter,
    Enrolment,
    GroupsDrawn,
    PlanApproved,
    Price,
    RoundClosed,
    RoundOpened,
    UpdateReceived,
    encode_entry,
)
from testudo_common.audit.extension import Testimony, encode_extension
from testudo_common.audit.notes import KEY_ID_BYTES, TIME_BYTES, KeyKind, Note, NoteSignature
from testudo_common.audit.statements import Approval, Contribution, encode_statement
from testudo_common.plan import FederationPlan
from testudo_common.roster import Roster
from testudo_common.wire import LogUpdate, Witnessed

_TIME: Final = "2026-03-01T12:00:00Z"
_HEX: Final = "0" * 64
_SIGNATURE: Final = "A" * 86 + "=="
_LONG: Final = 1.2345678901234567e-100
_ENTRIES: Final = 999_999
_SIGNATURE_BYTES: Final = {KeyKind.ED25519: 64, KeyKind.ML_DSA_44: TIME_BYTES + 2420}


@dataclass(frozen=True, slots=True)
class LogShape:
    """A plan's log, as far as the length of what travels depends on it.

    Attributes:
        plan: With a log.
        roster: Of the federation; its longest names cosign.
        cohort: Ids of those who are asked.
        round: 1 and up.
        attempt: 0 and up.
    """

    plan: FederationPlan
    roster: Roster
    cohort: Sequence[str]
    round: int
    attempt: int

    def statement(self) -> str:
        """What the owner with the longest name signs for its update."""
        return encode_statement(self._contribution(max(self.cohort, key=_length)))

    def note(self) -> bytes:
        """A checkpoint with a quorum of cosignatures."""
        members = sorted(self.roster.members, key=_length, reverse=True)
        quorum = self.plan.audit.quorum or default_quorum(len(members))
        return self._note(members[:quorum])

    def beginning(self) -> LogUpdate:
        """What the log begins with: plan, roster, and everybody's approval."""
        price = Price(example=((_LONG, _LONG, 10**9),) * 2, client=((_LONG, _LONG, 10**9),))
        charter = Charter(
            time=_TIME,
            federation=self.roster.federation,
            plan=self.plan.model_dump(mode="json"),
            plan_digest=_HEX,
            code=_HEX,
            environment=_HEX,
            bundle=_HEX,
            quorum=len(self.roster.members) or 1,
            window=self.plan.audit.window,
            training=price,
            scores=price,
            sum=price,
        )
        members = {client: key.hex() for client, key in self.roster.members.items()}
        signed = {
            "federation": self.roster.federation,
            "log": self.roster.log.hex(),
            "members": members,
            "signature": 2 * _HEX,
        }
        approvals = [
            PlanApproved(time=_TIME, statement=Approval(client=client, number=0, signature=_SIGNATURE))
            for client in self.roster.members
        ]
        return self._update([charter, Enrolment(time=_TIME, roster=signed), *approvals])

    def opening(self) -> LogUpdate:
        """What closed the round before and opens this one."""
        received = [UpdateReceived(time=_TIME, statement=self._contribution(client)) for client in self.cohort]
        account = Account(events=((_LONG, _LONG, 10**9),) * 3, delta=_LONG, epsilon=_LONG)
        closed = RoundClosed(
            time=_TIME,
            round=self.round,
            attempt=self.attempt,
            model_digest=_HEX,
            survivors=tuple((client,) for client in self.cohort),
            rule=self.plan.robust_rule,
            withstood=len(self.cohort),
            example=account if self.plan.private else None,
            client=account if self.plan.client_private else None,
        )
        opened = RoundOpened(
            time=_TIME,
            round=self.round,
            attempt=self.attempt,
            model_digest=_HEX,
            cohort=tuple(self.cohort),
            clip=_LONG if self.plan.adapts_clip else None,
        )
        return self._update([*received, closed, opened])

    def groups(self) -> LogUpdate:
        """The groups of secure aggregation."""
        groups = tuple((client,) for client in self.cohort)
        return self._update([GroupsDrawn(time=_TIME, round=self.round, attempt=self.attempt, coin=_HEX, groups=groups)])

    def witnessed(self, client: str) -> Witnessed:
        """A client's cosignature."""
        body = Testimony(cosignature=_cosignature(client).line()).encode()
        return Witnessed(_HEX, self.round, self.attempt, _ENTRIES, body)

    def _update(self, entries: Sequence[AnyEntry]) -> LogUpdate:
        body = encode_extension([encode_entry(entry) for entry in entries], self._note(()), self.note())
        return LogUpdate(_HEX, self.round, self.attempt, _ENTRIES, body)

    def _note(self, cosigners: Sequence[str]) -> bytes:
        watch = watch_of(self.roster, self.plan.digest)
        log = NoteSignature(watch.log.name, bytes(KEY_ID_BYTES + _SIGNATURE_BYTES[watch.log.kind]))
        text = Checkpoint(watch.origin, _ENTRIES, bytes(32)).text()
        return Note(text, (log, *(_cosignature(client) for client in cosigners))).encode()

    def _contribution(self, client: str) -> Contribution:
        return Contribution(
            client=client,
            round=self.round,
            attempt=self.attempt,
            commitment=_HEX,
            ledger=_HEX,
            signature=_SIGNATURE,
        )


def roster_of(clients: Sequence[str]) -> Roster:
    """A roster of the right length, where none is known: with names of these lengths, one of which can be repeated."""
    members = {f"{place:-<{_length(client)}}": place.to_bytes(32) for place, client in enumerate(clients, 1)}
    return Roster("federation", members, bytes([KeyKind.ED25519]) + bytes(32))


def _cosignature(client: str) -> NoteSignature:
    return NoteSignature(witness_name(client), bytes(KEY_ID_BYTES + TIME_BYTES + 64))


def _length(client: str) -> int:
    return len(client.encode())
