"""Plans: every fault at once, in words; digests that depend on every value and on nothing else."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from testudo_common.errors import PlanError, UsageError
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import MAX_PLAN_BYTES, apply_settings, dump_plan, load_plan, parse_plan

DIGITS: dict[str, Any] = {
    "name": "digits",
    "data": {"federation": "digits"},
    "task": {"kind": "classification"},
}
SINE: dict[str, Any] = {"name": "sine", "data": {"federation": "sine"}, "task": {"kind": "regression"}}
OMNIGLOT: dict[str, Any] = {
    "name": "omniglot",
    "data": {"federation": "omniglot"},
    "task": {"kind": "few_shot", "ways": 5, "shots": 1},
}
TABLE: dict[str, Any] = {
    "name": "table",
    "data": {"federation": "csv", "client": "shop", "target": "sold", "columns": [{"name": "price"}]},
    "task": {"kind": "classification"},
}


def parsed(tables: dict[str, Any], *changes: str) -> FederationPlan:
    return parse_plan(tables, source="plan.toml", settings=changes)


def faults_of(tables: dict[str, Any], *changes: str) -> dict[str, str]:
    """Key of each fault -> the rest of its sentence."""
    with pytest.raises(PlanError) as caught:
        parsed(tables, *changes)
    assert all(fault.problem and fault.remedy for fault in caught.value.faults)
    found = {fault.key: f"{fault.problem}. {fault.remedy}" for fault in caught.value.faults}
    assert len(found) == len(caught.value.faults)
    return found


EXAMPLE = 'privacy.unit="example"'
PLAIN = 'secure_aggregation.mode="plain"'
ONE_CLIENT = "rounds.cohort_size=1"
LARGE_GROUPS = "secure_aggregation.group_size=200"
FEW_SHOT_OF_TABLE = ('task.kind="few_shot"', "task.ways=2", "task.shots=1")

# (what it is called, tables, changes that make one fault, its key, a word of it, changes that make none)
CROSS_CHECKS = [
    (
        "epsilon without a unit",
        DIGITS,
        ["privacy.epsilon=8"],
        "privacy.epsilon",
        "private",
        [EXAMPLE, "privacy.epsilon=8"],
    ),
    (
        "noise without a unit",
        DIGITS,
        ["privacy.noise_multiplier=1"],
        "privacy.noise_multiplier",
        "private",
        [EXAMPLE, "privacy.noise_multiplier=1"],
    ),
    (
        "epsilon and noise",
        DIGITS,
        [EXAMPLE, "privacy.epsilon=8", "privacy.noise_multiplier=1"],
        "privacy.epsilon",
        "not both",
        [EXAMPLE, "privacy.noise_multiplier=0"],
    ),
    (
        "neither epsilon nor noise",
        DIGITS,
        [EXAMPLE],
        "privacy.epsilon",
        "either",
        [EXAMPLE, "privacy.epsilon=1"],
    ),
    (
        "more replies than asked",
        DIGITS,
        ["rounds.min_replies=21"],
        "rounds.min_replies",
        "20",
        ["rounds.min_replies=20"],
    ),
    (
        "more participations than rounds",
        DIGITS,
        ["rounds.max_participations=51"],
        "rounds.max_participations",
        "50",
        ["rounds.max_participations=50"],
    ),
    ("few-shot without ways", OMNIGLOT, ["task.ways=none"], "task.ways", "need", ["task.ways=2"]),
    ("few-shot without shots", OMNIGLOT, ["task.shots=none"], "task.shots", "need", ["task.shots=2"]),
    ("ways without few-shot", DIGITS, ["task.ways=2"], "task.ways", "out", ["task.ways=none"]),
    ("shots without few-shot", DIGITS, ["task.shots=2"], "task.shots", "out", ["task.shots=none"]),
    (
        "centring classes",
        DIGITS,
        ["task.local_centring=targets"],
        "task.local_centring",
        "classes",
        ['task.local_centring="none"'],
    ),
    (
        "centring under privacy",
        SINE,
        ["task.local_centring=targets", EXAMPLE, "privacy.epsilon=8"],
        "task.local_centring",
        "accounting",
        ["task.local_centring=targets"],
    ),
    (
        "few-shot under privacy",
        OMNIGLOT,
        [EXAMPLE, "privacy.epsilon=8"],
        "task.kind",
        "Poisson",
        ['privacy.unit="none"'],
    ),
    ("regression on digits", DIGITS, ["task.kind=regression"], "task.kind", "classification", []),
    ("classes on sine waves", SINE, ["task.kind=classification"], "task.kind", "regression", []),
    (
        "few-shot on retail",
        OMNIGLOT,
        ["data.federation=retail"],
        "task.kind",
        "regression",
        ["data.unseen_share=0.5"],
    ),
    ("few-shot on a table", TABLE, FEW_SHOT_OF_TABLE, "task.kind", "table", []),
    ("client as target", TABLE, ["data.target=shop"], "data.target", "client", ["data.target=bought"]),
    (
        "client as input",
        TABLE,
        ['data.columns=[{name="shop"}]'],
        "data.columns",
        "client",
        ['data.columns=[{name="size"}]'],
    ),
    ("target as input", TABLE, ['data.columns=[{name="sold"}]'], "data.columns", "target", []),
    (
        "column twice",
        TABLE,
        ['data.columns=[{name="a"}, {name="a"}]'],
        "data.columns",
        "twice",
        ['data.columns=[{name="a"}, {name="b"}]'],
    ),
    (
        "category without categories",
        TABLE,
        ['data.columns=[{name="a", kind="category"}]'],
        "data.columns",
        "0 categories",
        ['data.columns=[{name="a", kind="category", categories=["x"]}]'],
    ),
    (
        "number with categories",
        TABLE,
        ['data.columns=[{name="a", categories=["x"]}]'],
        "data.columns",
        "1 categories",
        [],
    ),
    (
        "labels of a regression",
        TABLE,
        ["task.kind=regression", 'data.labels=["a", "b"]'],
        "data.labels",
        "regression",
        ['data.labels=["a", "b"]'],
    ),
    ("one label", TABLE, ['data.labels=["a"]'], "data.labels", "two", []),
    ("a label twice", TABLE, ['data.labels=["a", "b", "a"]'], "data.labels", "different", []),
    (
        "scaled classes",
        TABLE,
        ["data.target_scale=2"],
        "data.target_center",
        "scaled",
        ["task.kind=regression", "data.target_scale=2", "data.target_center=1"],
    ),
    (
        "two outputs of a regression",
        SINE,
        ["model.outputs=2"],
        "model.outputs",
        "needs 1",
        ["model.outputs=1"],
    ),
    (
        "outputs other than ways",
        OMNIGLOT,
        ["model.outputs=4"],
        "model.outputs",
        "needs 5",
        ["model.outputs=5"],
    ),
    ("one class", DIGITS, ["model.outputs=1"], "model.outputs", "two", ["model.outputs=2"]),
    (
        "flat images for a conv net",
        DIGITS,
        ["model.name=conv", "model.inputs=[64]"],
        "model.inputs",
        "height",
        ["model.name=conv", "model.inputs=[1, 8, 8]"],
    ),
    (
        "too many blocks",
        DIGITS,
        ["model.name=conv", "model.inputs=[1, 8, 4]", "model.blocks=4"],
        "model.blocks",
        "halves",
        ["model.name=conv", "model.inputs=[1, 8, 4]", "model.blocks=3"],
    ),
    ("no shots", DIGITS, ["evaluation.shots=[]"], "evaluation.shots", "size", ["evaluation.shots=[0]"]),
    (
        "falling shots",
        DIGITS,
        ["evaluation.shots=[5, 1]"],
        "evaluation.shots",
        "rise",
        ["evaluation.shots=[1, 5]"],
    ),
    ("shots twice", DIGITS, ["evaluation.shots=[1, 1]"], "evaluation.shots", "once", []),
    (
        "weights in clear",
        DIGITS,
        [PLAIN, "secure_aggregation.max_weight=2"],
        "secure_aggregation.max_weight",
        "inside a secure sum only",
        ["secure_aggregation.max_weight=2"],
    ),
    (
        "too few to hide each other",
        DIGITS,
        ["rounds.cohort_size=3"],
        "rounds.cohort_size",
        "no sum over fewer than 4 is opened",
        ["rounds.cohort_size=4"],
    ),
    ("two to hide each other", DIGITS, ["rounds.cohort_size=2"], "rounds.cohort_size", '"plain"', [PLAIN, ONE_CLIENT]),
    (
        "too few for a larger least sum",
        DIGITS,
        ["rounds.cohort_size=7", "secure_aggregation.min_group=8"],
        "rounds.cohort_size",
        "fewer than 8",
        ["rounds.cohort_size=8", "secure_aggregation.min_group=8"],
    ),
    (
        "groups smaller than the least sum",
        DIGITS,
        ["secure_aggregation.group_size=5", "secure_aggregation.min_group=6"],
        "secure_aggregation",
        "cannot keep 6 survivors",
        ["secure_aggregation.group_size=6", "secure_aggregation.min_group=6"],
    ),
    (
        "least cohort smaller than the least sum",
        DIGITS,
        ["secure_aggregation.min_cohort=3"],
        "secure_aggregation",
        "min_cohort",
        ["secure_aggregation.min_cohort=4"],
    ),
    (
        "least cohort larger than a cohort",
        DIGITS,
        ["secure_aggregation.min_cohort=21"],
        "secure_aggregation",
        "min_cohort",
        ["secure_aggregation.min_cohort=20"],
    ),
    (
        "more bits than a sum has room for",
        DIGITS,
        [LARGE_GROUPS, "rounds.cohort_size=400", "secure_aggregation.value_bits=24"],
        "secure_aggregation",
        "to 22 or less",
        [LARGE_GROUPS, "rounds.cohort_size=400", "secure_aggregation.value_bits=22"],
    ),
    (
        "weights that leave no room for bits",
        DIGITS,
        ["secure_aggregation.max_weight=65536", "secure_aggregation.value_bits=11"],
        "secure_aggregation",
        "to 10 or less",
        ["secure_aggregation.max_weight=65536", "secure_aggregation.value_bits=10"],
    ),
    (
        "scores in clear",
        DIGITS,
        [PLAIN, "evaluation.federated_every_rounds=5"],
        "evaluation.federated_every_rounds",
        "show the server",
        ["evaluation.federated_every_rounds=5"],
    ),
]


@pytest.mark.parametrize(
    ("tables", "wrong", "key", "word", "right"),
    [case[1:] for case in CROSS_CHECKS],
    ids=[case[0] for case in CROSS_CHECKS],
)
def test_cross_check(tables: dict[str, Any], wrong: list[str], key: str, word: str, right: list[str]) -> None:
    faults = faults_of(tables, *wrong)
    assert list(faults) == [key]
    assert word in faults[key]
    parsed(tables, *right)


# (changes, key, words of the fault)
FIELD_FAULTS = [
    (["inner.steps=1"], "inner.steps", "joint training, not meta-learning"),
    (["inner.step=5"], "inner.step", "Did you mean 'steps'?"),
    (["rouns.count=5"], "rouns", "Did you mean 'rounds'?"),
    (["inner.zzz=5"], "inner.zzz", "Known here: steps, learning_rate, sample_rate"),
    (["data.client=5"], "data.client", "Did you mean 'clients'?"),
    (["task.retail=true"], "task.retail", "Known here: kind"),
    (["data.digits=true"], "data.digits", "Known here: federation, clients"),
    (["data.federation=mars"], "data.federation", "Write one of activity, csv, digits"),
    (["data.federation=none"], "data.federation", "Write one of activity, csv, digits"),
    (["task.kind=none"], "task.kind", "Add task.kind"),
    (["name=none"], "name", 'Add name = "my-federation"'),
    (["data=none"], "data", "Add a [data] section"),
    (["model=3"], "model", "dictionary"),
    (["data=digits"], "data", "dictionary"),
    (["name=../up"], "name", "pattern"),
    (["seed=-1"], "seed", "greater than or equal to 0"),
    (["seed=4294967296"], "seed", "less than 4294967296"),
    (["inner.learning_rate=nan"], "inner.learning_rate", "finite"),
    (["outer.step_size=inf"], "outer.step_size", "finite"),
    (["inner.learning_rate=0"], "inner.learning_rate", "greater than 0"),
    (["inner.sample_rate=1.5"], "inner.sample_rate", "less than or equal to 1"),
    (["model.name=resnet"], "model.name", "pattern"),
    (["inner.steps=2.5"], "inner.steps", "integer"),
    (["evaluation.shots=[-1]"], "evaluation.shots.0", "greater than or equal to 0"),
    (["evaluation.every_rounds=9007199254740993"], "evaluation.every_rounds", "less than or equal"),
    (["model.inputs=[9007199254740993]"], "model.inputs.0", "less than or equal"),
    (["secure_aggregation.mode=open"], "secure_aggregation.mode", "'secure' or 'plain'"),
    (["secure_aggregation.mod=plain"], "secure_aggregation.mod", "Did you mean 'mode'?"),
    (["secure_agregation.mode=plain"], "secure_agregation", "Did you mean 'secure_aggregation'?"),
    (["secure_aggregation.min_group=2"], "secure_aggregation.min_group", "greater than or equal to 3"),
    (["secure_aggregation.group_size=2"], "secure_aggregation.group_size", "greater than or equal to 3"),
    (["secure_aggregation.min_cohort=2"], "secure_aggregation.min_cohort", "greater than or equal to 3"),
    (["secure_aggregation.value_bits=1"], "secure_aggregation.value_bits", "greater than or equal to 2"),
    (["secure_aggregation.value_bits=25"], "secure_aggregation.value_bits", "less than or equal to 24"),
    (["secure_aggregation.corruption=0.5"], "secure_aggregation.corruption", "less than 0.5"),
    (["secure_aggregation.dropout=0.5"], "secure_aggregation.dropout", "less than 0.5"),
    (["secure_aggregation.max_left_out=1"], "secure_aggregation.max_left_out", "less than 1"),
    (["secure_aggregation.max_attempts=0"], "secure_aggregation.max_attempts", "greater than or equal to 1"),
    (["secure_aggregation.max_weight=0"], "secure_aggregation.max_weight", "greater than or equal to 1"),
    (["secure_aggregation.step_deadline_seconds=0"], "secure_aggregation.step_deadline_seconds", "greater than 0"),
    (["evaluation.federated_every_rounds=0"], "evaluation.federated_every_rounds", "greater than or equal to 1"),
]


@pytest.mark.parametrize(("changes", "key", "words"), FIELD_FAULTS, ids=[case[0][0] for case in FIELD_FAULTS])
def test_fault_of_a_field(changes: list[str], key: str, words: str) -> None:
    faults = faults_of(DIGITS, *changes)
    assert list(faults) == [key]
    assert words in faults[key]


def test_fault_inside_a_column() -> None:
    faults = faults_of(TABLE, 'data.columns=[{name="a"}, {nam="b"}]')
    assert faults.keys() == {"data.columns.1.name", "data.columns.1.nam"}
    assert "Did you mean 'name'?" in faults["data.columns.1.nam"]


def test_all_faults_are_in_one_list() -> None:
    tables = {
        "nam": "x",
        "data": {"federation": "digits", "clients": 1},
        "inner": {"steps": 1, "learning_rte": 0.1},
        "rounds": {"cohort_size": 3, "min_replies": 4},
        "privacy": {"epsilon": 3.0},
        "evaluation": {"shots": [3, 2]},
    }
    with pytest.raises(PlanError) as caught:
        parsed(tables)
    keys = [fault.key for fault in caught.value.faults]
    assert sorted(keys) == [
        "data.clients",
        "evaluation.shots",
        "inner.learning_rte",
        "inner.steps",
        "nam",
        "name",
        "privacy.epsilon",
        "rounds.cohort_size",
        "rounds.min_replies",
        "task",
    ]
    text = str(caught.value)
    assert text.startswith("plan.toml: 10 faults in the plan\n")
    assert all(f"  - {key}: " in text for key in keys)


def test_scores_in_clear_under_privacy_are_two_faults() -> None:
    with pytest.raises(PlanError, match="2 faults in the plan"):
        parsed(DIGITS, PLAIN, EXAMPLE, "privacy.epsilon=8", "evaluation.federated_every_rounds=5")


def test_one_fault_is_singular() -> None:
    with pytest.raises(PlanError, match="1 fault in the plan"):
        parsed(DIGITS, "seed=-1")


def test_wrong_plan_does_not_come_into_being_another_way() -> None:
    plan = parsed(DIGITS)
    rounds = plan.rounds.model_copy(update={"min_replies": 21})
    with pytest.raises(PlanError, match=r"rounds\.min_replies"):
        FederationPlan.model_validate({**dict(plan), "rounds": rounds})


def test_plan_is_frozen() -> None:
    plan = parsed(DIGITS)
    with pytest.raises(ValidationError, match="frozen"):
        plan.seed = 3  # type: ignore[misc]


def test_private_says_whether_training_is() -> None:
    assert not parsed(DIGITS).private
    assert parsed(DIGITS, EXAMPLE, "privacy.epsilon=1").private


def test_secure_is_what_a_plan_is_unless_it_says_otherwise() -> None:
    assert parsed(DIGITS).secure
    assert not parsed(DIGITS, PLAIN).secure


def test_rounds_with_scores_are_every_so_many() -> None:
    plan = parsed(DIGITS, "evaluation.federated_every_rounds=3")
    assert [number for number in range(1, 11) if plan.evaluates_in(number)] == [3, 6, 9]
    assert all(map(parsed(DIGITS, "evaluation.federated_every_rounds=1").evaluates_in, range(1, 11)))
    assert not any(map(parsed(DIGITS).evaluates_in, range(1, 11)))


# --- files


def test_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('name = "x"\n[data]\nfederation = "digits"\n[task]\nkind = "classification"\n')
    assert load_plan(path, ["seed=3"]).seed == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b'name = "x\n', "not TOML: .*line 1", id="TOML syntax"),
        pytest.param(b'name = "x"\nname = "y"\n', "not TOML", id="a key twice"),
        pytest.param(b'name = "\xff"\n', "not UTF-8", id="not UTF-8"),
        pytest.param(b"#" * (MAX_PLAN_BYTES + 1), "larger than", id="too large"),
        pytest.param(b"a = " + b"[" * 10_000, "nested too deeply", id="nested too deeply"),
    ],
)
def test_file_that_cannot_be_read(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(content)
    with pytest.raises(PlanError, match=words) as caught:
        load_plan(path)
    assert caught.value.where == str(path)
    assert [fault.key for fault in caught.value.faults] == [""]


def test_largest_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(dump_plan(parsed(DIGITS)).ljust(MAX_PLAN_BYTES, "\n"))
    assert load_plan(path) == parsed(DIGITS)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="No such file"):
        load_plan(tmp_path / "plan.toml")
    with pytest.raises(PlanError, match="cannot be read: Is a directory"):
        load_plan(tmp_path)


# --- settings


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("a.b=1", {"a": {"b": 1}}),
        ("a.b = 0.5 ", {"a": {"b": 0.5}}),
        ("a.b=true", {"a": {"b": True}}),
        ("a.b=[1, 2]", {"a": {"b": [1, 2]}}),
        ('a.b="none"', {"a": {"b": "none"}}),
        ("a.b=plain text", {"a": {"b": "plain text"}}),
        ("a.b=x=y", {"a": {"b": "x=y"}}),
        ("a.b=", {"a": {"b": ""}}),
        ("a.b=none", {"a": {}}),
        ("a.b=" + "[" * 10_000, {"a": {"b": "[" * 10_000}}),
        ("c=3", {"a": {"b": 7}, "c": 3}),
        ("a=none", {}),
    ],
)
def test_setting(setting: str, expected: dict[str, Any]) -> None:
    assert apply_settings({"a": {"b": 7}}, [setting]) == expected


@pytest.mark.parametrize("setting", ["a.b", "=3", "a.=3", "", "name.x=3"])
def test_not_a_setting(setting: str) -> None:
    with pytest.raises(UsageError, match=r"write it as section\.key=value"):
        apply_settings({"name": "x"}, [setting])


def test_settings_leave_the_tables_as_they_were() -> None:
    tables = {"a": {"b": {"c": 1}, "d": [1]}}
    assert apply_settings(tables, ["a.b.c=2", "a.d=3"]) == {"a": {"b": {"c": 2}, "d": 3}}
    assert tables == {"a": {"b": {"c": 1}, "d": [1]}}


def test_none_lets_the_default_count() -> None:
    tables = {**DIGITS, "inner": {"steps": 7}}
    assert parsed(tables).inner.steps == 7
    assert parsed(tables, "inner.steps=none").inner.steps == 10


def test_the_last_setting_counts() -> None:
    assert parsed(DIGITS, "seed=1", "seed=2").seed == 2


# --- digests


def shuffled(value: Any, rng: random.Random) -> Any:
    if not isinstance(value, dict):
        return value
    keys = list(value)
    rng.shuffle(keys)
    return {key: shuffled(value[key], rng) for key in keys}


FULL = parsed(TABLE, "model.inputs=[1]", "rounds.max_participations=3").model_dump(mode="json", exclude_none=True)


@given(st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_digest_does_not_depend_on_the_order_of_keys(seed: int) -> None:
    assert parsed(shuffled(FULL, random.Random(seed))).digest == parsed(FULL).digest


def test_digest_is_the_same_for_defaults_left_out_and_written() -> None:
    assert parsed(DIGITS).digest == parsed(DIGITS, "inner.steps=10").digest


CHANGES = [
    "name=other",
    "seed=1",
    "data.clients=99",
    "data.polarity=false",
    "task.tasks_per_client=2",
    "model.name=linear",
    "model.name='package.module:function'",
    "model.hidden=[64]",
    "model.inputs=[64]",
    "model.unshared_head=true",
    "inner.steps=11",
    "inner.learning_rate=0.10000000000000002",
    "inner.sample_rate=0.2",
    "outer.optimizer=adam",
    "outer.optimizer=yogi",
    "outer.tau=0.0010000000000000002",
    "rounds.count=51",
    "rounds.max_participations=3",
    "rounds.deadline_seconds=601",
    "privacy.delta=2e-5",
    "privacy.accountant=rdp",
    "evaluation.shots=[0]",
    "evaluation.learning_rate=0.1",
    "evaluation.federated_every_rounds=5",
    PLAIN,
    "secure_aggregation.group_size=11",
    "secure_aggregation.min_cohort=9",
    "secure_aggregation.min_group=5",
    "secure_aggregation.corruption=0.2",
    "secure_aggregation.dropout=0.1",
    "secure_aggregation.max_left_out=0.1",
    "secure_aggregation.max_attempts=4",
    "secure_aggregation.max_weight=2",
    "secure_aggregation.value_bits=16",
    "secure_aggregation.step_deadline_seconds=61",
    "robust_aggregation.corruption=0.001",
    'robust_aggregation.rule=["mean"]',
    "robust_aggregation.max_failure=2e-3",
    "robust_aggregation.clip_norm=1.0",
    "robust_aggregation.bucket_size=3",
]


def test_every_change_changes_the_digest() -> None:
    digests = {parsed(DIGITS).digest, *(parsed(DIGITS, change).digest for change in CHANGES)}
    assert len(digests) == len(CHANGES) + 1
    assert all(len(digest) == 64 and set(digest) <= set("0123456789abcdef") for digest in digests)


texts = st.text(min_size=1, max_size=8)
plans = st.builds(
    lambda seed, steps, rate, tau, labels, column, center: parse_plan(
        {
            **TABLE,
            "seed": seed,
            "inner": {"steps": steps, "learning_rate": rate},
            "outer": {"tau": tau},
            "data": {
                "federation": "csv",
                "client": "shop of one",
                "target": "target of it",
                "labels": labels,
                "columns": [{"name": column, "center": center}],
            },
        },
        source="hypothesis",
    ),
    st.integers(0, 2**32 - 1),
    st.integers(2, 10_000),
    st.floats(1e-300, 1e300),
    st.floats(1e-12, 1.0),
    st.lists(texts, min_size=2, max_size=3, unique=True),
    texts,
    st.floats(allow_nan=False, allow_infinity=False),
)


@given(plans, plans)
@settings(max_examples=50, deadline=None)
def test_digests_are_equal_exactly_for_equal_plans(one: FederationPlan, other: FederationPlan) -> None:
    assert (one.digest == other.digest) == (one == other)


@given(plans)
@settings(max_examples=50, deadline=None)
def test_written_plan_reads_back_the_same(tmp_path_factory: pytest.TempPathFactory, plan: FederationPlan) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.toml"
    path.write_text(dump_plan(plan), encoding="utf-8", newline="")
    again = load_plan(path)
    assert again == plan
    assert again.digest == plan.digest
