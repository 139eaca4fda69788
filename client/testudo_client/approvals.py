"""A data owner's approvals: of a plan, signed with its own key, kept in its ledger. The latest entry of a plan counts.

What is signed names the plan, the policy it was approved under, the ledger, and the place among the entries on this
plan. So whoever can write the ledger's file and has no key can neither approve a plan, nor put an old approval behind a
withdrawal. Signatures: Ed25519 (RFC 8032) over ``testudo-approval-1`` and RFC 8785 canonical JSON.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from testudo_client.ledger import Approved, Entry, Ledger, Opened, Withdrawn
from testudo_client.policy.sections import OwnerPolicy
from testudo_common.errors import ApprovalError, PlanError
from testudo_common.files import write_atomically
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import dump_plan, load_plan

_DOMAIN = b"testudo-approval-1"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LOOK = "look at it with testudo-client preview, and then run testudo-client approve"


def approve(ledger: Ledger, key: Ed25519PrivateKey, plan: FederationPlan, policy: OwnerPolicy) -> Entry:
    """Write down that the owner approves ``plan``; whether its policy allows it is asked elsewhere.

    Raises:
        ApprovalError: Another process approved or withdrew it at the same moment.
        LedgerError: The ledger cannot be trusted or written.
    """
    entries = ledger.entries()
    number = len(_decisions(entries, plan.digest))
    unsigned = Approved(plan.digest, plan.name, policy.digest, policy.client, "")
    entry = ledger.append(
        Approved(plan.digest, plan.name, policy.digest, policy.client, _sign(key, entries, unsigned, number))
    )
    check_approved(ledger.entries(), key.public_key(), plan, policy)
    return entry


def withdraw(ledger: Ledger, key: Ed25519PrivateKey, plan_digest: str) -> Entry:
    """Write down that the owner takes no further part in a plan. What is spent stays spent.

    Raises:
        ApprovalError: The plan is not approved now.
        LedgerError: The ledger cannot be trusted or written.
    """
    entries = ledger.entries()
    decisions = _decisions(entries, plan_digest)
    if not decisions or not isinstance(decisions[-1], Approved):
        state = "was withdrawn already" if decisions else "was never approved"
        raise ApprovalError(
            f"this plan {state}", where=plan_digest, remedy="testudo-client log shows what was approved"
        )
    client_id = decisions[-1].client_id
    signature = _sign(key, entries, Withdrawn(plan_digest, client_id, ""), len(decisions))
    return ledger.append(Withdrawn(plan_digest, client_id, signature))


def check_approved(
    entries: Sequence[Entry], public_key: Ed25519PublicKey, plan: FederationPlan, policy: OwnerPolicy
) -> None:
    """Return only if the owner has approved ``plan``, under the policy as it is now.

    Args:
        entries: Of the ledger, all and verified.
        public_key: The owner's own.
        plan: The plan installed here.
        policy: As it stands now; one that was changed needs the owner to look again.

    Raises:
        ApprovalError: It has not, it has withdrawn, or what stands there is not its own.
    """
    decisions = _decisions(entries, plan.digest)
    if not decisions:
        raise ApprovalError("this plan is not approved", where=plan.name, remedy=_LOOK)
    latest = decisions[-1]
    _verify(public_key, entries, latest, len(decisions) - 1)
    if isinstance(latest, Withdrawn):
        raise ApprovalError("this plan was approved, and the approval withdrawn", where=plan.name, remedy=_LOOK)
    if latest.client_id != policy.client or latest.plan_name != plan.name:
        raise ApprovalError("this plan was approved under another name", where=plan.name, remedy=_LOOK)
    if latest.policy_digest != policy.digest:
        raise ApprovalError("your policy has changed since you approved this plan", where=plan.name, remedy=_LOOK)


def last_decision(
    entries: Sequence[Entry], public_key: Ed25519PublicKey, plan: FederationPlan, policy: OwnerPolicy | None
) -> tuple[bool, int] | None:
    """What the owner decided last on ``plan``: whether it approves, and how many decisions on it stand before.

    None if it decided nothing, if what stands there is not its own, or if its approval does not hold under the policy
    as it is now.
    """
    decisions = _decisions(entries, plan.digest)
    try:
        if decisions and isinstance(decisions[-1], Withdrawn):
            _verify(public_key, entries, decisions[-1], len(decisions) - 1)
            return False, len(decisions) - 1
        if policy is None:
            return None
        check_approved(entries, public_key, plan, policy)
    except ApprovalError:
        return None
    return True, len(decisions) - 1


def is_digest(text: str) -> bool:
    """Whether ``text`` names a plan by its digest."""
    return _DIGEST.fullmatch(text) is not None


def keep_copy(folder: Path, plan: FederationPlan) -> None:
    """Keep an approved plan, so that a later one can be compared with it."""
    write_atomically(folder / f"{plan.digest}.toml", dump_plan(plan).encode())


def approved_before(
    entries: Sequence[Entry], public_key: Ed25519PublicKey, folder: Path, name: str
) -> FederationPlan | None:
    """The plan that the owner approved last under this name, or else last of all; None if there is none to read.

    Only what the owner signed, and a copy of which the digest is right, is taken: a difference that is not shown would
    be approved unseen.
    """
    latest_first = _signed(entries, public_key)[::-1]
    for approved in sorted(latest_first, key=lambda one: one.plan_name != name):  # stable: the same name first
        try:
            plan = load_plan(folder / f"{approved.plan_digest}.toml")
        except PlanError:
            continue
        if plan.digest == approved.plan_digest:
            return plan
    return None


def differences(before: FederationPlan, now: FederationPlan) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (before, now), for every key in which two plans differ; None for a key that is not there."""
    old, new = _flat(before.model_dump(mode="json")), _flat(now.model_dump(mode="json"))
    return {key: (old.get(key), new.get(key)) for key in sorted({*old, *new}) if old.get(key) != new.get(key)}


def _flat(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _signed(entries: Sequence[Entry], public_key: Ed25519PublicKey) -> list[Approved]:
    """The approvals that the owner signed, in order."""
    found: list[Approved] = []
    numbers: dict[str, int] = {}
    for entry in entries:
        content = entry.content
        if isinstance(content, Approved | Withdrawn):
            number = numbers.setdefault(content.plan_digest, 0)
            numbers[content.plan_digest] += 1
            if isinstance(content, Approved) and is_digest(content.plan_digest):
                try:
                    _verify(public_key, entries, content, number)
                except ApprovalError:
                    continue
                found.append(content)
    return found


def _decisions(entries: Sequence[Entry], plan_digest: str) -> list[Approved | Withdrawn]:
    """What was decided on one plan, in order, by whomever."""
    contents = (entry.content for entry in entries)
    return [
        content
        for content in contents
        if isinstance(content, Approved | Withdrawn) and content.plan_digest == plan_digest
    ]


def _sign(key: Ed25519PrivateKey, entries: Sequence[Entry], content: Approved | Withdrawn, number: int) -> str:
    return key.sign(_signed_bytes(entries, content, number)).hex()


def _verify(public_key: Ed25519PublicKey, entries: Sequence[Entry], content: Approved | Withdrawn, number: int) -> None:
    try:
        public_key.verify(bytes.fromhex(content.signature), _signed_bytes(entries, content, number))
    except (InvalidSignature, ValueError) as error:
        raise ApprovalError(
            "what stands in the ledger on this plan is not signed with your key",
            where=content.plan_digest,
            remedy=f"find out who wrote it; to go on, {_LOOK}",
        ) from error


def _signed_bytes(entries: Sequence[Entry], content: Approved | Withdrawn, number: int) -> bytes:
    """What is signed of one decision.

    Args:
        entries: Of the ledger; the first one names it.
        content: The decision; its signature is left out.
        number: How many decisions on this plan stand before it.
    """
    first = entries[0].content
    assert isinstance(first, Opened)  # every ledger begins with it
    named: dict[str, str | int] = {
        "client_id": content.client_id,
        "ledger": first.ledger_id,
        "number": number,
        "plan_digest": content.plan_digest,
    }
    if isinstance(content, Approved):
        named |= {"action": "approve", "plan_name": content.plan_name, "policy_digest": content.policy_digest}
    else:
        named["action"] = "withdraw"
    return _DOMAIN + rfc8785.dumps(named)
