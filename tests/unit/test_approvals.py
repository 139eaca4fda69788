"""An approval is the owner's own signature on this plan, under this policy, at this place; the latest entry counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies import make_policy, private_plan
from testudo_client.approvals import (
    approve,
    approved_before,
    check_approved,
    differences,
    is_digest,
    keep_copy,
    withdraw,
)
from testudo_client.ledger import Approved, Ledger, Withdrawn
from testudo_common.errors import ApprovalError
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import dump_plan

KEY, OTHER_KEY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
POLICY, PLAN = make_policy(), private_plan()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(None)


def refusal(ledger: Ledger, plan: FederationPlan = PLAN, policy: object = POLICY, key: Ed25519PrivateKey = KEY) -> str:
    """Why the plan is not approved; empty if it is."""
    try:
        check_approved(ledger.entries(), key.public_key(), plan, policy)  # type: ignore[arg-type]
    except ApprovalError as error:
        assert error.remedy
        return error.problem
    return ""


def approved_entry(ledger: Ledger) -> Approved:
    content = ledger.entries()[-1].content
    assert isinstance(content, Approved)
    return content


def test_approved(ledger: Ledger) -> None:
    assert refusal(ledger) == "this plan is not approved"
    entry = approve(ledger, KEY, PLAN, POLICY)
    assert refusal(ledger) == ""
    assert entry.content == Approved(PLAN.digest, "private", POLICY.digest, "ada", approved_entry(ledger).signature)


def test_another_plan_is_not_approved_with_it(ledger: Ledger) -> None:
    approve(ledger, KEY, PLAN, POLICY)
    assert refusal(ledger, private_plan("seed=1")) == "this plan is not approved"


def test_withdrawn_and_approved_again(ledger: Ledger) -> None:
    for _ in range(2):
        approve(ledger, KEY, PLAN, POLICY)
        assert refusal(ledger) == ""
        withdraw(ledger, KEY, PLAN.digest)
        assert refusal(ledger) == "this plan was approved, and the approval withdrawn"
    assert len(ledger) == 5, "nothing is ever taken out"


def test_approved_twice_is_approved(ledger: Ledger) -> None:
    approve(ledger, KEY, PLAN, POLICY)
    approve(ledger, KEY, PLAN, POLICY)
    assert refusal(ledger) == ""


def test_nothing_to_withdraw(ledger: Ledger) -> None:
    with pytest.raises(ApprovalError, match="was never approved"):
        withdraw(ledger, KEY, PLAN.digest)
    approve(ledger, KEY, PLAN, POLICY)
    withdraw(ledger, KEY, PLAN.digest)
    with pytest.raises(ApprovalError, match="was withdrawn already"):
        withdraw(ledger, KEY, PLAN.digest)


def test_policy_that_was_changed_since(ledger: Ledger) -> None:
    """Whoever can write the policy and has no key would otherwise widen what was approved."""
    approve(ledger, KEY, PLAN, POLICY)
    wider = make_policy("privacy.example.epsilon_for_life=99.0")
    assert refusal(ledger, PLAN, wider) == "your policy has changed since you approved this plan"
    approve(ledger, KEY, PLAN, wider)
    assert refusal(ledger, PLAN, wider) == ""


# --- written by somebody who has no key, or another one

FOREIGN = "what stands in the ledger on this plan is not signed with your key"


def test_signed_with_a_foreign_key(ledger: Ledger) -> None:
    with pytest.raises(ApprovalError, match="not signed with your key"):
        check_approved(_approved_by(OTHER_KEY).entries(), KEY.public_key(), PLAN, POLICY)


def _approved_by(key: Ed25519PrivateKey) -> Ledger:
    ledger = Ledger(None)
    approve(ledger, key, PLAN, POLICY)
    return ledger


@pytest.mark.parametrize(
    "change",
    [
        {"signature": "00" * 64},
        {"signature": ""},
        {"signature": "not hex"},
        {"plan_name": "other"},
        {"policy_digest": "0" * 64},
        {"client_id": "eve"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_tampered(ledger: Ledger, change: dict[str, str]) -> None:
    signed = approved_entry(_approved_by(KEY))
    ledger.append(replace(signed, **change))  # type: ignore[arg-type]
    assert refusal(ledger) == FOREIGN


def test_signature_of_another_plan(ledger: Ledger) -> None:
    other = private_plan("seed=1")
    approve(ledger, KEY, other, POLICY)
    ledger.append(replace(approved_entry(ledger), plan_digest=PLAN.digest))
    assert refusal(ledger, other) == ""
    assert refusal(ledger) == FOREIGN


def test_approval_copied_behind_a_withdrawal(ledger: Ledger) -> None:
    approve(ledger, KEY, PLAN, POLICY)
    signed = approved_entry(ledger)
    withdraw(ledger, KEY, PLAN.digest)
    ledger.append(signed)
    assert refusal(ledger) == FOREIGN
    approve(ledger, KEY, PLAN, POLICY)
    assert refusal(ledger) == "", "the owner itself can still approve it"


def test_approval_copied_from_another_ledger(ledger: Ledger) -> None:
    ledger.append(approved_entry(_approved_by(KEY)))
    assert refusal(ledger) == FOREIGN


def test_withdrawal_by_somebody_else_stops_all_the_same(ledger: Ledger) -> None:
    approve(ledger, KEY, PLAN, POLICY)
    ledger.append(Withdrawn(PLAN.digest, "ada", "00" * 64))
    assert refusal(ledger) == FOREIGN


def test_withdrawal_cannot_be_turned_into_an_approval(ledger: Ledger) -> None:
    approve(ledger, KEY, PLAN, POLICY)
    entry = withdraw(ledger, KEY, PLAN.digest)
    assert isinstance(entry.content, Withdrawn)
    again = Ledger(None)
    again.append(Approved(PLAN.digest, PLAN.name, POLICY.digest, "ada", entry.content.signature))
    assert refusal(again) == FOREIGN


# --- what was approved before


def test_differences_key_by_key() -> None:
    changed = private_plan("rounds.count=30", "privacy.noise_multiplier=2.0", "inner.steps=3", "model.outputs=none")
    assert differences(PLAN, changed) == {
        "inner.steps": (2, 3),
        "model.outputs": (2, None),
        "privacy.noise_multiplier": (1.5, 2.0),
        "rounds.count": (20, 30),
    }
    assert differences(PLAN, private_plan()) == {}


def test_the_last_one_of_the_same_name_or_else_the_last_one(ledger: Ledger, tmp_path: Path) -> None:
    public = KEY.public_key()
    first, second, other = PLAN, private_plan("seed=1"), private_plan('name="other"')
    assert approved_before(ledger.entries(), public, tmp_path, "private") is None
    for plan in (first, second, other):
        keep_copy(tmp_path, plan)
        approve(ledger, KEY, plan, POLICY)
    assert approved_before(ledger.entries(), public, tmp_path, "private") == second
    assert approved_before(ledger.entries(), public, tmp_path, "new") == other
    withdraw(ledger, KEY, second.digest)
    assert approved_before(ledger.entries(), public, tmp_path, "private") == second, "it was looked at all the same"


def test_a_plan_that_somebody_else_put_there_is_not_compared_with(ledger: Ledger, tmp_path: Path) -> None:
    approve(ledger, KEY, PLAN, POLICY)
    keep_copy(tmp_path, PLAN)
    forged = private_plan("seed=1")
    keep_copy(tmp_path, forged)
    ledger.append(replace(approved_entry(ledger), plan_digest=forged.digest))
    assert approved_before(ledger.entries(), KEY.public_key(), tmp_path, "private") == PLAN
    (tmp_path / f"{PLAN.digest}.toml").write_text(dump_plan(forged))
    assert approved_before(ledger.entries(), KEY.public_key(), tmp_path, "private") is None


@pytest.mark.parametrize(
    ("text", "named"),
    [("a" * 64, True), ("A" * 64, False), ("a" * 63, False), ("plan.toml", False), ("a" * 64 + "\n", False)],
)
def test_digests_are_told_from_files(text: str, named: bool) -> None:
    assert is_digest(text) is named
