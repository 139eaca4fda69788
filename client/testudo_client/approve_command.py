"""``testudo-client approve`` and ``withdraw``: what only the owner can decide, written into its ledger and its log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from testudo_client.approvals import approve, is_digest, keep_copy, withdraw
from testudo_client.home import OwnerHome
from testudo_client.ledger import utc_now
from testudo_client.policy.check import refuse
from testudo_client.policy.findings import Launch
from testudo_client.policy.sections import OwnerPolicy
from testudo_client.preview import digest_of_bundle
from testudo_common.errors import ApprovalError, PolicyError, TestudoError, UsageError
from testudo_common.key_files import read_key
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import load_plan


def existing_home(folder: Path) -> OwnerHome:
    """The owner's folder.

    Raises:
        UsageError: There is no such folder.
    """
    if not folder.is_dir():
        raise UsageError("there is no such folder", where=str(folder), remedy=f"make it: testudo-client init {folder}")
    return OwnerHome(folder)


@contextmanager
def refusals_logged(home: OwnerHome, plan_digest: str) -> Iterator[None]:
    """Write a refusal into the owner's log on its way out."""
    try:
        yield
    except TestudoError as error:
        home.log.refused(error, plan=plan_digest)
        raise


def signing_key(home: OwnerHome, policy: OwnerPolicy | None, key_file: Path | None) -> Ed25519PrivateKey:
    """The key that this owner's decisions are signed with.

    Args:
        home: Its folder.
        policy: As it stands; None where it cannot be used, and only a withdrawal is asked for.
        key_file: Where the key lies; None: the owner's own, which the node has as well.

    Raises:
        ApprovalError: The policy pins another one.
        KeyFileError: It cannot be used.
    """
    pinned = None if policy is None else policy.pins.approvals
    if pinned is not None and key_file is None:
        raise ApprovalError(
            "approvals are signed with a key of their own, which this folder does not hold",
            where=str(home.policy_file),
            remedy="name its file by --key",
        )
    key = home.key() if key_file is None else read_key(key_file)
    if policy is not None and home.approving_key(policy).public_bytes_raw() != key.public_key().public_bytes_raw():
        raise ApprovalError(
            "this is not the key that signs approvals here",
            where=str(key_file),
            remedy="use the key whose public half is pins.approvals; where none is pinned, leave --key out",
        )
    return key


def approve_plan(
    plan: FederationPlan, home: OwnerHome, bundle: Path | None = None, key_file: Path | None = None
) -> dict[str, Any]:
    """Approve ``plan``, if the policy allows it; what was written down, as JSON has it.

    Args:
        plan: Complete.
        home: The owner's folder.
        bundle: An app bundle to compare with the pin.
        key_file: Of the key that signs; see :func:`signing_key`.

    Raises:
        PolicyError: The policy refuses the plan.
        ApprovalError, LedgerError, KeyFileError: The approval cannot be given.
    """
    policy = home.policy()
    launch = Launch(digest_of_bundle(bundle), connected=False)
    here = home.circumstances(policy.client, utc_now(), plan=plan, launch=launch)
    refuse(policy, plan, here, source=str(home.policy_file))
    key = signing_key(home, policy, key_file)
    keep_copy(home.approved, plan)  # before it counts: an approved plan can always be compared with the next one
    entry = approve(home.ledger(policy), key, plan, policy)
    home.log.write("approved", plan=plan.digest, sentence=f"approved the plan {plan.name!r}")
    return {
        "plan": plan.name,
        "digest": plan.digest,
        "policy_digest": policy.digest,
        "entry": entry.index,
        "time": entry.time,
    }


def withdraw_plan(plan_or_digest: str, home: OwnerHome, key_file: Path | None = None) -> dict[str, Any]:
    """Withdraw the approval of a plan; what was written down, as JSON has it.

    Raises:
        PlanError: It is neither a digest nor a plan's file.
        ApprovalError: The plan is not approved now.
        LedgerError, KeyFileError: It cannot be written down.
    """
    digest = plan_or_digest if is_digest(plan_or_digest) else load_plan(Path(plan_or_digest)).digest
    policy = _policy_if_usable(home)
    with refusals_logged(home, digest):
        entry = withdraw(home.ledger(policy), signing_key(home, policy, key_file), digest)
    home.log.write("withdrawn", plan=digest, sentence="withdrew the approval")
    return {"digest": digest, "entry": entry.index, "time": entry.time}


def _policy_if_usable(home: OwnerHome) -> OwnerPolicy | None:
    """The policy, for the anchors it names; without one nothing trains, but withdrawing must be possible."""
    try:
        return home.policy()
    except PolicyError:
        return None
