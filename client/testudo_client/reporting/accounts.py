"""What was spent, what left, what was refused and what the logs say, from the owner's own files. Decides nothing.

Sources of trust: the ledger is verified as it is read, and each audit log is verified here without its server.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from testudo_client.audit_sources import logs_in
from testudo_client.home import OwnerHome
from testudo_client.ledger import Entry, Purpose, Reserved
from testudo_client.ledger.summary import AccountLine, Room, summarise
from testudo_client.policy.ceilings import policy_ceilings
from testudo_client.policy.contract import contract_of, values_of
from testudo_client.policy.sections import OwnerPolicy
from testudo_client.preview import longest_cohort
from testudo_client.reporting.values import AccountTold, LogTold, MessageKind, PlanLeft, Refusal, Spent
from testudo_client.statement_command import owner_statements
from testudo_common.audit.evidence import Evidence
from testudo_common.audit.merkle import Frontier, leaf_hash
from testudo_common.audit.verify import verify
from testudo_common.errors import UsageError
from testudo_common.plan import FederationPlan
from testudo_common.roster import Roster
from testudo_common.traffic import Leg, legs_of

DELTA: Final = 1e-5


def spent_of(home: OwnerHome, policy: OwnerPolicy, entries: Sequence[Entry]) -> Spent:
    """The ledger's accounts.

    Raises:
        PolicyError, LedgerError, PrivacyError: They cannot be worked out.
    """
    summary = summarise(entries, policy_ceilings(policy, None), delta=DELTA)
    try:
        statements, together = owner_statements(home.folder, None)
    except UsageError:  # nothing was charged under a plan of which a copy is kept
        statements, together = [], []
    return Spent(
        entries=len(entries),
        head=entries[-1].hash.hex(),
        ceilings=tuple(map(_room, summary.rooms)),
        plans=tuple(_account(line) for line in summary.accounts if line.plan_digest is not None),
        statements=tuple(one.as_json() for one in statements),
        together=tuple(together),
    )


def _room(room: Room) -> AccountTold:
    ceiling = room.ceiling
    return AccountTold(
        name=ceiling.where,
        unit=ceiling.unit.value,
        spent=_bounded(room.spent),
        allowed=ceiling.epsilon,
        delta=ceiling.delta,
        accountant=ceiling.accountant,
    )


def _account(line: AccountLine) -> AccountTold:
    prv, rdp = line.epsilons.prv, line.epsilons.rdp
    return AccountTold(
        name=line.plan_name if line.plan_digest else "outside of any round",
        unit=line.unit.value,
        spent=_bounded(rdp if prv is None else prv),
        allowed=None,
        delta=line.delta,
        accountant="rdp" if prv is None else "prv",
    )


def _bounded(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None


def left_of(
    policy: OwnerPolicy, entries: Sequence[Entry], plans: Mapping[str, FederationPlan], roster: Roster | None
) -> tuple[PlanLeft, ...]:
    """What left for each plan, in the order in which they were first charged.

    What was charged counts as sent, since nothing tells afterwards whether it arrived.

    Args:
        policy: The owner's.
        entries: Of its ledger.
        plans: Those of which a copy is kept, by digest.
        roster: Of the federation, if it is here.
    """
    reserved = [(entry.time, entry.content) for entry in entries if isinstance(entry.content, Reserved)]
    digests = dict.fromkeys(one.occasion.plan_digest for _, one in reserved if one.occasion.plan_digest)
    return tuple(
        _left(
            policy,
            digest,
            plans.get(digest),
            roster,
            [one for one in reserved if one[1].occasion.plan_digest == digest],
        )
        for digest in digests
    )


def _left(
    policy: OwnerPolicy,
    digest: str,
    plan: FederationPlan | None,
    roster: Roster | None,
    reserved: list[tuple[str, Reserved]],
) -> PlanLeft:
    occasions = [one.occasion for _, one in reserved]
    attempts = sorted({(one.round, one.attempt) for one in occasions})
    scored = {one.round for one in occasions if one.purpose is Purpose.SCORES}
    up = down = None
    kinds: tuple[MessageKind, ...] = ()
    seen = ""
    if plan is not None:
        legs = {with_scores: _legs(policy, plan, roster, with_scores=with_scores) for with_scores in (False, True)}
        up = sum(_sum(legs[number in scored], up=True) for number, _ in attempts)
        down = sum(_sum(legs[number in scored], up=False) for number, _ in attempts)
        shown = legs[bool(scored)]
        kinds = tuple(MessageKind(name=one.name, holds=one.holds, bytes=one.size_bytes) for one in shown if one.up)
        seen = "sums over groups of owners" if plan.secure else "each of your updates by itself"
    return PlanLeft(
        plan=reserved[0][1].plan_name,
        digest=digest,
        rounds=len({number for number, _ in attempts}),
        trained=len({one.round for one in occasions if one.purpose is Purpose.TRAINING}),
        attempts=len(attempts),
        scored=len(scored),
        bytes_up=up,
        bytes_down=down,
        seen=seen,
        kinds=kinds,
        first=reserved[0][0],
        last=reserved[-1][0],
    )


def _legs(policy: OwnerPolicy, plan: FederationPlan, roster: Roster | None, *, with_scores: bool) -> tuple[Leg, ...]:
    """Messages of one attempt in a late round, which no earlier one exceeds."""
    rounds = range(plan.rounds.count, 0, -1)
    number = next((one for one in rounds if plan.scores_in(one) == with_scores), plan.rounds.count)
    attempts = plan.secure_aggregation.max_attempts if plan.secure else 1
    names = longest_cohort(plan, policy.client, roster)
    size = values_of(contract_of(plan.model))
    return legs_of(plan, size, names, round_number=number, attempt=attempts - 1, roster=roster)


def _sum(legs: Sequence[Leg], *, up: bool) -> int:
    return sum(leg.size_bytes for leg in legs if leg.up == up)


def refused_in(home: OwnerHome) -> tuple[Refusal, ...]:
    """Refusals in the owner's log by reason, the most frequent first.

    Raises:
        UsageError: The log cannot be read.
    """
    found: dict[str, Refusal] = {}
    for line in home.log.lines():
        if line.event == "refused":
            times = found[line.reason].times + 1 if line.reason in found else 1
            found[line.reason] = Refusal(reason=line.reason, times=times, last=line.time, sentence=line.sentence)
    return tuple(sorted(found.values(), key=lambda one: -one.times))


def logs_of(home: OwnerHome) -> tuple[LogTold, ...]:
    """Each audit log of which there is a mirror, verified.

    Raises:
        UsageError, AuditError, KeyFileError: A mirror cannot be read.
    """
    return tuple(_log(home, source.name, source.evidence) for source in logs_in(home.folder, None))


def _log(home: OwnerHome, name: str, evidence: Evidence) -> LogTold:
    verdict = verify(evidence)
    return LogTold(
        origin=verdict.origin,
        plan=verdict.plan,
        entries=verdict.entries,
        rounds=verdict.rounds,
        holds=verdict.holds,
        checks=tuple((check.outcome.value, check.name, check.detail) for check in verdict.checks),
        receipts=len(evidence.receipts),
        root=Frontier(leaf_hash(entry) for entry in evidence.entries).root().hex() if evidence.entries else "",
        file=str(Path(name).relative_to(home.folder)),
    )
