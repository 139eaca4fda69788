"""What a plan would mean for its owner, as values: the policy's verdict, what would leave, to whom, and what it costs.

Nothing here trains or sends; a table is read only to name the data, and only if the policy allows the plan.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testudo_client.approvals import approved_before, check_approved, differences
from testudo_client.home import OwnerHome
from testudo_client.ledger import Ceiling, Entry, Purpose, utc_now
from testudo_client.ledger.account import Account, Epsilons, epsilon_under, epsilons_of, rounds_left
from testudo_client.ledger.planned import round_spending
from testudo_client.membership import read_membership
from testudo_client.policy.ceilings import ceilings_of
from testudo_client.policy.check import examine
from testudo_client.policy.contract import Contract, contract_of, values_of
from testudo_client.policy.findings import Finding, Launch
from testudo_client.policy.rules import statistics_of
from testudo_client.policy.sections import OwnerPolicy
from testudo_common.app_bundle import bundle_digest
from testudo_common.audit.checkpoints import colluders_found, default_quorum
from testudo_common.errors import ApprovalError, ModelError, PrivacyError, UsageError
from testudo_common.log_traffic import roster_of
from testudo_common.plan import FederationPlan
from testudo_common.privacy.events import Spending, Unit
from testudo_common.privacy.planned import run_spending, scored_participations, scores_spending
from testudo_common.roster import Roster
from testudo_common.signed_replies import SIGNATURE_BYTES
from testudo_common.traffic import Leg, beginning_of_log, legs_of
from testudo_common.wire import Refusal, RefusalReason, encode

_LONGEST_REASON = max(RefusalReason, key=len)


def preview(
    plan: FederationPlan, home: OwnerHome, *, data: Path | None = None, bundle: Path | None = None
) -> dict[str, Any]:
    """Everything an owner should know before it approves ``plan``, as JSON has it.

    Args:
        plan: Checked.
        home: The owner's folder.
        data: The owner's table; without it, everything ever spent counts.
        bundle: The Flower app bundle, to compare with the pin; None: the one that this installation makes.

    Raises:
        PolicyError: There is no policy.
        LedgerError: There is a ledger, and it cannot be trusted.
        KeyFileError, RosterError: A file of the membership is there and cannot be used.
        DataError: The table cannot be used.
    """
    policy = home.policy()
    digest = digest_of_bundle(bundle)
    here = home.circumstances(policy.client, utc_now(), plan=plan, launch=Launch(digest, connected=False))
    findings = tuple(examine(policy, plan, here))
    allowed = all(finding.allowed for finding in findings)
    entries = home.ledger(policy).entries() if home.has_ledger(policy) else ()
    fingerprint = ""  # of data that may share a record with any
    if data is not None and allowed:
        from testudo_client.ledger_command import fingerprint_of_table

        fingerprint = fingerprint_of_table(home.folder, plan, data, None)
    roster, contract = _roster(home), _contract_if_allowed(findings, plan)
    return {
        "plan": plan.name,
        "digest": plan.digest,
        "policy_digest": policy.digest,
        "allowed": allowed,
        "approved": _is_approved(home, entries, plan, policy),
        "rules": [_rule(finding) for finding in findings],
        "bundle": digest,
        "to": None if roster is None else _members(home, roster),
        "log": _log(plan, roster) if plan.audited else None,
        "leaves": None if contract is None else _leaves(plan, policy, contract, roster),
        "costs": _costs(plan, policy, entries, fingerprint),
        "changes": _changes(home, entries, plan, policy),
    }


def digest_of_bundle(path: Path | None) -> str:
    """SHA-256, in hex, of an app bundle; None: of the one that this installation makes.

    Raises:
        UsageError: It cannot be read, or made.
    """
    if path is None:
        return bundle_digest()
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path), remedy="check the path") from error


def _rule(finding: Finding) -> dict[str, Any]:
    rule = {"key": finding.key, "allowed": finding.allowed, "limit": finding.limit, "asked": finding.asked}
    return rule if finding.allowed else {**rule, "remedy": finding.remedy}


def _contract_if_allowed(findings: Sequence[Finding], plan: FederationPlan) -> Contract | None:
    """The shared tensors; None where the model is not allowed, since asking would run it, or cannot be built."""
    if not all(finding.allowed for finding in findings if finding.key == "model.allowed"):
        return None
    try:
        return contract_of(plan.model)
    except ModelError:
        return None


def _is_approved(home: OwnerHome, entries: Sequence[Entry], plan: FederationPlan, policy: OwnerPolicy) -> bool:
    try:
        if _key_is_there(home, policy):
            check_approved(entries, home.approving_key(policy), plan, policy)
            return True
    except ApprovalError:
        pass
    return False


def _key_is_there(home: OwnerHome, policy: OwnerPolicy) -> bool:
    return policy.pins.approvals is not None or home.identity_file.exists()


def _roster(home: OwnerHome) -> Roster | None:
    """The federation's roster, if it is here: it counts only with the signature of the pinned key."""
    return read_membership(home.folder).roster if home.roster_file.exists() else None


def _members(home: OwnerHome, roster: Roster) -> dict[str, Any]:
    key = home.federation_key_file.read_text(encoding="ascii").strip()
    return {"federation": roster.federation, "key": key, "members": sorted(roster.members)}


def _log(plan: FederationPlan, roster: Roster | None) -> dict[str, Any]:
    """Who watches the plan's log, and what that withstands; None where it depends on a roster that is not here."""
    figures = {"witnesses": None, "quorum": plan.audit.quorum, "may_be_absent": None, "colluders_found_out": None}
    if roster is not None:
        witnesses = len(roster.members)
        quorum = plan.audit.quorum or default_quorum(witnesses)
        figures = {
            "witnesses": witnesses,
            "quorum": quorum,
            "may_be_absent": max(0, witnesses - quorum),
            "colluders_found_out": colluders_found(witnesses, quorum),
        }
    return {"window": plan.audit.window, **figures}


def _leaves(plan: FederationPlan, policy: OwnerPolicy, contract: Contract, roster: Roster | None) -> dict[str, Any]:
    """Message by message, for the last round with scores and the last one without; and all rounds, at the most."""
    size, rounds = values_of(contract), plan.rounds
    names = longest_cohort(plan, policy.client, roster)
    attempts = plan.secure_aggregation.max_attempts if plan.secure else 1
    often = rounds.max_participations or rounds.count
    kinds: dict[str, dict[str, Any]] = {}
    total_up = total_down = 0
    scored = min(often, scored_participations(plan))
    for kind, count, scores in (("with_scores", scored, True), ("without_scores", often - scored, False)):
        number = next((n for n in range(rounds.count, 0, -1) if plan.scores_in(n) == scores), None)
        if number is None or count == 0:
            continue
        legs = legs_of(plan, size, names, round_number=number, attempt=attempts - 1, roster=roster)
        up, down = _sum(legs, up=True), _sum(legs, up=False)
        kinds[kind] = {
            "rounds_at_most": count,
            "messages": [{"message": g.name, "up": g.up, "holds": g.holds, "bytes": g.size_bytes} for g in legs],
            "bytes_up": up,
            "bytes_down": down,
        }
        total_up, total_down = total_up + up * count * attempts, total_down + down * count * attempts
    if plan.audited:
        only_watched = (rounds.count - often) * attempts
        total_up += only_watched * _sum(legs[:2], up=True)
        total_down += only_watched * _sum(legs[:2], up=False) + beginning_of_log(plan, roster or roster_of(names))
    refusal = Refusal(plan.digest, rounds.count, attempts - 1, _LONGEST_REASON)
    return {
        "update_values": size,
        "seen_by_the_server": "sums over groups" if plan.secure else "each update by itself",
        "statistics": list(statistics_of(plan)),
        "name_bytes": len(policy.client.encode()),
        "refusal_bytes_at_most": encode(refusal).size_bytes,
        "signature_bytes": SIGNATURE_BYTES,
        "rounds_at_most": often,
        "attempts_a_round_at_most": attempts,
        "rounds": kinds,
        "bytes_up_at_most": total_up,
        "bytes_down_at_most": total_down,
    }


def longest_cohort(plan: FederationPlan, client: str, roster: Roster | None) -> list[str]:
    """A cohort whose names take the most bytes: the longest of the roster, filled up with ``client``."""
    members = () if roster is None else tuple(roster.members)
    names = sorted(members, key=lambda name: len(name.encode()))[-plan.rounds.cohort_size :]
    return names + [client] * (plan.rounds.cohort_size - len(names))


def _sum(legs: Sequence[Leg], *, up: bool) -> int:
    return sum(leg.size_bytes for leg in legs if leg.up == up)


def _costs(plan: FederationPlan, policy: OwnerPolicy, entries: Sequence[Entry], fingerprint: str) -> dict[str, Any]:
    """Epsilon of a round and of the whole plan, by both accountants; and what every ceiling leaves."""
    account = Account(entries)
    try:
        one, run, rest = round_spending(plan), run_spending(plan), _rest_of(plan, account)
    except PrivacyError as error:
        return {"unknown": error.problem, "units": [], "ceilings": []}
    units = []
    for unit in Unit:
        if run.of(unit):
            delta = _delta_of(unit, plan, policy)
            scores = scores_spending(plan) if scored_participations(plan) and unit is Unit.EXAMPLE else Spending()
            units.append(
                {
                    "unit": unit.value,
                    "delta": delta,
                    "a_round": _figures(epsilons_of(one, unit, delta)),
                    "scores_once": _figures(epsilons_of(scores, unit, delta)) if scores.of(unit) else None,
                    "whole_plan": _figures(epsilons_of(run, unit, delta)),
                    "spent_before": _figures(epsilons_of(account.spent(fingerprint), unit, delta)),
                    "spent_after": _figures(epsilons_of(account.spent(fingerprint) + rest, unit, delta)),
                }
            )
    rooms = [_room(ceiling, account, fingerprint, one, rest) for ceiling in ceilings_of(policy, plan)]
    return {"unknown": None, "units": units, "ceilings": rooms}


def _rest_of(plan: FederationPlan, account: Account) -> Spending:
    """What this plan may still spend."""
    assert plan.rounds.max_participations is not None  # run_spending was asked before
    trained, scored = (account.answers(plan.digest, purpose) for purpose in (Purpose.TRAINING, Purpose.SCORES))
    rest = round_spending(plan).times(max(0, plan.rounds.max_participations - trained))
    left = max(0, scored_participations(plan) - scored)
    return rest + scores_spending(plan).times(left) if left else rest


def _room(ceiling: Ceiling, account: Account, fingerprint: str, one: Spending, rest: Spending) -> dict[str, Any]:
    spent = account.spent(fingerprint, ceiling.plan_digest)
    room = {"ceiling": ceiling.where, "epsilon": ceiling.epsilon}
    try:
        before, after = epsilon_under(spent, ceiling), epsilon_under(spent + rest, ceiling)
        fit: int | None = rounds_left(spent, one, ceiling) if one.of(ceiling.unit) else None
    except PrivacyError:
        return {**room, "spent": None, "after": None, "remains_after": None, "rounds_fit": 0}
    return {
        **room,
        "spent": _figure(before),
        "after": _figure(after),
        "remains_after": _figure(max(0.0, ceiling.epsilon - after)),
        "rounds_fit": fit,
    }


def _delta_of(unit: Unit, plan: FederationPlan, policy: OwnerPolicy) -> float:
    if unit is Unit.EXAMPLE:
        return policy.privacy.example.delta if policy.privacy.example else plan.privacy.delta
    return policy.privacy.client.delta if policy.privacy.client else plan.client_privacy.delta


def _figures(epsilons: Epsilons) -> dict[str, Any]:
    return {"prv": _figure(epsilons.prv), "rdp": _figure(epsilons.rdp)}


def _figure(epsilon: float | None) -> float | str | None:
    """For JSON, which has no infinity; None: not to be computed at this delta."""
    if epsilon is None:
        return None
    return "infinite" if math.isinf(epsilon) else round(epsilon, 4)


def _changes(
    home: OwnerHome, entries: Sequence[Entry], plan: FederationPlan, policy: OwnerPolicy
) -> dict[str, Any] | None:
    """How the plan differs from the one approved before; None where none was."""
    if not entries or not _key_is_there(home, policy):
        return None
    before = approved_before(entries, home.approving_key(policy), home.approved, plan.name)
    if before is None:
        return None
    changed = differences(before, plan)
    return {
        "since": {"plan": before.name, "digest": before.digest},
        "keys": [{"key": key, "before": old, "now": new} for key, (old, new) in changed.items()],
    }
