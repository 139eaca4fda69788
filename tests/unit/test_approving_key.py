"""Approvals signed with a key that the node does not have: who runs the node cannot approve for the owner."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers import OWNERS_TABLE, make_plan
from testudo_client.approve_command import approve_plan, withdraw_plan
from testudo_client.cli import app
from testudo_client.consent import OwnerConsent
from testudo_client.home import OwnerHome
from testudo_client.own_voice import Decision, LedgerVoice
from testudo_client.policy.findings import Launch
from testudo_common.app_bundle import bundle_digest
from testudo_common.errors import ApprovalError, UsageError
from testudo_common.plan.load import dump_plan
from testudo_server.roster import FEDERATION_PUBLIC, admit

TABLE = {
    **OWNERS_TABLE,
    "rounds": {"count": 3, "cohort_size": 12, "max_participations": 3},
    "privacy": {"unit": "example", "epsilon": 6.0, "accountant": "rdp"},
    "secure_aggregation": {"group_size": 10, "min_group": 4, "min_cohort": 10},
    "inner": {"steps": 3, "learning_rate": 0.2, "sample_rate": 0.5},
}
PLAN = make_plan('audit.mode="log"', tables=TABLE)


@pytest.fixture
def owner(tmp_path: Path) -> tuple[OwnerHome, Path]:
    """A folder, and the key elsewhere that signs its approvals."""
    admit(tmp_path / "server", "shops", {})
    pinned = (tmp_path / "server" / FEDERATION_PUBLIC).read_text().strip()
    made = CliRunner().invoke(
        app,
        [
            "init", str(tmp_path / "own"), "--client", "ada", "--federation-key", pinned, "--json",
            "--approval-key", str(tmp_path / "stick" / "approve.pem"),
        ],
        catch_exceptions=False,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    home = OwnerHome(tmp_path / "own")
    assert home.policy().pins.approvals == json.loads(made.stdout)["approvals"] is not None
    shutil.copy(tmp_path / "server" / FEDERATION_PUBLIC, home.federation_key_file)
    return home, tmp_path / "stick" / "approve.pem"


def consent(home: OwnerHome) -> OwnerConsent:
    return OwnerConsent(home, PLAN, "ada", launch=Launch(bundle_digest()))


def test_owner_approves_and_the_node_consents(owner: tuple[OwnerHome, Path]) -> None:
    home, key = owner
    assert key.stat().st_mode & 0o777 == 0o600
    approve_plan(PLAN, home, key_file=key)
    key.unlink()  # the node has no use for it
    consent(home).check()
    assert LedgerVoice(home, PLAN).decision() == Decision(approves=True, number=0)


def test_node_cannot_approve_with_its_own_key(owner: tuple[OwnerHome, Path]) -> None:
    home, _ = owner
    with pytest.raises(ApprovalError, match="a key of their own"):
        approve_plan(PLAN, home)
    with pytest.raises(ApprovalError, match="not the key that signs approvals"):
        approve_plan(PLAN, home, key_file=home.identity_file)
    with pytest.raises(ApprovalError, match="not approved"):
        consent(home).check()
    assert LedgerVoice(home, PLAN).decision() is None


def test_approval_written_with_the_nodes_key_does_not_count(owner: tuple[OwnerHome, Path]) -> None:
    """As somebody with the node's rights could write it into the ledger: by leaving the pin out for a moment."""
    home, _ = owner
    policy = home.policy_file.read_text()
    home.policy_file.write_text("\n".join(line for line in policy.splitlines() if not line.startswith("approvals")))
    approve_plan(PLAN, home)
    consent(home).check()
    home.policy_file.write_text(policy)
    with pytest.raises(ApprovalError, match="not signed with your key"):
        consent(home).check()


def test_withdrawing_needs_it_too(owner: tuple[OwnerHome, Path]) -> None:
    home, key = owner
    approve_plan(PLAN, home, key_file=key)
    with pytest.raises(ApprovalError, match="a key of their own"):
        withdraw_plan(PLAN.digest, home)
    withdraw_plan(PLAN.digest, home, key)
    with pytest.raises(ApprovalError, match="withdrawn"):
        consent(home).check()
    assert LedgerVoice(home, PLAN).decision() == Decision(approves=False, number=1)


def test_key_inside_the_nodes_folder_is_refused(tmp_path: Path) -> None:
    words = ["init", str(tmp_path / "own"), "--client", "ada", "--yes", "--approval-key", str(tmp_path / "own" / "k")]
    with pytest.raises(UsageError, match="kept from it"):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert not (tmp_path / "own").exists()


def test_command_takes_the_key(owner: tuple[OwnerHome, Path], tmp_path: Path) -> None:
    home, key = owner
    (tmp_path / "plan.toml").write_text(dump_plan(PLAN))
    words = ["approve", str(tmp_path / "plan.toml"), str(home.folder), "--key", str(key), "--yes", "--json"]
    found = CliRunner().invoke(app, words, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["digest"] == PLAN.digest


def test_auditor_needs_no_key(owner: tuple[OwnerHome, Path], tmp_path: Path) -> None:
    """Without any private key there, the account and the statement are what they are at the owner."""
    home, key = owner
    approve_plan(PLAN, home, key_file=key)

    (tmp_path / "plan.toml").write_text(dump_plan(PLAN))
    commands = (["ledger"], ["statement", "--plan", str(tmp_path / "plan.toml")], ["log"])

    def shown() -> list[str]:
        results = [
            CliRunner().invoke(app, [name, str(home.folder), *words, "--json"], catch_exceptions=False)
            for name, *words in commands
        ]
        assert all(result.exit_code == 0 for result in results)
        return [result.stdout for result in results]

    before = shown()
    home.identity_file.unlink()
    assert shown() == before
