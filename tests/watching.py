"""A log by AuditLogBuilder, and one of its owners as a real witness of it; what travels can be made wrong. No tests.

watching = Watching(audited_plan())
watching.tell()                       # all that is new, as the server sends it; the witness's answer
watching.log.open()
watching.tell()
watching.witness.check(watching.request())
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from audit_logs import AuditLogBuilder, audited_plan, digest_of
from testudo_client.ledger import Ledger, Occasion, Purpose
from testudo_client.membership import Membership
from testudo_client.own_record import AuditFiles
from testudo_client.own_voice import ConsentingVoice, OwnVoice
from testudo_client.witness import Witness
from testudo_common.audit.extension import Testimony, decode_testimony, encode_extension
from testudo_common.audit.statements import Contribution, parse_statement
from testudo_common.plan import FederationPlan
from testudo_common.privacy.events import Spending
from testudo_common.wire import LogUpdate, TrainRequest, Witnessed

ME = "owner-00"
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
UPDATE = digest_of("the update of", ME)
EVERYBODY: tuple[str, ...] | None = None


class Watching:
    """The log of five owners, and the first of them.

    Args:
        plan: With an audit log.
        folder: The owner's; None: all in memory.
        log: The log; None: a new one, with charter, enrolment and approvals.
        ledger: The owner's; None: in the folder, or in memory.
        voice: What the owner decides; None: it approves.
        me: Which of them; the builder asks the first ones first.
        more: For the witness.

    Attributes:
        log: May be made to say anything.
        ledger: The owner's.
        witness: The owner's.
    """

    def __init__(
        self,
        plan: FederationPlan | None = None,
        folder: Path | None = None,
        *,
        log: AuditLogBuilder | None = None,
        ledger: Ledger | None = None,
        voice: OwnVoice | None = None,
        me: str = ME,
        **more: Any,
    ) -> None:
        self.plan = audited_plan() if plan is None else plan
        self.log = AuditLogBuilder(self.plan, 5) if log is None else log
        self.folder, self.me = folder, me
        if ledger is None:
            ledger = Ledger(None if folder is None else folder / "state" / "ledger.db", durable=False)
        self.ledger = ledger
        self.voice = ConsentingVoice(ledger) if voice is None else voice
        self._more = {"durable": False, "now": lambda: NOW, **more}
        self.witness = self.begun_anew()

    def begun_anew(self) -> Witness:
        """Another witness of the same owner, as in a process that has just begun."""
        membership = Membership(self.log.keys[self.me], self.log.roster(), self.log.federation_public)
        self.witness = Witness(self.me, self.plan, membership, self.voice, self.folder, **self._more)
        return self.witness

    @property
    def files(self) -> AuditFiles:
        """Where the owner keeps what belongs to the log."""
        assert self.folder is not None
        return AuditFiles(self.folder, self.plan.digest)

    def update(
        self,
        first: int | None = None,
        *,
        size: int | None = None,
        note: bytes | None = None,
        cosigned: bytes = b"",
        entries: Iterable[bytes] | None = None,
    ) -> LogUpdate:
        """The log from ``first`` on, or what the witness lacks; under a checkpoint that nobody has cosigned yet."""
        first = self.size if first is None else first
        sent = self.log.entries[first:size] if entries is None else entries
        body = encode_extension(sent, self.log.note(size, ()) if note is None else note, cosigned)
        return LogUpdate(self.plan.digest, 1, 0, first, body)

    def tell(self, first: int | None = None, **more: Any) -> Witnessed:
        """What the witness answers to :meth:`update`."""
        return self.witness.answer(self.update(first, **more))

    def testimony(self, **more: Any) -> Testimony:
        """What the witness says when it is told what is new."""
        answer = self.tell(**more)
        assert answer.size == len(self.log.entries)
        return decode_testimony(answer.body)

    @property
    def size(self) -> int:
        """Entries in the witness's mirror."""
        mirror = self.witness._mirror
        with mirror.held():
            return mirror.state.size

    def request(self, cosigners: Iterable[str] | None = EVERYBODY, **said: Any) -> TrainRequest:
        """What the server asks in the open attempt, under the checkpoint that so many cosigned."""
        opened = self.log.history.opened
        assert opened is not None
        entry = opened[1]
        request = TrainRequest(
            self.plan.digest,
            entry.round,
            entry.attempt,
            entry.model_digest,
            np.zeros(1, dtype=np.float32),
            entry.clip,
            self.log.note(cosigners=cosigners),
        )
        return replace(request, **said)

    def contribute(self, update: str = UPDATE) -> Contribution:
        """The owner trains and says so: its ledger is charged, and the server logs its statement."""
        opened = self.log.history.opened
        assert opened is not None
        entry = opened[1]
        self.charge(entry.round, entry.attempt)
        text = self.witness.statement(entry.round, entry.attempt, entry.model_digest, update)
        statement = parse_statement(text)
        assert isinstance(statement, Contribution)
        self.log.receive(self.me, statement)
        return statement

    def charge(self, round_number: int, attempt: int = 0) -> None:
        """A reservation in the owner's ledger."""
        self.ledger.reserve(
            Occasion(self.plan.digest, round_number, attempt, Purpose.TRAINING),
            plan_name=self.plan.name,
            fingerprint="ab" * 32,
            spending=Spending(),
        )

    def log_round(self) -> None:
        """A round in the log, and the owner trains in it if it is asked; the witness is told nothing of it yet."""
        self.log.open()
        self.log_updates()
        self.log.close()

    def log_updates(self) -> None:
        """Everybody's update of the open attempt in the log, the owner's own too if it is asked."""
        for owner in self.log.history.opened[1].cohort:  # type: ignore[index]
            if owner == self.me:
                self.contribute()
            else:
                self.log.receive(owner)

    def round(self) -> None:
        """A round that the owner is in: it is told of it, asked, and what it sent is logged."""
        self.log.open()
        self.tell()
        self.witness.check(self.request())
        self.log_updates()
        self.log.close()
        self.tell()
