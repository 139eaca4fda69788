"""Rules of the audit log's rounds: what breaks one is named with its entry, and its valid neighbour passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from audit_cases import Case, Step, assert_needed, call, do, rules_in
from audit_logs import CLIENT_PRIVATE, EXAMPLE_PRIVATE, SCORED, SECURE, AuditLogBuilder, digest_of, key_called
from testudo_common.audit import round_rules
from testudo_common.audit.entries import GroupRejected, Reason
from testudo_common.errors import AuditFault
from testudo_common.roster import Roster
from testudo_common.secagg.groups import partition

A, B, C = "owner-00", "owner-01", "owner-02"
ALL = tuple(f"owner-{number:02d}" for number in range(8))
ADAPTIVE = (*CLIENT_PRIVATE, 'client_privacy.clipping="adaptive"', "outer.max_update_norm=2.0")
Groups = tuple[tuple[str, ...], ...]


def enrolled(roster: Callable[[AuditLogBuilder], Roster]) -> Step:
    return lambda log: log.enrol(roster(log))


def all_but_a(log: AuditLogBuilder) -> Roster:
    return log.roster(log.owners[1:])


def new_key_of_a(log: AuditLogBuilder) -> Roster:
    return log.roster(owner_00=key_called("new").public_key().public_bytes_raw())


def opened_to(*owners: str, **said: Any) -> Step:
    return call("open", cohort=owners, **said)


def grouped(change: Callable[[Groups], Groups]) -> Step:
    """Groups that are not what the coin draws from the cohort."""

    def step(log: AuditLogBuilder) -> None:
        drawn = partition(bytes.fromhex(digest_of("coin", 1, 0)), log.opened.cohort, 4)
        log.draw_groups(groups=change(drawn))

    return step


def two_swapped(groups: Groups) -> Groups:
    (a, *first), (b, *second) = groups
    return (b, *first), (a, *second)


def with_stranger(groups: Groups) -> Groups:
    return groups[0], ("stranger", *groups[1][1:])


def rejecting(change: Callable[[tuple[str, ...]], tuple[tuple[str, ...], ...]]) -> Step:
    """Rejects groups, made of the first that was drawn."""

    def step(log: AuditLogBuilder) -> None:
        drawn = log.history.groups
        assert drawn is not None
        log.reject(groups=tuple(GroupRejected(members=m, reason="too_few") for m in change(drawn[1].groups[0])))

    return step


def closed_with(change: Callable[[Groups], Groups]) -> Step:
    """Closes with other survivors than there are."""
    return lambda log: log.close(survivors=change(log.survivors))


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


OPEN, GROUPED, TRAINED, CLOSE = call("open"), do(call("open"), call("draw_groups")), call("attempt"), call("close")
SECURELY: Any = {"tables": SECURE}

CASES: dict[str, Case] = {
    # A round is opened.
    "a round left out": Case(AuditFault.ROUND, "round 2 is opened where round 1 is next", call("open", round=2), OPEN),
    "a round opened again": Case(
        AuditFault.ROUND, "round 1 is opened where round 2 is next", call("open", round=1), OPEN, call("round")
    ),
    "a round too many": Case(
        AuditFault.ROUND, "round 3 of 2", OPEN, call("release"), call("rounds", 2), settings=("rounds.count=2",)
    ),
    "an attempt made again": Case(
        AuditFault.ROUND,
        "attempt 0 at round 1 after attempt 0",
        call("open", attempt=0),
        call("open", attempt=1),
        OPEN,
    ),
    "an attempt too many": Case(
        AuditFault.ROUND,
        "attempt 5 at round 1, where 5 are the most",
        call("open", attempt=5),
        call("open", attempt=4),
        OPEN,
        **SECURELY,
    ),
    "a cohort out of order": Case(
        AuditFault.COHORT, "the cohort is not sorted, or names a client twice", opened_to(B, A), opened_to(A, B)
    ),
    "a client twice in a cohort": Case(
        AuditFault.COHORT, "the cohort is not sorted, or names a client twice", opened_to(A, A), opened_to(A, B)
    ),
    "barred clients out of order": Case(
        AuditFault.COHORT,
        "the list of the barred is not sorted",
        opened_to(A, barred=(C, B)),
        opened_to(A, barred=(B, C)),
    ),
    "a barred client asked": Case(
        AuditFault.COHORT,
        "owner-01, entry 10: it is asked, and barred",
        opened_to(A, B, barred=(B,)),
        opened_to(A, B, barred=(C,)),
    ),
    "a stranger asked": Case(
        AuditFault.ENROLMENT,
        "stranger, entry 10: it is asked, and not enrolled",
        opened_to(A, "stranger"),
        opened_to(A, B),
    ),
    "an owner asked that is enrolled no longer": Case(
        AuditFault.ENROLMENT,
        "owner-00, entry 11: it is asked, and not enrolled",
        opened_to(A, B),
        opened_to(B, C),
        enrolled(all_but_a),
    ),
    "an owner asked that approved with an earlier key": Case(
        AuditFault.APPROVAL,
        "owner-00, entry 11: it is asked, and has not approved the plan",
        opened_to(A, B),
        do(call("approve", A, 0, key=key_called("new")), opened_to(A, B)),
        enrolled(new_key_of_a),
    ),
    "an owner asked that never approved": Case(
        AuditFault.APPROVAL,
        "owner-01, entry 3: it is asked, and has not approved the plan",
        opened_to(A, B),
        do(call("approve", B), opened_to(A, B)),
        do(call("charter"), call("enrol"), call("approve", A)),
        enrol=False,
    ),
    "an owner asked that withdrew": Case(
        AuditFault.APPROVAL,
        "owner-00, entry 11: it is asked, and has withdrawn",
        opened_to(A, B),
        do(call("approve", A, 2), opened_to(A, B)),
        call("withdraw", A),
    ),
    "a cohort too large": Case(
        AuditFault.COHORT, "a cohort of 3, where the plan has 1 to 2", opened_to(A, B, C), opened_to(A, B)
    ),
    "a cohort too small to go on": Case(
        AuditFault.COHORT,
        "a cohort of 1, where the plan has 2 to 2",
        opened_to(A),
        opened_to(A, B),
        settings=("rounds.min_replies=2",),
    ),
    "nobody asked": Case(AuditFault.COHORT, "a cohort of 0, where the plan has 1 to 2", opened_to(), opened_to(A)),
    "a cohort that hides nobody": Case(
        AuditFault.COHORT,
        "a cohort of 3, where the plan has 4 to 8",
        opened_to(*ALL[:3]),
        opened_to(*ALL[:4]),
        **SECURELY,
    ),
    "a cohort below the plan's least": Case(
        AuditFault.COHORT,
        "a cohort of 5, where the plan has 6 to 8",
        opened_to(*ALL[:5]),
        opened_to(*ALL[:6]),
        settings=("secure_aggregation.min_cohort=6",),
        **SECURELY,
    ),
    "an owner asked in too many rounds": Case(
        AuditFault.COHORT,
        "owner-00, entry 15: it is asked in more than 1 rounds",
        opened_to(A, B),
        opened_to(B, C),
        do(opened_to(A), opened_to(A), call("receive", A), call("reject"), CLOSE),
        settings=("rounds.max_participations=1",),
    ),
    "another model than the last": Case(
        AuditFault.MODEL,
        "round 2 does not begin from the model that came before",
        call("open", model_digest=digest_of("another")),
        OPEN,
        call("round"),
    ),
    "another model in a second attempt": Case(
        AuditFault.MODEL,
        "round 1 does not begin from the model that came before",
        call("open", model_digest=digest_of("another")),
        OPEN,
        OPEN,
    ),
    "a clipping norm where the plan fixes it": Case(
        AuditFault.ROUND, "a clipping norm that the plan fixes", call("open", clip=1.0), OPEN
    ),
    "no clipping norm where it moves": Case(
        AuditFault.ROUND, "a clipping norm is missing", call("open", clip=None), OPEN, settings=ADAPTIVE, **SECURELY
    ),
    "a clipping norm above the plan's": Case(
        AuditFault.ROUND,
        "a clipping norm of 2.1, where the plan has 2 at the most",
        call("open", clip=2.1),
        call("open", clip=2.0),
        settings=ADAPTIVE,
        **SECURELY,
    ),
    "a clipping norm of nothing": Case(
        AuditFault.ROUND,
        "a clipping norm of 0, where",
        call("open", clip=0.0),
        call("open", clip=0.1),
        settings=ADAPTIVE,
        **SECURELY,
    ),
    "a clipping norm that moves within a round": Case(
        AuditFault.ROUND,
        "another clipping norm in the same round 1",
        call("open", clip=1.5),
        call("open", clip=2.0),
        OPEN,
        settings=ADAPTIVE,
        **SECURELY,
    ),
    # Groups are drawn.
    "groups of a round that is closed": Case(
        AuditFault.ROUND, "round 1 is not open", call("draw_groups"), GROUPED, call("round"), **SECURELY
    ),
    "groups of another attempt": Case(
        AuditFault.ROUND,
        "of attempt 1 at round 1, where attempt 0 at round 1 is open",
        call("draw_groups", attempt=1),
        call("draw_groups"),
        OPEN,
        **SECURELY,
    ),
    "groups where the plan has none": Case(
        AuditFault.GROUPS, "groups, where the plan has none", call("draw_groups"), call("receive", A), OPEN
    ),
    "groups drawn twice": Case(
        AuditFault.GROUPS,
        "groups are drawn a second time in one attempt",
        call("draw_groups"),
        do(OPEN, call("draw_groups")),
        GROUPED,
        **SECURELY,
    ),
    "a stranger in a group": Case(
        AuditFault.GROUPS,
        "stranger, entry 11: it is in a group, and not in the cohort",
        grouped(with_stranger),
        call("draw_groups"),
        OPEN,
        **SECURELY,
    ),
    "a group drawn twice": Case(
        AuditFault.GROUPS,
        "a client is in two groups",
        grouped(lambda groups: (*groups, groups[0])),
        call("draw_groups"),
        OPEN,
        **SECURELY,
    ),
    "groups that the server chose": Case(
        AuditFault.GROUPS,
        "the groups are not those that the coin draws",
        grouped(two_swapped),
        call("draw_groups", ALL[1:]),
        OPEN,
        **SECURELY,
    ),
    "groups of another coin": Case(
        AuditFault.GROUPS,
        "the groups are not those that the coin draws",
        call("draw_groups", coin=digest_of("heads")),
        call("draw_groups"),
        OPEN,
        **SECURELY,
    ),
    "groups of too few": Case(
        AuditFault.COHORT,
        "5 clients are grouped, where 6 are the fewest",
        call("draw_groups", ALL[:5]),
        call("draw_groups", ALL[:6]),
        OPEN,
        settings=("secure_aggregation.min_cohort=6",),
        **SECURELY,
    ),
    # Updates arrive.
    "an update of a round that is closed": Case(
        AuditFault.ROUND, "round 1 is not open", call("receive", A), do(OPEN, call("receive", C)), call("round")
    ),
    "an update of another attempt": Case(
        AuditFault.ROUND,
        "of attempt 0 at round 1, where attempt 1 at round 1 is open",
        call("receive", A, attempt=0),
        call("receive", A),
        do(OPEN, OPEN),
    ),
    "an update that nobody asked for": Case(
        AuditFault.CONTRIBUTION,
        "owner-02, entry 11: an update of a client that was not asked",
        call("receive", C),
        call("receive", A),
        OPEN,
    ),
    "an update before the groups": Case(
        AuditFault.CONTRIBUTION,
        "an update of a client that is in no group",
        call("receive", A),
        do(call("draw_groups"), call("receive", A)),
        OPEN,
        **SECURELY,
    ),
    "an update of a client left out of the groups": Case(
        AuditFault.CONTRIBUTION,
        "owner-07, entry 12: an update of a client that is in no group",
        call("receive", ALL[7]),
        call("receive", A),
        do(OPEN, call("draw_groups", ALL[:7])),
        **SECURELY,
    ),
    "an update twice": Case(
        AuditFault.CONTRIBUTION,
        "a second update in one attempt",
        call("receive", A),
        call("receive", B),
        do(OPEN, call("receive", A)),
    ),
    "an update signed by another": Case(
        AuditFault.SIGNATURE,
        "the contribution of owner-00 is not signed with its key",
        lambda log: log.receive(A, key=log.keys[B]),
        call("receive", A),
        OPEN,
    ),
    # Updates are rejected.
    "rejections of a round that is closed": Case(
        AuditFault.ROUND, "round 1 is not open", call("reject"), do(OPEN, call("reject")), call("round")
    ),
    "rejections of another attempt": Case(
        AuditFault.ROUND,
        "of attempt 0 at round 1, where attempt 1",
        call("reject", attempt=0),
        call("reject"),
        do(OPEN, OPEN),
    ),
    "rejections twice": Case(
        AuditFault.ROUND,
        "a second list of rejected updates in one attempt",
        call("reject"),
        CLOSE,
        do(TRAINED, call("reject")),
    ),
    "a client rejected that was not asked": Case(
        AuditFault.COHORT,
        "owner-02, entry 13: it is rejected, and was not asked",
        call("reject", {C: Reason.REFUSED}),
        call("reject", {B: Reason.REFUSED}),
        TRAINED,
    ),
    "a group rejected that was not drawn": Case(
        AuditFault.GROUPS,
        "a group is rejected that was not drawn, or twice",
        rejecting(lambda first: (first[:-1],)),
        rejecting(lambda first: (tuple(sorted(first)),)),
        TRAINED,
        **SECURELY,
    ),
    "a group rejected twice": Case(
        AuditFault.GROUPS,
        "a group is rejected that was not drawn, or twice",
        rejecting(lambda first: (first, first[::-1])),
        rejecting(lambda first: (first,)),
        TRAINED,
        **SECURELY,
    ),
    # A round closes.
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


NEEDED = {
    "opens_the_next_round": "a round left out",
    "opens_a_new_attempt": "an attempt made again",
    "cohort_may_be_asked": "an owner asked that withdrew",
    "cohort_is_of_the_plans_size": "a cohort that hides nobody",
    "nobody_is_asked_too_often": "an owner asked in too many rounds",
    "trains_from_the_last_model": "another model than the last",
    "clips_as_the_plan_says": "a clipping norm above the plan's",
    "groups_are_the_coins": "groups that the server chose",
    "enough_are_grouped": "groups of too few",
    "update_was_asked_for": "an update that nobody asked for",
    "rejected_were_asked": "a client rejected that was not asked",
    "rejected_groups_were_drawn": "a group rejected that was not drawn",
    "survivors_are_those_grouped": "a sum over too few",
    "survivors_sent_updates": "a survivor that sent nothing",
    "enough_replied": "too few survivors",
    "rule_is_the_plans": "another rule than the plan's",
    "accounts_are_as_recomputed": "an epsilon told smaller",
    "scores_are_of_the_last_round": "scores twice",
    "released_is_the_last_model": "another model released",
}


@pytest.mark.parametrize("rule", NEEDED)
def test_attack_works_where_its_rule_is_off(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_needed(round_rules, rule, CASES[NEEDED[rule]], monkeypatch)


def test_every_rule_has_its_attack() -> None:
    assert rules_in(round_rules) - set(NEEDED) == {"is_of_the_open_attempt"}
