"""What a log is verified by: its entries and notes, what somebody else kept of it, and what an owner knows itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from testudo_common.audit.checkpoints import Checkpoint, Watch, cosigners_of, open_checkpoint
from testudo_common.audit.entries import AnyEntry, Charter, PlanApproved, RoundClosed, RoundOpened
from testudo_common.audit.history import Replay
from testudo_common.audit.merkle import Tree
from testudo_common.audit.statements import Contribution
from testudo_common.errors import AuditError, AuditFault
from testudo_common.plan import FederationPlan


@dataclass(frozen=True, slots=True)
class Own:
    """What a data owner knows itself.

    Attributes:
        client: Its name.
        sent: (round, attempt) -> digest of the model that it was sent, hex; of those in which it signed an update.
        signed: Contributions that it signed.
        ledger: Hashes of its ledger's entries, hex; None: there is no ledger.
        adopted: Whether a person has accepted a ledger that lacks entries.
        decided: Whether its ledger has a decision on this plan.
        broken: Why what it knows cannot be used; empty: it can.
        halted: Why its witness has stopped; empty: it has not.
    """

    client: str
    sent: Mapping[tuple[int, int], str] = field(default_factory=dict)
    signed: frozenset[Contribution] = frozenset()
    ledger: frozenset[str] | None = None
    adopted: bool = False
    decided: bool = False
    broken: str = ""
    halted: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A log, and what it is held against.

    Attributes:
        federation_key: Ed25519, 32 bytes, as pinned.
        entries: All, in canonical form.
        notes: Signed ones over these entries, from the smallest to the largest.
        plan: The plan's digest, or its first digits; empty: any plan.
        kept: Earlier checkpoints: where each comes from, and the note.
        receipts: Where each comes from, and its bytes.
        own: What an owner knows; None: no owner is asked.
        unseen_rounds: How many of the last closed rounds a quorum need not have seen yet: the run may be going on.
    """

    federation_key: bytes
    entries: tuple[bytes, ...]
    notes: tuple[bytes, ...]
    plan: str = ""
    kept: tuple[tuple[str, bytes], ...] = ()
    receipts: tuple[tuple[str, bytes], ...] = ()
    own: Own | None = None
    unseen_rounds: int = 0


@dataclass(slots=True)
class Counts:
    """What the checks tell of a log beyond what its history holds.

    Attributes:
        charter: The first entry, whether or not its plan is valid.
        opened: (round, attempt) -> index and entry.
        closed: Index of each.
        approvals: Owners that approved.
        cohorts: Size of each.
        sums: Survivors of each.
    """

    charter: Charter | None = None
    opened: dict[tuple[int, int], tuple[int, RoundOpened]] = field(default_factory=dict)
    closed: list[int] = field(default_factory=list)
    approvals: set[str] = field(default_factory=set)
    cohorts: list[int] = field(default_factory=list)
    sums: list[int] = field(default_factory=list)

    def take(self, index: int, entry: AnyEntry) -> None:
        """Count one entry."""
        match entry:
            case Charter() if index == 0:
                self.charter = entry
            case RoundOpened():
                self.opened[entry.round, entry.attempt] = index, entry
                self.cohorts.append(len(entry.cohort))
            case RoundClosed():
                self.closed.append(index)
                self.sums.extend(len(survivors) for survivors in entry.survivors)
            case PlanApproved():
                self.approvals.add(entry.statement.client)
            case _:
                pass


class NotMade(Exception):  # noqa: N818 - it is no error
    """A check is not made; says why."""


@dataclass(frozen=True, slots=True)
class Case:
    """A log that was replayed, with what it is held against.

    Attributes:
        evidence: What was given.
        replay: Of its entries.
        tree: Over its entries.
        counts: Of its entries.
    """

    evidence: Evidence
    replay: Replay
    tree: Tree
    counts: Counts

    @property
    def watch(self) -> Watch:
        """Whose signatures count.

        Raises:
            NotMade: Nobody is enrolled.
        """
        if self.replay.history.watch is None:
            raise NotMade("the log does not say, signed by the federation, whose signatures count")
        return self.replay.history.watch

    @property
    def plan(self) -> FederationPlan:
        """The log's.

        Raises:
            NotMade: The log has none that is valid.
        """
        if self.replay.history.plan is None:
            raise NotMade("the log does not hold its plan")
        return self.replay.history.plan

    @property
    def quorum(self) -> int:
        """k, of the last enrolment."""
        return self.replay.history.quorum or 1

    @property
    def own(self) -> Own:
        """What an owner knows."""
        assert self.evidence.own is not None
        return self.evidence.own

    def raise_faults(self, *faults: AuditFault) -> None:
        """Return only if the replay found none of these.

        Raises:
            AuditError: The first of them.
        """
        for error in self.replay.faults:
            if error.fault in faults:
                raise error

    def judged(self, *faults: AuditFault) -> None:
        """Return only if the replay found none of these in the whole log.

        Raises:
            AuditError: The first of them.
            NotMade: There is none, but the replay did not come to the end.
        """
        self.raise_faults(*faults)
        if self.replay.stopped is not None:
            raise NotMade(f"nothing is wrong before entry {self.replay.stopped}, and after it nothing can be known")

    def over_these(self, data: bytes) -> tuple[Checkpoint, frozenset[str]]:
        """The checkpoint in a note, if it is over the first of these entries, and who cosigned it.

        Raises:
            AuditError: It is not, or the log did not sign it, or a cosignature does not hold.
        """
        checkpoint, note = open_checkpoint(data, self.watch)
        if checkpoint.size > len(self.tree):
            raise AuditError(
                AuditFault.TRUNCATED, f"a checkpoint over {checkpoint.size} entries, and {len(self.tree)} are there"
            )
        if self.tree.root(checkpoint.size) != checkpoint.root:
            raise AuditError(
                AuditFault.REWRITTEN, f"a checkpoint over {checkpoint.size} entries, and they are others here"
            )
        return checkpoint, cosigners_of(note, self.watch)
