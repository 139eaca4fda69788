"""Rules of a round that closes, and of what follows it: what breaks one is named, and its valid neighbour passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from audit_cases import Case, Step, assert_needed, call, do, rules_in
from audit_logs import CLIENT_PRIVATE, EXAMPLE_PRIVATE, SCORED, SECURE, AuditLogBuilder, digest_of
from testudo_common.audit import closing_rules
from testudo_common.audit.entries import Reason
from testudo_common.errors import AuditFault

A, B, C = "owner-00", "owner-01", "owner-02"
Groups = tuple[tuple[str, ...], ...]


def closed_with(change: Callable[[Groups], Groups]) -> Step:
    """Closes with other survivors than there are."""
    return lambda log: log.close(survivors=change(log.survivors))


def closed_with_forgotten(change: Callable[[Groups], Groups]) -> Step:
    """The same, and not a word about those that are not in it."""
    return lambda log: log.close(survivors=change(log.survivors), forgets=True)


def accounted(unit: str, **changed: Any) -> Step:
    """Closes with a changed account."""

    def step(log: AuditLogBuilder) -> None:
        account = log.history.next_accounts()[unit == "client"]
        assert account is not None
        log.close(**{unit: account.model_copy(update=changed)})

    return step


def cheaper(unit: str) -> Step:
    """Closes with an epsilon that is smaller by a millionth."""

    def step(log: AuditLogBuilder) -> None:
        account = log.history.next_accounts()[unit == "client"]
        assert account is not None and account.epsilon is not None
        accounted(unit, epsilon=account.epsilon * (1 - 1e-6))(log)

    return step


OPEN, TRAINED, CLOSE = call("open"), call("attempt"), call("close")
SECURELY: Any = {"tables": SECURE}

CASES: dict[str, Case] = {
    "a round closed twice": Case(AuditFault.ROUND, "round 1 is not open", CLOSE, do(TRAINED, CLOSE), call("round")),
    "an abandoned attempt closed": Case(
        AuditFault.ROUND,
        "of attempt 0 at round 1, where attempt 1 at round 1 is open",
        call("close", attempt=0),
        CLOSE,
        do(TRAINED, TRAINED),
    ),
    "a survivor that was not asked": Case(
        AuditFault.GROUPS,
        "not one client a row",
        closed_with(lambda survivors: (*survivors, (C,))),
        CLOSE,
        TRAINED,
    ),
    "two clients in a row of a plain plan": Case(
        AuditFault.GROUPS, "not one client a row", closed_with(lambda alone: ((A, B),)), CLOSE, TRAINED
    ),
    "a row of nobody": Case(
        AuditFault.GROUPS, "not one client a row", closed_with(lambda alone: (*alone, ())), CLOSE, TRAINED
    ),
    "a survivor that counts twice": Case(
        AuditFault.GROUPS, "one client counts twice", closed_with(lambda alone: (*alone, alone[0])), CLOSE, TRAINED
    ),
    "survivors of two groups in one sum": Case(
        AuditFault.GROUPS,
        "survivors that are not of one group",
        closed_with(lambda groups: ((*groups[0], *groups[1]),)),
        closed_with(lambda groups: groups[:1]),
        TRAINED,
        **SECURELY,
    ),
    "a survivor that counts twice in a sum": Case(
        AuditFault.GROUPS,
        "survivors that are not of one group",
        closed_with(lambda groups: ((*groups[0], groups[0][0]),)),
        closed_with(lambda groups: (groups[0][::-1],)),
        TRAINED,
        **SECURELY,
    ),
    "two sums over one group": Case(
        AuditFault.GROUPS,
        "one group is summed twice",
        closed_with(lambda groups: (groups[0], groups[0][:3])),
        closed_with(lambda groups: (groups[0][:3],)),
        TRAINED,
        **SECURELY,
    ),
    "a sum over too few": Case(
        AuditFault.GROUPS,
        "a sum over 2, where 3 are the fewest",
        closed_with(lambda groups: (groups[0][:2], groups[1])),
        closed_with(lambda groups: (groups[0][:3], groups[1])),
        TRAINED,
        **SECURELY,
    ),
    "a survivor that sent nothing": Case(
        AuditFault.CONTRIBUTION,
        "owner-00, entry 12: it is said to be in the round, and sent no update",
        call("close", survivors=((A,), (B,))),
        call("close", survivors=((B,),)),
        call("attempt", silent=(A,)),
    ),
    "a survivor that was rejected": Case(
        AuditFault.CONTRIBUTION,
        "owner-00, entry 14: it is said to be in the round, and was rejected",
        call("close", survivors=((A,), (B,))),
        call("close", survivors=((B,),)),
        do(TRAINED, call("reject", {A: Reason.UNUSABLE})),
    ),
    "too few survivors": Case(
        AuditFault.COHORT,
        "round 1 closes with 1 updates and needs 2",
        call("close", survivors=((A,),)),
        CLOSE,
        TRAINED,
        settings=("rounds.min_replies=2",),
    ),
    "no survivors": Case(
        AuditFault.COHORT, "round 1 closes with 0 updates and needs 1", call("close", survivors=()), CLOSE, TRAINED
    ),
    "another rule than the plan's": Case(
        AuditFault.ROUND,
        "another aggregation rule than the plan's",
        call("close", rule=("median",)),
        CLOSE,
        TRAINED,
    ),
    "bad updates where the plan has none": Case(
        AuditFault.ROUND,
        "bad updates are reckoned with, where the plan assumes none",
        call("close", withstood=1),
        CLOSE,
        TRAINED,
    ),
    # What was spent.
    "an epsilon told smaller": Case(
        AuditFault.EPSILON,
        "the account of an example after round 1 says epsilon",
        cheaper("example"),
        CLOSE,
        TRAINED,
        settings=EXAMPLE_PRIVATE,
    ),
    "a client's epsilon told smaller": Case(
        AuditFault.EPSILON,
        "the account of a client after round 1 says epsilon",
        cheaper("client"),
        CLOSE,
        TRAINED,
        settings=CLIENT_PRIVATE,
        **SECURELY,
    ),
    "no account": Case(
        AuditFault.EPSILON,
        "the account of an example after round 1 says nothing",
        call("close", example=None),
        CLOSE,
        TRAINED,
        settings=EXAMPLE_PRIVATE,
    ),
    "no bound where there is one": Case(
        AuditFault.EPSILON,
        "says no bound",
        accounted("example", epsilon=None),
        CLOSE,
        TRAINED,
        settings=EXAMPLE_PRIVATE,
    ),
    "a round's steps forgotten": Case(
        AuditFault.EPSILON,
        "after 2 steps, and comes to epsilon",
        accounted("example", events=((1.0, 0.5, 2),)),
        CLOSE,
        do(call("round"), TRAINED),
        settings=(*EXAMPLE_PRIVATE, "rounds.cohort_size=8"),
    ),
    "an attempt's steps forgotten": Case(
        AuditFault.EPSILON,
        "after 2 steps, and comes to epsilon",
        accounted("example", events=((1.0, 0.5, 2),)),
        CLOSE,
        do(OPEN, TRAINED),
        settings=EXAMPLE_PRIVATE,
    ),
    "another delta": Case(
        AuditFault.EPSILON,
        "at delta 0.001 after",
        accounted("example", delta=1e-3),
        CLOSE,
        TRAINED,
        settings=EXAMPLE_PRIVATE,
    ),
    # After a round.
    "scores while a round is open": Case(
        AuditFault.ROUND,
        "scores of round 2, which was not the last to close",
        call("evaluate"),
        do(TRAINED, CLOSE),
        do(call("rounds", 2), OPEN),
        settings=(*EXAMPLE_PRIVATE, *SCORED),
        **SECURELY,
    ),
    "scores of an earlier round": Case(
        AuditFault.ROUND,
        "scores of round 2, which was not the last to close",
        call("evaluate", round=2),
        OPEN,
        call("rounds", 3),
        settings=(*EXAMPLE_PRIVATE, *SCORED),
        **SECURELY,
    ),
    "scores that the plan does not ask for": Case(
        AuditFault.ROUND,
        "scores of round 1, in which the plan asks for none",
        call("evaluate"),
        OPEN,
        call("round"),
        settings=(*EXAMPLE_PRIVATE, *SCORED),
        **SECURELY,
    ),
    "scores twice": Case(
        AuditFault.ROUND,
        "scores of round 2 a second time",
        call("evaluate"),
        OPEN,
        call("rounds", 2),
        settings=(*EXAMPLE_PRIVATE, *SCORED),
        **SECURELY,
    ),
    "another model released": Case(
        AuditFault.MODEL,
        "the model released is not the one after round 1",
        call("release", model_digest=digest_of("another")),
        call("release"),
        call("round"),
    ),
    "the model of an earlier round released": Case(
        AuditFault.MODEL,
        "the model released is not the one after round 1",
        call("release", round=1, model_digest=digest_of("model", 1)),
        call("release"),
        call("rounds", 2),
    ),
    "a model released before there is one": Case(
        AuditFault.MODEL, "the model released is not the one after round 0", call("release"), call("incident")
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_breach_is_named(name: str) -> None:
    CASES[name].check_wrong()


@pytest.mark.parametrize("name", CASES)
def test_valid_neighbour_passes(name: str) -> None:
    CASES[name].check_right()


FORGOTTEN = "it was asked, and is neither in the round nor among the rejected"
CASES["an owner that is left out without a word"] = Case(
    AuditFault.CONTRIBUTION,
    f"owner-00, entry 13: {FORGOTTEN}",
    closed_with_forgotten(lambda groups: groups[1:]),
    closed_with(lambda groups: groups[1:]),
    TRAINED,
)
CASES["an owner that is left out, with a word about another"] = Case(
    AuditFault.CONTRIBUTION,
    FORGOTTEN,
    closed_with_forgotten(lambda groups: groups[1:]),
    closed_with(lambda groups: groups),
    do(TRAINED, call("reject", {B: Reason.UNUSABLE})),
    settings=("rounds.cohort_size=3",),
)
CASES["an owner that sent nothing, and of whom nothing is said"] = Case(
    AuditFault.CONTRIBUTION,
    FORGOTTEN,
    closed_with_forgotten(lambda groups: groups),
    closed_with(lambda groups: groups),
    call("attempt", silent=(A,)),
)


NEEDED = {
    "survivors_are_those_grouped": "a sum over too few",
    "survivors_sent_updates": "a survivor that sent nothing",
    "nobody_asked_is_forgotten": "an owner that is left out without a word",
    "enough_replied": "too few survivors",
    "rule_is_the_plans": "another rule than the plan's",
    "accounts_are_as_recomputed": "an epsilon told smaller",
    "scores_are_of_the_last_round": "scores twice",
    "released_is_the_last_model": "another model released",
}


@pytest.mark.parametrize("rule", NEEDED)
def test_attack_works_where_its_rule_is_off(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_needed(closing_rules, rule, CASES[NEEDED[rule]], monkeypatch)


def test_every_rule_has_its_attack() -> None:
    assert rules_in(closing_rules) == set(NEEDED)
