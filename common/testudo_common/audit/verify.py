"""Everything that can be checked of a log without the server that wrote it: values in, a line for each check out.

    verdict = verify(Evidence(federation_key, entries, notes))
    verdict.holds, verdict.first_failure, verdict.checks

Reads no file and prints nothing. A check that fails does not keep the later ones from being made, as far as they still
can be. They prove what the server said and that it kept to it, not that it is true.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from testudo_common.audit.entries import AnyEntry, Charter, decode_entry
from testudo_common.audit.evidence import Case, Counts, Evidence, NotMade, Own
from testudo_common.audit.history import begin_history, replay
from testudo_common.audit.merkle import Tree, leaf_hash
from testudo_common.audit.verify_checks import CHECKS, OF_AN_OWNER
from testudo_common.errors import AuditError

__all__ = ["Check", "Evidence", "Outcome", "Own", "Verdict", "verify"]


class Outcome(StrEnum):
    """Of a check."""

    OK = "ok"
    FAILED = "FAILED"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One check, made.

    Attributes:
        name: Of the check.
        outcome: Of the check.
        detail: A sentence, with figures; or what is wrong; or why it was not made.
        entry: Index of the first entry that is wrong, from 0; None where it is no single one's.
    """

    name: str
    outcome: Outcome
    detail: str
    entry: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a log.

    Attributes:
        origin: Which log; empty where it does not say.
        plan: Name of its plan; empty where it does not say.
        plan_digest: The same, hex.
        entries: How many.
        rounds: How many are closed.
        checks: In order.
    """

    origin: str
    plan: str
    plan_digest: str
    entries: int
    rounds: int
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Whether no check failed."""
        return self.first_failure is None

    @property
    def first_failure(self) -> Check | None:
        """The first check that failed."""
        return next((check for check in self.checks if check.outcome is Outcome.FAILED), None)


def _unseen(_index: int) -> None:
    """Nobody wants to know how far it is."""


def verify(evidence: Evidence, on_entry: Callable[[int], None] = _unseen) -> Verdict:
    """Check a log.

    Args:
        evidence: The log, and what it is held against.
        on_entry: Told of each entry's index before it is replayed.
    """
    counts = Counts()

    def observe(index: int, entry: AnyEntry) -> None:
        on_entry(index)
        counts.take(index, entry)

    plan_digest = _plan_digest_of(evidence.entries)
    replayed = replay(begin_history(evidence.federation_key, plan_digest), evidence.entries, observe)
    leaves = map(leaf_hash, evidence.entries) if replayed.history.watch else ()  # then no note counts
    case = Case(evidence, replayed, Tree(leaves), counts)
    asked = [(name, check) for name, check in CHECKS if evidence.own is not None or check not in OF_AN_OWNER]
    history = replayed.history
    return Verdict(
        origin="" if history.watch is None else history.watch.origin,
        plan="" if history.plan is None else history.plan.name,
        plan_digest=plan_digest,
        entries=len(evidence.entries),
        rounds=len(counts.closed),
        checks=tuple(_made(name, check, case) for name, check in asked),
    )


def _plan_digest_of(entries: tuple[bytes, ...]) -> str:
    """Of the plan that the charter says the log is of; whether it is, the replay finds out."""
    try:
        first = decode_entry(entries[0]) if entries else None
    except AuditError:
        return ""
    return first.plan_digest if isinstance(first, Charter) else ""


def _made(name: str, check: Callable[[Case], str], case: Case) -> Check:
    try:
        return Check(name, Outcome.OK, check(case))
    except AuditError as error:
        return Check(name, Outcome.FAILED, str(error), error.index)
    except NotMade as reason:
        return Check(name, Outcome.SKIPPED, str(reason))
