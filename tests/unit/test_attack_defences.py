"""Defences by name: what they switch on in a plan, and what is said of a name that is none."""

from __future__ import annotations

import pytest

from poisoned_federation import WRITERS, writers
from testudo_common.errors import PlanError, UsageError
from testudo_common.plan.load import parse_plan
from testudo_simulations.attacks.defences import Defence, clean_of, parse_defence, settings_of
from testudo_simulations.attacks.suite import DEFAULT_ATTACKS, DEFAULT_DEFENCES, SUITE, find_attacks

PARSED = {
    "mean": Defence("mean", ("mean",)),
    "recommended": Defence("recommended", None),
    "dedupe+nnm+trimmed_mean": Defence("dedupe+nnm+trimmed_mean", ("dedupe", "nnm", "trimmed_mean")),
    "caf+unshared_head": Defence("caf+unshared_head", ("caf",), unshared_head=True),
    "mean+tasks=4": Defence("mean+tasks=4", ("mean",), tasks=4),
    "recommended+groups=3": Defence("recommended+groups=3", None, group_size=3),
    "tasks=2+unshared_head+median+groups=5": Defence(
        "tasks=2+unshared_head+median+groups=5", ("median",), unshared_head=True, tasks=2, group_size=5
    ),
    "nnm + median": Defence("nnm + median", ("nnm", "median")),
}


@pytest.mark.parametrize(("text", "defence"), PARSED.items(), ids=PARSED)
def test_defence_is_parsed(text: str, defence: Defence) -> None:
    assert parse_defence(text) == defence


@pytest.mark.parametrize(
    ("text", "words"),
    {
        "krumm": "'krumm' in the defence 'krumm' is unknown",
        "nnm+head+median": "'head' in the defence",
        "median+tasks": "'tasks' in the defence",
        "median+tasks=0": "'tasks=0' in the defence 'median+tasks=0' has no number",
        "median+groups=three": "'groups=three' in the defence",
        "median+groups=-3": "'groups=-3' in the defence",
        "median+unshared_head=1": "'unshared_head=1' in the defence",
        "recommended=2": "'recommended=2' in the defence",
        "median+caf=2": "'caf=2' in the defence",
        "median+": "'' in the defence",
        "": "'' in the defence",
        "unshared_head": "the defence 'unshared_head' needs one rule",
        "recommended+median": "the defence 'recommended+median' needs one rule",
    }.items(),
    ids=repr,
)
def test_name_that_is_none_is_refused_by_its_token(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_defence(text)
    assert words in caught.value.problem
    assert "dedupe+nnm+trimmed_mean+unshared_head" in caught.value.remedy


def test_rule_in_the_wrong_place_is_a_fault_of_the_plan() -> None:
    defence = parse_defence("median+nnm")
    with pytest.raises(PlanError, match="'median' cannot stand where it stands"):
        writers(*settings_of(defence, writers().plan, 2, 9))


@pytest.mark.parametrize("poisoned", [1, 2, 3, 4])
def test_plan_under_a_defence_reckons_with_as_many_as_are_poisoned(poisoned: int) -> None:
    plan = writers(*settings_of(parse_defence("recommended+tasks=2"), writers().plan, poisoned, 9)).plan
    assert plan.robust_rule == ("caf",)
    assert int(plan.robust_aggregation.corruption * 9) == poisoned
    assert (plan.rounds.cohort_size, plan.task.tasks_per_client, plan.secure) == (9, 2, False)
    assert plan.model.unshared_head is False
    plan.check_withstood(9)


def test_mean_reckons_with_nobody_and_nothing_is_reckoned_with_where_nobody_is_poisoned() -> None:
    for name, poisoned in (("mean", 4), ("recommended", 0), ("median+unshared_head", 0)):
        plan = writers(*settings_of(parse_defence(name), writers().plan, poisoned, 9)).plan
        assert (plan.robust_aggregation.corruption, plan.robust_rule) == (0.0, ("mean",))
    assert plan.model.unshared_head is True


def test_groups_are_those_of_the_defence_and_others_keep_the_exchange_plain() -> None:
    base = parse_plan(WRITERS, source="a test")
    plan = writers("data.clients=12", *settings_of(parse_defence("caf+groups=3"), base, 1, 12)).plan
    secure = plan.secure_aggregation
    assert (plan.secure, secure.group_size, secure.min_group, secure.dropout) == (True, 3, 3, 0.0)
    assert plan.robust_rule == ("caf",)
    again = writers("secure_aggregation.mode=secure", *settings_of(parse_defence("caf"), base, 1, 9)).plan
    assert not again.secure


def test_more_poisoned_than_the_groups_outvote_are_refused() -> None:
    with pytest.raises(PlanError, match="4 of 12 clients"):
        writers("data.clients=12", *settings_of(parse_defence("caf+groups=3"), writers().plan, 4, 12))


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("recommended", "mean"),
        ("caf+groups=3", "mean"),
        ("mean+unshared_head", "mean+unshared_head"),
        ("tasks=4+nnm+median+unshared_head", "mean+unshared_head+tasks=4"),
        ("mean+tasks=2+groups=3", "mean+tasks=2"),
    ],
)
def test_what_a_defence_is_held_against(name: str, clean: str) -> None:
    """The plain mean of the same training, so that a score says what poison cost, and not what tasks or heads gave."""
    assert clean_of(parse_defence(name)) == clean
    assert clean_of(parse_defence(clean)) == clean


def test_defaults_are_there() -> None:
    assert [poison.name for poison in find_attacks(DEFAULT_ATTACKS)] == list(DEFAULT_ATTACKS)
    assert [parse_defence(name).name for name in DEFAULT_DEFENCES] == list(DEFAULT_DEFENCES)
    for name, poison in SUITE.items():
        assert poison.name == name
        assert poison.shows, f"{name} is not explained"
        assert poison.task or poison.update or poison.garble, f"{name} does nothing"


def test_attack_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="there is no attack 'alee'") as caught:
        find_attacks(["ipm", "alee"])
    assert "alie" in caught.value.remedy
