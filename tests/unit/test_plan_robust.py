"""A plan's section on robust aggregation: each fault with its remedy, the rule recommended, and remedies that help."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import make_plan
from testudo_common.errors import Fault, PlanError, PlannerError
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import dump_plan, load_plan
from testudo_common.plan.robust import bad_rows_of, rows_needed, rows_of
from testudo_common.robustness import names
from testudo_common.robustness.planner import RECOMMENDED
from testudo_common.robustness.shares import share_of_count
from testudo_server import aggregate

TEN = "rounds.cohort_size=10"
A_TENTH = "robust_aggregation.corruption=0.1"
SECURE = "secure_aggregation.mode=secure"
PRIVATE = ('privacy.unit="example"', "privacy.noise_multiplier=1.0")


def rule(*listed: str) -> str:
    return "robust_aggregation.rule=[" + ", ".join(f'"{name}"' for name in listed) + "]"


def faults_of(*changes: str) -> dict[str, Fault]:
    with pytest.raises(PlanError) as caught:
        make_plan(*changes)
    found = {fault.key: fault for fault in caught.value.faults}
    assert len(found) == len(caught.value.faults)
    return found


# what it is called -> (changes that make one fault, its key, words of the problem, words of the remedy, a change that
# cures it)
RULE_FAULTS = {
    "unknown rule": ([rule("krumm")], "rule", "'krumm' cannot stand", "then one of mean, krum", rule("krum")),
    "unknown before it": (
        [rule("nmm", "median")],
        "rule",
        "'nmm' cannot stand",
        "Take any of clip, arc, nnm, dedupe, bucketing",
        rule("nnm", "median"),
    ),
    "rule not last": ([rule("median", "nnm")], "rule", "'median' cannot stand", "Take any of", rule("nnm", "median")),
    "two rules": ([rule("median", "krum")], "rule", "'median' cannot stand", "Take any of", rule("krum")),
    "no rule": (["robust_aggregation.rule=[]"], "rule", "no rule", '["dedupe", "nnm", "trimmed_mean"]', rule("caf")),
    "clip without a norm": (
        [rule("clip", "median")],
        "clip_norm",
        "clip needs a norm",
        "Add it",
        "robust_aggregation.clip_norm=1.0",
    ),
    "mean against somebody": ([rule("mean")], "rule", "a mean withstands nobody", "take it out", rule("nnm", "mean")),
    "mean of buckets": ([rule("bucketing", "mean")], "rule", "a mean withstands", "Name another", rule("arc", "mean")),
}


@pytest.mark.parametrize(("changes", "key", "problem", "remedy", "cure"), RULE_FAULTS.values(), ids=RULE_FAULTS)
def test_fault_of_a_rule(changes: list[str], key: str, problem: str, remedy: str, cure: str) -> None:
    ((found, fault),) = faults_of(TEN, A_TENTH, *changes).items()
    assert found == f"robust_aggregation.{key}"
    assert problem in fault.problem
    assert remedy in fault.remedy
    make_plan(TEN, A_TENTH, *changes, cure)


def test_rule_against_nobody_is_refused_and_the_mean_is_not() -> None:
    ((key, fault),) = faults_of(TEN, rule("median")).items()
    assert key == "robust_aggregation.corruption"
    assert "a rule against nobody" in fault.problem
    assert "take the rule out" in fault.remedy
    assert make_plan(TEN, rule("mean")).robust_rule == make_plan(TEN).robust_rule == ("mean",)
    assert make_plan(TEN, rule("median"), A_TENTH).robust_rule == ("median",)


def test_weights_that_a_poisoned_client_would_choose_are_refused() -> None:
    sizes = ["rounds.cohort_size=30", "secure_aggregation.group_size=3", "secure_aggregation.min_group=3"]
    weighted = [SECURE, *sizes, "secure_aggregation.max_weight=5"]
    ((key, fault),) = faults_of(*weighted, A_TENTH).items()
    assert key == "secure_aggregation.max_weight"
    assert "choose its own weight" in fault.problem
    assert "Write 1, or robust_aggregation.corruption = 0" in fault.remedy
    make_plan(*weighted)
    make_plan(SECURE, *sizes, A_TENTH)


@pytest.mark.parametrize("changes", [["robust_aggregation.corruption=0.5"], ["robust_aggregation.corruption=-0.1"]])
def test_share_that_no_rule_outvotes_is_refused(changes: list[str]) -> None:
    assert set(faults_of(TEN, *changes)) == {"robust_aggregation.corruption"}


# --- too many poisoned for the rows


def test_groups_that_are_too_large_are_refused_with_the_size_to_write() -> None:
    changes = [
        SECURE,
        A_TENTH,
        "rounds.cohort_size=20",
        "secure_aggregation.min_group=3",
        "secure_aggregation.dropout=0",
    ]
    ((key, fault),) = faults_of(*changes, "secure_aggregation.group_size=10").items()
    assert key == "robust_aggregation.corruption"
    assert fault.problem == (
        "with 2 of 20 clients poisoned, 2 of 2 groups a round may be bad, and caf needs 5 to outvote them"
    )
    assert fault.remedy == "Write secure_aggregation.group_size = 3"
    make_plan(*changes, "secure_aggregation.group_size=3")


@pytest.mark.parametrize(
    "changes",
    [
        [rule("krum"), "rounds.cohort_size=6"],
        [rule("bucketing", "median"), "robust_aggregation.bucket_size=4", "rounds.cohort_size=10"],
    ],
    ids=["Krum asks for two rows more", "buckets leave fewer rows"],
)
def test_rule_that_needs_more_rows_is_refused_with_one_that_does_not(changes: list[str]) -> None:
    changes = [*changes, "robust_aggregation.corruption=0.34"]
    ((key, fault),) = faults_of(*changes).items()
    assert key == "robust_aggregation.corruption"
    assert "updates a round may be bad" in fault.problem
    assert fault.remedy == f"Take another rule, such as {list(RECOMMENDED)}"
    make_plan(*changes, rule(*RECOMMENDED))


def test_buckets_need_so_many_rows_that_enough_buckets_are_left() -> None:
    for size, f in ((2, 1), (2, 3), (4, 2)):
        robust = make_plan(f"robust_aggregation.bucket_size={size}").robust_aggregation
        needed = rows_needed(robust, ("bucketing", "median"), f)
        assert -(-needed // size) == 2 * f + 1
        assert -(-(needed - 1) // size) == 2 * f, "one fewer is too few"


def test_too_many_poisoned_for_any_group_says_which_number_to_move_and_to_what() -> None:
    changes = [SECURE, "rounds.cohort_size=20", "robust_aggregation.corruption=0.2"]
    ((key, fault),) = faults_of(*changes).items()
    assert key == "robust_aggregation.corruption"
    assert "4 of 20 clients (20 %) poisoned" in fault.problem
    assert "lower min_group from 4 to 1 (the server then sees single updates)" in fault.remedy
    lowered = re.search(r"ower corruption from 20 % to (\d+) %", fault.remedy)
    assert lowered
    share = f"robust_aggregation.corruption={int(lowered.group(1)) / 100}"
    smaller = "secure_aggregation.group_size=5"
    assert make_plan(*changes, share, smaller).robust_rule == RECOMMENDED
    assert make_plan(*changes, "secure_aggregation.mode=plain").robust_rule == RECOMMENDED


def as_settings(nearest: dict[str, float]) -> list[list[str]]:
    """Each number of a refusal, alone."""
    keys = {
        "corruption": "robust_aggregation.corruption",
        "min_group": "secure_aggregation.min_group",
        "cohort": "rounds.cohort_size",
        "dropout": "secure_aggregation.dropout",
    }
    found = []
    for name, value in nearest.items():
        plain = name == "min_group" and value == 1
        found.append(["secure_aggregation.mode=plain"] if plain else [f"{keys[name]}={value}"])
    return found


def is_cured(changes: Sequence[str], clients: int) -> bool:
    """Whether the plan holds for so many clients, perhaps after the group size that it then says."""
    for _ in range(2):
        try:
            make_plan(*changes).check_withstood(clients)
        except PlanError as error:
            remedy = error.faults[0].remedy
        except PlannerError as error:
            remedy = error.remedy
        else:
            return True
        size = re.search(r"secure_aggregation.group_size = (\d+)", remedy)
        assert size, remedy
        changes = [*changes, f"secure_aggregation.group_size={size.group(1)}"]
    return False


@pytest.mark.parametrize(
    ("clients", "cohort", "poisoned"), [(100, 20, 8), (60, 24, 5), (40, 12, 2), (200, 30, 20), (1000, 40, 150)]
)
def test_every_number_that_a_refusal_names_is_a_way_out(clients: int, cohort: int, poisoned: int) -> None:
    """The check at the start of a run, where more clients are there than one round asks."""
    share = share_of_count(poisoned, clients)
    changes = [SECURE, f"rounds.cohort_size={cohort}", "secure_aggregation.min_group=4"]
    plan = make_plan(*changes)
    asked = plan.model_copy(
        update={"robust_aggregation": plan.robust_aggregation.model_copy(update={"corruption": share})}
    )
    with pytest.raises(PlannerError) as caught:
        asked.check_withstood(clients)
    assert caught.value.nearest, "there is a way out"
    for way in as_settings(caught.value.nearest):
        assert is_cured([*changes, f"robust_aggregation.corruption={share}", *way], clients), way


# --- what is recommended, and what is reckoned with


@pytest.mark.parametrize("changes", [[], [*PRIVATE], [SECURE], [SECURE, *PRIVATE]], ids=str)
def test_rule_that_is_recommended(changes: list[str]) -> None:
    sizes = ["rounds.cohort_size=40", "secure_aggregation.group_size=4", "secure_aggregation.min_group=3"]
    assert make_plan(*sizes, *changes).robust_rule == ("mean",), "against nobody"
    assert make_plan(*sizes, *changes, A_TENTH).robust_rule == RECOMMENDED == ("caf",)
    assert make_plan(*sizes, *changes, A_TENTH, rule("median")).robust_rule == ("median",)


def test_rows_and_bad_ones_of_a_plan() -> None:
    plain = make_plan(A_TENTH, "rounds.cohort_size=40")
    robust, secure = plain.robust_aggregation, plain.secure_aggregation
    assert rows_of(secure, 40) == 40
    left = [bad_rows_of(robust, secure, clients=40, cohort=40 - caught, caught=caught) for caught in (0, 1, 4, 5)]
    assert left == [4, 3, 0, 0]
    sampled = [bad_rows_of(robust, secure, clients=400, cohort=cohort) for cohort in (10, 40, 400)]
    assert 4 <= sampled[0] <= 6, "binomial, 10 draws at a tenth, all but once in a thousand"
    assert sampled[0] < sampled[1] < sampled[2] == 40
    groups = make_plan(SECURE, A_TENTH, "rounds.cohort_size=40", "secure_aggregation.group_size=4")
    assert rows_of(groups.secure_aggregation, 40) == 10
    assert bad_rows_of(groups.robust_aggregation, groups.secure_aggregation, clients=40, cohort=40) == 4


def test_small_federation_with_a_share_of_nobody_has_no_bad_rows() -> None:
    plan = make_plan(A_TENTH, "rounds.cohort_size=5")
    assert bad_rows_of(plan.robust_aggregation, plan.secure_aggregation, clients=5, cohort=5) == 0


def test_names_are_the_servers() -> None:
    assert set(names.PRE_AGGREGATORS) == set(aggregate.PRE_AGGREGATORS)
    assert set(names.RULES) == set(aggregate.RULES)
    assert len(names.RULES) == len(aggregate.RULES)


rules = st.builds(
    lambda before, last: (*before, last),
    st.lists(st.sampled_from(names.PRE_AGGREGATORS), max_size=3),
    st.sampled_from([name for name in names.RULES if name != "mean"]),
)


@given(rules, st.integers(1, 4), st.floats(0.01, 100.0), st.floats(1e-9, 0.49))
@settings(max_examples=30, deadline=None)
def test_written_plan_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, listed: tuple[str, ...], buckets: int, norm: float, failure: float
) -> None:
    plan: FederationPlan = make_plan(
        "rounds.cohort_size=60",
        A_TENTH,
        rule(*listed),
        f"robust_aggregation.bucket_size={buckets}",
        f"robust_aggregation.clip_norm={norm!r}",
        f"robust_aggregation.max_failure={failure!r}",
    )
    path: Path = tmp_path_factory.getbasetemp() / "robust.toml"
    path.write_text(dump_plan(plan), encoding="utf-8", newline="")
    again = load_plan(path)
    assert again == plan
    assert again.digest == plan.digest
    assert again.robust_rule == listed
