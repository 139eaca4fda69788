"""Accounts of a run: of one example and of a whole client, each by its own events, and as a report says them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from report_factory import arm, report, run, terminal, words

from secure_federation import secure_plan
from testudo_common.plan import FederationPlan
from testudo_common.privacy.accountant import noise_multiplier_for
from testudo_common.reporting import shown
from testudo_server.exchange import GroupRecord
from testudo_server.outer_step import OuterState
from testudo_server.store import RoundRecord, RunState
from testudo_simulations.accounts import Busiest, privacy_summary
from testudo_simulations.report import sections, wording
from testudo_simulations.report.summaries import summarise
from testudo_simulations.results import PrivacySummary

NAMES = ("ada", "bob", "cyd", "dan")
CLIENT = ("client_privacy.noise_multiplier=2.0", "client_privacy.delta=1e-4")


def state_of(**asked: int) -> RunState:
    nothing = np.empty(0)
    return RunState(
        "ab" * 32, 3, nothing.astype(np.float32), OuterState(nothing, nothing), {**dict.fromkeys(NAMES, 1), **asked}
    )


def summary_of(plan: FederationPlan, state: RunState, records: tuple[RoundRecord, ...]) -> PrivacySummary:
    return privacy_summary(plan, Busiest.of(plan, state, records))


def gaussian(noise_multiplier: float, sums: int, delta: float) -> float:
    """Epsilon by the divergence of a Gaussian, alpha / (2 z^2), over orders; Balle et al. 2020, theorem 21."""
    return min(
        alpha * sums / (2 * noise_multiplier**2) + math.log1p(-1 / alpha) - math.log(delta * alpha) / (alpha - 1)
        for alpha in np.arange(1.01, 200, 0.01)
    )


def test_client_that_was_asked_most_often_counts() -> None:
    found = summary_of(secure_plan(*CLIENT), state_of(bob=3), ())
    assert found.unit == "none"
    assert found.client is not None
    assert (found.client.sums, found.client.noise_multiplier, found.client.accountant) == (3, 2.0, "rdp")
    assert found.client.epsilon == pytest.approx(gaussian(2.0, 3, 1e-4), rel=0.01)


def test_each_attempt_is_charged() -> None:
    groups = (GroupRecord(0, NAMES, ()), GroupRecord(2, NAMES, NAMES))
    record = RoundRecord(1, "ab" * 32, NAMES, (), 0.0, 0.0, 0, 0, groups)
    plan = secure_plan(*CLIENT, "rounds.max_participations=1")
    found = summary_of(plan, state_of(), (record,)).client
    assert found is not None
    assert found.sums == 3


def test_target_epsilon_is_kept_where_nobody_is_asked_more_often() -> None:
    plan = secure_plan("client_privacy.epsilon=3", "rounds.max_participations=2")
    found = summary_of(plan, state_of(ada=2), ()).client
    assert found is not None
    assert 2.98 < found.epsilon <= found.target_epsilon == 3  # type: ignore[operator]
    assert found.noise_multiplier == noise_multiplier_for(3.0, 1e-5, 1.0, 2, "rdp")


def test_units_have_accounts_of_their_own() -> None:
    example = ('privacy.unit="example"', "privacy.noise_multiplier=1.0", "inner.sample_rate=0.5")
    both = summary_of(secure_plan(*CLIENT, *example), state_of(), ())
    alone = summary_of(secure_plan(*example), state_of(), ())
    assert (alone.client, both.client is None) == (None, False)
    assert both.model_copy(update={"client": None}) == alone
    said = wording.privacy_line(both)
    assert said.startswith(wording.privacy_line(alone))
    assert "unit: one client, in secure sums" in said


def test_report_shows_the_account_of_a_whole_client() -> None:
    accounts = [
        summary_of(secure_plan(*CLIENT), state_of(bob=often), ()).model_copy(update={"steps_per_client": 1})
        for often in (2, 3)
    ]
    runs = [
        run([arm("adapted", (0.5, 0.6))], seed=seed).model_copy(update={"privacy": account})
        for seed, account in enumerate(accounts)
    ]
    (setting,) = summarise(report(*runs))
    assert setting.privacy == accounts[1], "of the run that spent most"
    epsilon = shown.epsilon(accounts[1].client.epsilon)  # type: ignore[union-attr]
    assert wording.place(setting) == f"At client-level epsilon {epsilon}"
    page = str(sections.privacy([setting]))
    assert "unit: one client, in secure sums" in page
    assert f"epsilon {epsilon} spent at delta 0.0001; accountant RDP; noise multiplier 2; 3 sums a client" in page
    assert "unit: one client" in words(terminal(report(*runs), width=200))
