"""Rules of the audit log's charter, enrolment and decisions: what breaks one is named, and its neighbour passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from audit_cases import Case, Step, assert_needed, call, do, rules_in
from audit_logs import CLIENT_PRIVATE, EXAMPLE_PRIVATE, SCORED, SECURE, TIME, AuditLogBuilder, digest_of, key_called
from testudo_common.audit import price_rules, rules
from testudo_common.audit.entries import Enrolment, Price
from testudo_common.errors import AuditFault
from testudo_common.privacy.accountant import noise_multiplier_for
from testudo_common.roster import Roster

A, B, C = "owner-00", "owner-01", "owner-02"
TARGET = ('privacy.unit="example"', "privacy.epsilon=4", "inner.sample_rate=0.5", "rounds.max_participations=2")
BY_RDP = (*TARGET, 'privacy.accountant="rdp"')
CLIENT_TARGET = ("client_privacy.epsilon=3", "rounds.max_participations=2")


def charter_of(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Step:
    """A charter whose plan was changed, under the digest of the proper one."""
    return lambda log: log.charter(plan=change(log.plan.model_dump(mode="json")))


def another_seed(plan: dict[str, Any]) -> dict[str, Any]:
    return {**plan, "seed": 7}


def without_defaults(plan: dict[str, Any]) -> dict[str, Any]:
    """The same plan when it is read, and another text."""
    return {key: value for key, value in plan.items() if key != "seed"}


def priced(price: str, times: float) -> Step:
    """A charter with so many times the noise in one of its prices."""

    def step(log: AuditLogBuilder) -> None:
        log.charter()
        told: Price = getattr(log.history.charter, price)
        log.entries.pop()
        events = {unit: tuple((noise * times, *rest) for noise, *rest in getattr(told, unit)) for unit in UNITS}
        log.charter(**{price: Price.model_validate(events)})

    return step


def priced_by_rdp(times: float) -> Step:
    """A charter with so many times the noise that RDP would find for its plan, whose accountant is PRV."""

    def step(log: AuditLogBuilder) -> None:
        noise = times * noise_multiplier_for(4.0, 1e-5, 0.5, 4, "rdp")
        log.charter(training=Price(example=((noise, 0.5, 2),)), scores=Price())

    return step


UNITS = ("example", "client")


def enrolled(roster: Callable[[AuditLogBuilder], Roster]) -> Step:
    return lambda log: log.enrol(roster(log))


def all_but_a(log: AuditLogBuilder) -> Roster:
    return log.roster(log.owners[1:])


def signed_by_mallory(log: AuditLogBuilder) -> None:
    log.federation_key = key_called("mallory")
    log.enrol(all_but_a(log))
    log.federation_key = key_called("federation")


def of_the_stalls(log: AuditLogBuilder) -> None:
    log.enrol(Roster("stalls", log.roster().members, log.log_public))


def with_another_log(log: AuditLogBuilder) -> None:
    other = key_called("another log").public_key().public_bytes_raw()
    log.enrol(Roster("shops", log.roster().members, log.log_public[:1] + other))


def without_a_log(log: AuditLogBuilder) -> None:
    log.enrol(Roster("shops", log.roster().members))


CASES: dict[str, Case] = {
    "no charter": Case(
        AuditFault.PLAN, "the log does not begin with a charter", call("enrol"), call("charter"), enrol=False
    ),
    "an incident before the charter": Case(
        AuditFault.PLAN, "the log does not begin with a charter", call("incident"), call("charter"), enrol=False
    ),
    "a second charter": Case(AuditFault.PLAN, "a second charter", call("charter"), call("incident")),
    "another plan": Case(
        AuditFault.PLAN, "the charter is of another plan", charter_of(another_seed), call("charter"), enrol=False
    ),
    "another digest": Case(
        AuditFault.PLAN,
        "the charter is of another plan",
        call("charter", plan_digest=digest_of("another")),
        call("charter"),
        enrol=False,
    ),
    "a plan without its defaults": Case(
        AuditFault.PLAN, "the charter is of another plan", charter_of(without_defaults), call("charter"), enrol=False
    ),
    "a plan without a log": Case(
        AuditFault.PLAN,
        "the charter's plan has no audit log",
        call("charter"),
        lambda log: None,
        settings=("audit.mode=off",),
        enrol=False,
    ),
    "another window": Case(
        AuditFault.QUORUM,
        "a window of 5 rounds where the plan says 1",
        call("charter", window=5),
        call("charter", window=1),
        enrol=False,
    ),
    "a quorum below two thirds": Case(
        AuditFault.QUORUM,
        "the charter says a quorum of 5, where it must be 6",
        do(call("charter", quorum=5), call("enrol")),
        do(call("charter", quorum=6), call("enrol")),
        enrol=False,
    ),
    "a quorum above the plan's": Case(
        AuditFault.QUORUM,
        "the charter says a quorum of 6, where it must be 7",
        do(call("charter", quorum=6), call("enrol")),
        do(call("charter", quorum=7), call("enrol")),
        settings=("audit.quorum=7",),
        enrol=False,
    ),
    "a quorum that nobody can reach": Case(
        AuditFault.QUORUM,
        "a quorum of 7 where 6 are enrolled",
        enrolled(lambda log: log.roster(log.owners[2:])),
        enrolled(all_but_a),
        settings=("audit.quorum=7",),
    ),
    # What things cost.
    "training with more noise than stated": Case(
        AuditFault.EPSILON,
        "the charter's price of training is not",
        priced("training", 1.01),
        priced("training", 1.0),
        settings=EXAMPLE_PRIVATE,
        enrol=False,
    ),
    "training in fewer steps": Case(
        AuditFault.EPSILON,
        "the charter's price of training is not",
        call("charter", training=Price(example=((1.0, 0.5, 1),))),
        call("charter", training=Price(example=((1.0, 0.5, 2),))),
        settings=EXAMPLE_PRIVATE,
        enrol=False,
    ),
    "training on fewer examples": Case(
        AuditFault.EPSILON,
        "the charter's price of training is not",
        call("charter", training=Price(example=((1.0, 0.4, 2),))),
        call("charter", training=Price(example=((1.0, 0.5, 2),))),
        settings=EXAMPLE_PRIVATE,
        enrol=False,
    ),
    "training for nothing": Case(
        AuditFault.EPSILON,
        "the charter's price of training is not",
        call("charter", training=Price()),
        call("charter"),
        settings=EXAMPLE_PRIVATE,
        enrol=False,
    ),
    "scores with more noise": Case(
        AuditFault.EPSILON,
        "the charter's price of scoring the model is not",
        call("charter", scores=Price(example=((1.0, 0.5, 2), (9.0, 1.0, 1)))),
        call("charter", scores=Price(example=((1.0, 0.5, 2), (3.0, 1.0, 1)))),
        settings=(*EXAMPLE_PRIVATE, *SCORED),
        tables=SECURE,
        enrol=False,
    ),
    "sums with more noise than stated": Case(
        AuditFault.EPSILON,
        "the charter's price of a secure sum is not",
        priced("sum", 1.01),
        priced("sum", 1.0),
        settings=CLIENT_PRIVATE,
        tables=SECURE,
        enrol=False,
    ),
    "sums for nothing": Case(
        AuditFault.EPSILON,
        "the charter's price of a secure sum is not",
        call("charter", sum=Price()),
        call("charter"),
        settings=CLIENT_PRIVATE,
        tables=SECURE,
        enrol=False,
    ),
    "more noise than RDP asks for": Case(
        AuditFault.EPSILON,
        "the charter's price of training is not",
        priced("training", 1.01),
        priced("training", 1.001),
        settings=BY_RDP,
        enrol=False,
    ),
    "less noise than RDP asks for": Case(
        AuditFault.EPSILON,
        "the charter's price of training is not",
        priced("training", 0.99),
        priced("training", 0.999),
        settings=BY_RDP,
        enrol=False,
    ),
    "more noise than PRV can ask for": Case(
        AuditFault.EPSILON,
        "the charter's price of training is not",
        priced_by_rdp(1.01),
        priced_by_rdp(0.8),
        settings=TARGET,
        enrol=False,
    ),
    "sums with more noise than RDP asks for": Case(
        AuditFault.EPSILON,
        "the charter's price of a secure sum is not",
        priced("sum", 1.01),
        priced("sum", 1.0),
        settings=CLIENT_TARGET,
        tables=SECURE,
        enrol=False,
    ),
    "sums with less noise than RDP asks for": Case(
        AuditFault.EPSILON,
        "the charter's price of a secure sum is not",
        priced("sum", 0.99),
        priced("sum", 1.0),
        settings=CLIENT_TARGET,
        tables=SECURE,
        enrol=False,
    ),
    # Who is enrolled.
    "an approval before the enrolment": Case(
        AuditFault.ENROLMENT,
        "the second entry does not enrol anybody",
        call("approve", A),
        call("enrol"),
        call("charter"),
        enrol=False,
    ),
    "an incident before the enrolment": Case(
        AuditFault.ENROLMENT,
        "the second entry does not enrol anybody",
        call("incident"),
        call("enrol"),
        call("charter"),
        enrol=False,
    ),
    "a roster that the federation did not sign": Case(
        AuditFault.ENROLMENT,
        "the roster is not signed with the federation's key",
        signed_by_mallory,
        enrolled(all_but_a),
    ),
    "a roster that is none": Case(
        AuditFault.ENROLMENT,
        "not a roster",
        lambda log: log.append(Enrolment(time=TIME, roster={"federation": "shops"})),
        enrolled(all_but_a),
    ),
    "a roster of another federation": Case(
        AuditFault.ENROLMENT, "the roster is another federation's", of_the_stalls, enrolled(all_but_a)
    ),
    "a roster with another log key": Case(
        AuditFault.ENROLMENT, "the roster names another key of the log", with_another_log, enrolled(all_but_a)
    ),
    "a roster without a log key": Case(
        AuditFault.ENROLMENT,
        "the roster names no key of an audit log",
        without_a_log,
        call("enrol"),
        call("charter"),
        enrol=False,
    ),
    "a roster that changes nothing": Case(
        AuditFault.ENROLMENT, "the roster is the one that counts already", call("enrol"), enrolled(all_but_a)
    ),
    # What owners decide.
    "an approval of a stranger": Case(
        AuditFault.ENROLMENT,
        "stranger, entry 10: it is not enrolled",
        lambda log: log.approve("stranger", key=key_called("stranger")),
        call("approve", A, 1),
    ),
    "an approval signed by another": Case(
        AuditFault.SIGNATURE,
        "the approval of owner-00 is not signed with its key",
        lambda log: log.approve(A, 1, key=log.keys[B]),
        call("approve", A, 1),
    ),
    "a withdrawal signed by another": Case(
        AuditFault.SIGNATURE,
        "the withdrawal of owner-00 is not signed with its key",
        lambda log: log.withdraw(A, key=log.keys[B]),
        call("withdraw", A),
    ),
    "an approval of another plan": Case(
        AuditFault.SIGNATURE,
        "the approval of owner-00 is not signed with its key",
        call("approve", A, 1, plan_digest=digest_of("another plan")),
        call("approve", A, 1),
    ),
    "an approval that is played back": Case(
        AuditFault.APPROVAL,
        "owner-00, entry 11: decision 0 after decision 1",
        call("approve", A, 0),
        call("approve", A, 2),
        call("withdraw", A, 1),
    ),
    "a withdrawal that is played back": Case(
        AuditFault.APPROVAL,
        "decision 1 after decision 2",
        call("withdraw", A, 1),
        call("withdraw", A, 3),
        do(call("withdraw", A, 1), call("approve", A, 2)),
    ),
    "a withdrawal that forgets a round": Case(
        AuditFault.CONTRIBUTION,
        "its withdrawal names 1 rounds, and they are not the 2 that it is in",
        call("withdraw", A, rounds=(1,)),
        call("withdraw", A, rounds=(1, 2)),
        call("rounds", 2),
        settings=("rounds.cohort_size=8",),
    ),
    "a withdrawal that names a round too many": Case(
        AuditFault.CONTRIBUTION,
        "its withdrawal names 1 rounds, and they are not the 0",
        call("withdraw", C, rounds=(1,)),
        call("withdraw", C, rounds=()),
        call("rounds", 1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_breach_is_named(name: str) -> None:
    CASES[name].check_wrong()


@pytest.mark.parametrize("name", CASES)
def test_valid_neighbour_passes(name: str) -> None:
    CASES[name].check_right()


NEEDED = {
    "window_is_the_plans": (rules, "another window"),
    "example_price_is_the_plans": (price_rules, "training for nothing"),
    "client_price_is_the_plans": (price_rules, "sums for nothing"),
    "roster_is_of_this_log": (rules, "a roster with another log key"),
    "is_signed": (rules, "an approval signed by another"),
    "is_a_later_decision": (rules, "an approval that is played back"),
    "names_the_rounds_it_is_in": (rules, "a withdrawal that forgets a round"),
}


@pytest.mark.parametrize("rule", NEEDED)
def test_attack_works_where_its_rule_is_off(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name = NEEDED[rule]
    assert_needed(module, rule, CASES[name], monkeypatch)


def test_every_rule_has_its_attack() -> None:
    """Those left over give back what the fold goes on with."""
    assert rules_in(rules) | rules_in(price_rules) == set(NEEDED) | {
        "begins_with_charter_and_enrolment",
        "plan_is_the_one_approved",
        "roster_is_the_federations",
        "quorum_of",
        "is_enrolled",
    }
