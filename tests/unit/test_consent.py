"""Consent is asked anew each time: what another process changed since counts at once. No data is ever there."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from policies import NOON, make_home, private_plan, write_policy
from testudo_client.approve_command import approve_plan, withdraw_plan
from testudo_client.consent import OwnerConsent
from testudo_client.home import OwnerHome
from testudo_client.ledger import Ceiling
from testudo_common.errors import ApprovalError, KeyFileError, LedgerError, PolicyError
from testudo_common.key_files import create_key
from testudo_common.plan import FederationPlan
from testudo_common.privacy.events import Unit

PLAN = private_plan("privacy.noise_multiplier=none", "privacy.epsilon=4.0")
OPEN = ("dates.not_after=2999-12-31",)


@pytest.fixture
def home(tmp_path: Path) -> OwnerHome:
    """Of an owner that has approved the plan."""
    home = make_home(tmp_path / "own", *OPEN)
    approve_plan(PLAN, home)
    return home


def consent(home: OwnerHome, plan: FederationPlan = PLAN, client_id: str = "ada", now: datetime = NOON) -> OwnerConsent:
    return OwnerConsent(home, plan, client_id, now=lambda: now)


def test_consents_round_after_round(home: OwnerHome) -> None:
    asked = consent(home)
    for _ in range(3):
        asked.check()


def test_ceilings_are_the_policys_and_the_plans(home: OwnerHome) -> None:
    assert consent(home).ceilings() == (
        Ceiling("privacy.example.epsilon_per_run", Unit.EXAMPLE, 8.0, 1e-5, "rdp", PLAN.digest),
        Ceiling("privacy.example.epsilon_for_life", Unit.EXAMPLE, 10.0, 1e-5, "rdp"),
        Ceiling("privacy.epsilon", Unit.EXAMPLE, 4.0, 1e-5, "rdp", PLAN.digest),
    )


def test_ceilings_of_both_units(tmp_path: Path) -> None:
    limits = "privacy.client={epsilon_per_run = 6.0, epsilon_for_life = 7.0, delta = 1e-6}"
    home = make_home(tmp_path / "own", *OPEN, limits)
    plan = private_plan("client_privacy.epsilon=5.0", "client_privacy.delta=1e-6", "rounds.max_participations=2")
    approve_plan(plan, home)
    found = [ceiling for ceiling in consent(home, plan).ceilings() if ceiling.unit is Unit.CLIENT]
    assert found == [
        Ceiling("privacy.client.epsilon_per_run", Unit.CLIENT, 6.0, 1e-6, "rdp", plan.digest),
        Ceiling("privacy.client.epsilon_for_life", Unit.CLIENT, 7.0, 1e-6, "rdp"),
        Ceiling("client_privacy.epsilon", Unit.CLIENT, 5.0, 1e-6, "rdp", plan.digest),
    ]


def test_no_policy_no_training(tmp_path: Path) -> None:
    for act in (OwnerConsent.check, OwnerConsent.ceilings):
        with pytest.raises(PolicyError, match="there is no policy"):
            act(consent(OwnerHome(tmp_path)))
    assert list(tmp_path.iterdir()) == [], "nothing is made"


def test_approval_withdrawn_between_two_rounds(home: OwnerHome) -> None:
    asked = consent(home)
    asked.check()
    withdraw_plan(PLAN.digest, home)
    for act in (asked.check, asked.ceilings):
        with pytest.raises(ApprovalError, match="withdrawn"):
            act()
    approve_plan(PLAN, home)
    asked.check()


def test_policy_tightened_between_two_rounds(home: OwnerHome) -> None:
    asked = consent(home)
    asked.check()
    write_policy(home.policy_file, 'pins.federation_key="any"', 'pins.code="any"', *OPEN, "model.allowed=[]")
    with pytest.raises(PolicyError, match=r"model\.allowed"):
        asked.check()


def test_policy_loosened_between_two_rounds(home: OwnerHome) -> None:
    """By somebody who can write the file, perhaps: only the owner's key makes it count."""
    asked = consent(home)
    asked.check()
    loose = "privacy.example.epsilon_for_life=99.0"
    write_policy(home.policy_file, 'pins.federation_key="any"', 'pins.code="any"', *OPEN, loose)
    for act in (asked.check, asked.ceilings):
        with pytest.raises(ApprovalError, match="policy has changed"):
            act()
    approve_plan(PLAN, home)
    asked.check()
    assert asked.ceilings()[1].epsilon == 99.0


def test_policy_that_others_may_write_from_now_on(home: OwnerHome) -> None:
    asked = consent(home)
    asked.check()
    home.policy_file.chmod(0o666)
    with pytest.raises(PolicyError, match="others may write it"):
        asked.check()


def test_policy_removed_between_two_rounds(home: OwnerHome) -> None:
    asked = consent(home)
    asked.check()
    home.policy_file.unlink()
    with pytest.raises(PolicyError, match="there is no policy"):
        asked.check()


def test_policy_that_has_run_out(tmp_path: Path) -> None:
    home = make_home(tmp_path / "own")
    with pytest.raises(PolicyError, match=r"dates\.not_after"):
        consent(home, now=datetime(2027, 1, 1, tzinfo=UTC)).check()


@pytest.mark.parametrize("client_id", ["bob", "Ada", ""])
def test_another_name(home: OwnerHome, client_id: str) -> None:
    with pytest.raises(PolicyError, match="client: this client is"):
        consent(home, client_id=client_id).check()


def test_another_plan(home: OwnerHome) -> None:
    with pytest.raises(ApprovalError, match="not approved"):
        consent(home, private_plan("seed=1")).check()


def test_another_key_in_the_folder(home: OwnerHome) -> None:
    home.identity_file.unlink()
    with pytest.raises(KeyFileError, match="cannot be read"):
        consent(home).check()
    create_key(home.identity_file)
    with pytest.raises(ApprovalError, match="not signed with your key"):
        consent(home).check()


def test_ledger_taken_away(home: OwnerHome) -> None:
    asked = consent(home)
    asked.check()
    shutil.rmtree(home.state)
    for again in (asked, consent(home)):
        with pytest.raises(LedgerError):
            again.check()


def test_pinned_code_and_federation(tmp_path: Path) -> None:
    from testudo_client.code_digest import code_digest

    home = make_home(tmp_path / "own", *OPEN, f'pins.code=["{code_digest()}"]', f'pins.federation_key=["{"a" * 64}"]')
    with pytest.raises(PolicyError, match=r"pins\.federation_key: not known here") as caught:
        consent(home).check()
    assert [fault.key for fault in caught.value.faults] == ["pins.federation_key"]
