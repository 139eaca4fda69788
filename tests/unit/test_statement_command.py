"""``testudo-client statement``: from the owner's own ledger, of what was charged, and of a plan that was not yet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers import make_plan
from testudo_client.cli import app
from testudo_client.home import OwnerHome
from testudo_client.init_command import InitRequest, make_home
from testudo_client.ledger import Occasion, Purpose
from testudo_common.errors import PolicyError, UsageError
from testudo_common.plan.load import dump_plan
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.privacy.planned import run_spending, training_spending

PLAN = make_plan('privacy.unit="example"', "privacy.epsilon=4", "rounds.max_participations=3", 'secure_aggregation={}',
                 "rounds.cohort_size=8")  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> OwnerHome:
    """An owner that approved the plan."""
    request = InitRequest(
        tmp_path / "mine", "ada", 8.0, 10.0, 1e-5, False, 4, 4, 100, ["linear"], 1000, "ab" * 32, 1, []
    )  # fmt: skip
    make_home(request)
    (tmp_path / "plan.toml").write_text(dump_plan(PLAN))
    return OwnerHome(tmp_path / "mine")


def charge(home: OwnerHome, round_number: int) -> None:
    home.ledger(home.policy()).reserve(
        Occasion(PLAN.digest, round_number, 0, Purpose.TRAINING),
        plan_name=PLAN.name,
        fingerprint="cd" * 32,
        spending=training_spending(PLAN),
    )


def said(home: OwnerHome, *more: str) -> dict[str, object]:
    result = CliRunner().invoke(app, ["statement", str(home.folder), "--json", *more], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_of_what_was_charged(home: OwnerHome, monkeypatch: pytest.MonkeyPatch) -> None:
    (home.folder / "approved").mkdir()
    (home.folder / "approved" / f"{PLAN.digest}.toml").write_text(dump_plan(PLAN))
    charge(home, 1)
    charge(home, 2)
    found = said(home)
    (statement,) = found["statements"]  # type: ignore[misc]
    assert statement["subject"] == "ada"
    spent = epsilon_of(training_spending(PLAN).times(2).example, 1e-5, "prv")
    assert statement["accounts"][0]["epsilon"] == spent
    assert statement["accounts"][0]["allowed"] == 4
    (together,) = found["together"]  # type: ignore[misc]
    assert "of 10 at delta 1e-05" in together
    text = CliRunner().invoke(app, ["statement", str(home.folder)]).stdout
    assert "# Privacy statement: ada" in text
    assert "## Not covered" in text


def test_of_a_plan_that_was_not_charged_yet(home: OwnerHome) -> None:
    (statement,) = said(home, "--plan", str(home.folder.parent / "plan.toml"))["statements"]  # type: ignore[misc]
    assert "as often as it may" in statement["subject"]
    assert statement["accounts"][0]["epsilon"] == epsilon_of(run_spending(PLAN).example, 1e-5, "prv")


def test_of_nothing(home: OwnerHome) -> None:
    with pytest.raises(UsageError, match="nothing was charged"):
        CliRunner().invoke(app, ["statement", str(home.folder)], catch_exceptions=False, standalone_mode=False)


def test_a_copy_of_a_plan_that_was_altered_states_nothing(home: OwnerHome) -> None:
    charge(home, 1)
    (home.folder / "approved").mkdir()
    other = dump_plan(make_plan("seed=9"))
    (home.folder / "approved" / f"{PLAN.digest}.toml").write_text(other)
    with pytest.raises(UsageError, match="nothing was charged"):
        CliRunner().invoke(app, ["statement", str(home.folder)], catch_exceptions=False, standalone_mode=False)


def test_without_a_policy(home: OwnerHome) -> None:
    home.policy_file.unlink()
    with pytest.raises(PolicyError):
        CliRunner().invoke(app, ["statement", str(home.folder)], catch_exceptions=False, standalone_mode=False)
