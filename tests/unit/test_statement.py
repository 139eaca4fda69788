"""The privacy statement: it says what the plan and the account say, rounds up, and leaves nothing out that is off."""

from __future__ import annotations

import json
import math

import pytest

from helpers import make_plan
from secure_federation import NOISY, secure_plan
from testudo_common.plan import FederationPlan
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.privacy.events import SampledGaussian, Spending
from testudo_common.privacy.planned import run_spending
from testudo_common.privacy.statement import PrivacyStatement, shown_epsilon, statement_of

CLIENT_LEVEL = ("client_privacy.noise_multiplier=2", "rounds.max_participations=2")


def stated(plan: FederationPlan, spent: Spending | None = None) -> PrivacyStatement:
    return statement_of(plan, run_spending(plan) if spent is None else spent, subject="ada")


def test_example_level_account() -> None:
    plan = secure_plan(*NOISY, "rounds.max_participations=2")
    (account,) = stated(plan).accounts
    events = run_spending(plan).example
    assert account.unit == "example"
    assert account.epsilon == epsilon_of(events, 1e-5, "prv")
    assert account.epsilon_by_rdp == epsilon_of(events, 1e-5, "rdp")
    assert account.allowed is None
    assert account.mechanisms == ("4 Gaussian steps, noise multiplier 1, sampling rate 0.5",)
    assert "does not rest on secure aggregation" in account.adversary


def test_both_units_have_accounts_of_their_own() -> None:
    plan = secure_plan(*NOISY, *CLIENT_LEVEL, "client_privacy.delta=1e-6")
    example, client = stated(plan).accounts
    assert (example.unit, client.unit) == ("example", "client")
    assert (example.delta, client.delta) == (1e-5, 1e-6)
    assert client.epsilon == epsilon_of([SampledGaussian(2.0, 1.0, 2)], 1e-6, "rdp")
    assert "at most 10% of a group's members" in client.adversary
    assert stated(plan).unprotected == ()


def test_what_is_off_is_said() -> None:
    text = stated(make_plan("rounds.max_participations=1")).as_text()
    assert "Single examples are not protected" in text
    assert "A client as a whole is not protected" in text
    assert "Secure aggregation is off" in text
    assert "epsilon" not in text.split("## Not covered")[0]


def test_exact_scores_are_said_to_be_uncovered() -> None:
    scored = secure_plan("evaluation.federated_every_rounds=1", "rounds.max_participations=1")
    assert any("scores" in line for line in stated(scored).not_covered)
    noisy = secure_plan(
        *NOISY,
        "evaluation.federated_every_rounds=1",
        "evaluation.federated_noise_multiplier=2",
        "rounds.max_participations=1",
    )
    assert not any("scores" in line for line in stated(noisy).not_covered)
    (account,) = stated(noisy).accounts
    assert "their noise is in the opened sums" in account.adversary, "that part rests on secure aggregation"


def test_steps_without_noise_are_infinite() -> None:
    plan = secure_plan(*NOISY, "privacy.noise_multiplier=0", "rounds.max_participations=1")
    statement = stated(plan)
    assert math.isinf(statement.accounts[0].epsilon)
    assert "epsilon infinite at delta" in statement.as_text()
    again = json.loads(json.dumps(statement.as_json(), allow_nan=False))
    assert again["accounts"][0]["epsilon"] is None
    assert again["plan_digest"] == plan.digest


@pytest.mark.parametrize(
    ("epsilon", "text"), [(0.0, "0.00"), (7.991, "8.00"), (8.0, "8.00"), (8.0001, "8.01"), (math.inf, "infinite")]
)
def test_epsilon_is_never_shown_smaller(epsilon: float, text: str) -> None:
    assert shown_epsilon(epsilon) == text


@pytest.mark.parametrize("settings", [(), NOISY, (*NOISY, "privacy.noise_multiplier=0"), (*NOISY, *CLIENT_LEVEL)])
def test_statement_survives_a_report(settings: tuple[str, ...]) -> None:
    statement = stated(secure_plan(*settings, "rounds.max_participations=2"))
    again = PrivacyStatement.of_json(json.loads(json.dumps(statement.as_json(), allow_nan=False)))
    assert again == statement
    assert again.as_text() == statement.as_text()
