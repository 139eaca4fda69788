"""Accounts in the audit log: the report's own, recomputed from prices and cohorts alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_logs import CLIENT_PRIVATE, EXAMPLE_PRIVATE, SCORED, SECURE, AuditLogBuilder, audited_plan
from testudo_common.audit.accounts import next_accounts, same_account
from testudo_common.audit.entries import Account, Charter, decode_entry
from testudo_common.plan import FederationPlan
from testudo_common.privacy.accountant import epsilon_of
from testudo_server.exchange import GroupRecord
from testudo_server.outer_step import OuterState
from testudo_server.store import RoundRecord, RunState
from testudo_simulations.accounts import Busiest

OFTEN = ("rounds.max_participations=3",)
PLANS = {
    "no privacy": audited_plan(tables=SECURE),
    "an example": audited_plan(*EXAMPLE_PRIVATE, tables=SECURE),
    "an example, so often": audited_plan(*EXAMPLE_PRIVATE, *OFTEN, *SCORED, tables=SECURE),
    "a client": audited_plan(*CLIENT_PRIVATE, *OFTEN, tables=SECURE),
    "a client, up to a target": audited_plan("client_privacy.epsilon=3", *OFTEN, tables=SECURE),
    "both": audited_plan(*EXAMPLE_PRIVATE, *CLIENT_PRIVATE, tables=SECURE),
}


@pytest.mark.parametrize("name", PLANS)
@given(rounds=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=3))
@settings(max_examples=8, deadline=None)
def test_account_is_the_reports(name: str, rounds: list[tuple[int, int]]) -> None:
    """Of a run of which the log and the records tell the same: rounds with other cohorts, begun more or less often."""
    plan = PLANS[name]
    log = AuditLogBuilder(plan, 8)
    records: list[RoundRecord] = []
    asked = dict.fromkeys(log.owners, 0)
    for number, (left_out, attempts) in enumerate(rounds, start=1):
        cohort = log.owners[left_out : left_out + 5]
        for _ in range(attempts - 1):
            log.open(cohort=cohort)
        log.open(cohort=cohort)
        log.draw_groups()
        for owner in cohort:
            log.receive(owner)
        asked.update({owner: asked[owner] + 1 for owner in cohort})
        groups = (GroupRecord(attempts - 1, cohort, cohort),)
        records.append(RoundRecord(number, "ab" * 32, cohort, (), 0.0, 0.0, 0, 0, groups))
        busiest = Busiest.of(plan, state_after(plan, number, asked), records)
        spent = busiest.spent(plan)
        found = log.history.next_accounts()
        for account, events, private, delta in (
            (found[0], spent.example, plan.private, plan.privacy.delta),
            (found[1], spent.client, plan.client_private, plan.client_privacy.delta),
        ):
            assert (account is not None) == private
            if account is not None:
                assert account.events == tuple((e.noise_multiplier, e.sample_rate, e.steps) for e in events)
                assert (account.epsilon, account.delta) == (epsilon_of(events, delta, "rdp"), delta)
        log.close()
        if plan.evaluates_in(number):
            log.evaluate()
    assert log.history.size == len(log.entries)


def state_after(plan: FederationPlan, number: int, asked: dict[str, int]) -> RunState:
    nothing = np.empty(0)
    return RunState(plan.digest, number, nothing.astype(np.float32), OuterState(nothing, nothing), asked)


def charter_of(plan: FederationPlan) -> Charter:
    charter = decode_entry(AuditLogBuilder(plan).entries[0])
    assert isinstance(charter, Charter)
    return charter


def test_training_without_noise_has_no_bound() -> None:
    plan = audited_plan('privacy.unit="example"', "privacy.noise_multiplier=0", "inner.sample_rate=0.5")
    example, client = next_accounts(charter_of(plan), plan, 1, 0)
    assert example is not None and client is None
    assert (example.epsilon, example.events) == (None, ((0.0, 0.5, 2),))


def test_nothing_is_spent_before_anybody_was_asked() -> None:
    plan = PLANS["both"]
    example, client = next_accounts(charter_of(plan), plan, 0, 0)
    assert example is not None and client is not None
    assert (example.events, example.epsilon, client.events, client.epsilon) == ((), 0.0, (), 0.0)


ONE = Account(events=((1.0, 0.5, 4),), delta=1e-5, epsilon=3.0)


@pytest.mark.parametrize(
    "other",
    [
        {"epsilon": 3.0 * (1 + 1e-12)},
        {"events": ((1.0 + 1e-12, 0.5, 4),)},
    ],
    ids=["epsilon", "noise"],
)
def test_other_computers_arithmetic_is_no_other_account(other: dict[str, object]) -> None:
    assert same_account(ONE, ONE.model_copy(update=other))


@pytest.mark.parametrize(
    "other",
    [
        {"epsilon": 3.0 * (1 + 1e-8)},
        {"epsilon": None},
        {"delta": 1.1e-5},
        {"events": ((1.0, 0.5, 5),)},
        {"events": ((1.0 + 1e-6, 0.5, 4),)},
        {"events": ((1.0, 0.5 + 1e-6, 4),)},
        {"events": ((1.0, 0.5, 4), (2.0, 1.0, 1))},
        {"events": ()},
    ],
    ids=["epsilon", "no bound", "delta", "steps", "noise", "rate", "one more", "none"],
)
def test_another_account_is_another(other: dict[str, object]) -> None:
    assert not same_account(ONE, ONE.model_copy(update=other))


def test_no_account_is_not_an_account() -> None:
    assert same_account(None, None)
    assert not same_account(ONE, None)
