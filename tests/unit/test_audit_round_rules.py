"""Rules of the audit log's rounds: what breaks one is named with its entry, and its valid neighbour passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from audit_cases import Case, Step, assert_needed, call, do, rules_in
from audit_logs import CLIENT_PRIVATE, SECURE, AuditLogBuilder, digest_of, key_called
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
}


@pytest.mark.parametrize("rule", NEEDED)
def test_attack_works_where_its_rule_is_off(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_needed(round_rules, rule, CASES[NEEDED[rule]], monkeypatch)


def test_every_rule_has_its_attack() -> None:
    assert rules_in(round_rules) - set(NEEDED) == {"is_of_the_open_attempt"}
