"""The evaluation harness: its numbers against those of others, its verdicts by their faults, and its command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from own_models import CLINIC, SHOP, clinic_table, make_version, plan_of, shop_table, store_with, write_csv
from testudo_client.cli import app
from testudo_client.data import examples_of_rows
from testudo_client.judging.answered import Answered, Parts
from testudo_client.judging.comparing import compare, verdict_of
from testudo_client.judging.few_shot import adapted, answered, query_rows, support_rows, usable_shots
from testudo_client.judging.judge import Request, judge_own, judge_published
from testudo_client.judging.results import EVALUATION_FILE, Evaluation, ModelName, Score
from testudo_client.judging.scoring import scores_of
from testudo_client.judging.slicing import holm, parts_of, slices_of
from testudo_client.personal.few_shot import FewShot
from testudo_client.personal.own_model import Classes, Intervals
from testudo_common.errors import DataError, ModelError, TestudoError, UsageError
from testudo_common.learning.learner import Learner, initial_vector
from testudo_common.learning.metrics import ClassificationSums, RegressionSums
from testudo_common.plan.sections import TableData
from testudo_common.publication import PublishedModel, write_published

OLD = ModelName(digest="0" * 64, round=1)


def classes(count: int, *, seed: int = 0, right: float = 0.7, clients: int = 1, kinds: int = 3) -> Answered:
    """Made-up answers, a share ``right`` of them right."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(kinds, size=count)
    told = np.where(rng.random(count) < right, targets, (targets + 1) % kinds)
    probabilities = rng.dirichlet(np.ones(kinds), size=count) * 0.4 + 0.6 * np.eye(kinds)[told]
    sets = probabilities > 0.2
    return Answered(targets, Classes(probabilities.astype(np.float32), sets), np.arange(count) % clients)


def numbers(errors: np.ndarray) -> Answered:
    """Made-up answers with these errors."""
    values = np.asarray(errors, dtype=np.float64)
    zeros = np.zeros(len(values))
    return Answered(zeros, Intervals(values, values - 1, values + 1), np.zeros(len(values), dtype=np.intp))


def test_metrics_of_sums_are_those_of_the_rows_drawn() -> None:
    """The oracle goes through the rows; the bootstrap adds up their parts."""
    judged = classes(40)
    parts, drawn = Parts.of(judged), np.random.default_rng(1).integers(40, size=40)
    weights = np.bincount(drawn, minlength=40).astype(np.float64)
    found = parts.metrics(np.asarray((parts.rows.T @ weights[:, None]).T))
    assert isinstance(judged.answers, Classes)
    expected = ClassificationSums.of(judged.answers.probabilities[drawn], judged.targets[drawn]).metrics()
    assert {name: found[name][0] for name in expected} == pytest.approx(expected)
    assert found["coverage"][0] == pytest.approx(judged.answers.sets[drawn, judged.targets[drawn]].mean())
    assert found["set_size"][0] == pytest.approx(judged.answers.sets[drawn].sum(axis=1).mean())


def test_errors_of_sums_are_those_of_the_rows() -> None:
    errors = np.array([0.5, -2.0, 0.25])
    found = scores_of(numbers(errors), np.random.default_rng(0))
    expected = RegressionSums.of(errors, np.zeros(3)).metrics()
    assert {name: found[name].value for name in expected} == pytest.approx(expected)
    assert found["coverage"].value == pytest.approx(2 / 3) and found["interval_width"].value == pytest.approx(2)


def test_a_share_has_wilsons_interval() -> None:
    """Of 8 in 10, as published tables have it."""
    judged = classes(10, right=1.0)
    judged.targets[:2] = (judged.targets[:2] + 1) % 3
    score = scores_of(judged, np.random.default_rng(0))["accuracy"]
    assert (score.value, score.low, score.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)


def test_of_several_clients_scores_are_means_over_them() -> None:
    judged = classes(30, clients=1)
    uneven = Answered(judged.targets, judged.answers, np.repeat([0, 1], [5, 25]))
    right = 1 - uneven.losses
    score = scores_of(uneven, np.random.default_rng(0))["accuracy"]
    assert score.value == pytest.approx((right[:5].mean() + right[5:].mean()) / 2)


def test_answers_that_are_no_probabilities_are_refused() -> None:
    judged = classes(5)
    assert isinstance(judged.answers, Classes)
    judged.answers.probabilities[0] = np.nan
    with pytest.raises(ModelError):
        scores_of(judged, np.random.default_rng(0))


def test_holms_correction_of_a_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.one_of(st.just(""), st.floats(-1e6, 1e6).map(repr), st.sampled_from(["a", "b"])), min_size=1))
def test_every_row_is_in_one_part_of_a_column(cells: list[str]) -> None:
    try:
        parts = parts_of("column", cells)
    except DataError:
        return
    assert sorted(row for rows in parts.values() for row in rows.tolist()) == list(range(len(cells)))
    assert all(len(rows) for rows in parts.values())


def test_a_column_of_names_is_no_slice() -> None:
    with pytest.raises(DataError, match="51 different values"):
        parts_of("name", [f"n{number}" for number in range(51)])


@pytest.mark.parametrize("clients", [1, 10])
def test_a_part_that_is_answered_worse_is_found(clients: int) -> None:
    judged = classes(400, right=0.9, clients=clients)
    region = np.array(["west" if number % 40 < 8 else "east" for number in range(400)])
    bad = np.random.default_rng(0).choice(np.flatnonzero(region == "west"), 40, replace=False)
    judged.targets[bad] = (judged.targets[bad] + 1) % 3
    found = slices_of(judged, {"region": region.tolist(), "half": (["a", "b"] * 200)}, np.random.default_rng(0))
    assert [(one.value, one.verdict) for one in found if one.verdict == "worse"] == [("west", "worse")]


def test_parts_at_random_are_seldom_called_worse() -> None:
    """At 5 % over all slices of a table together."""
    rng, alarms = np.random.default_rng(0), 0
    for seed in range(40):
        column = rng.choice(list("abcde"), size=120).tolist()
        found = slices_of(classes(120, seed=seed), {"column": column}, rng)
        alarms += any(one.verdict == "worse" for one in found)
    assert alarms <= 5  # of 40 at 5 %, more than 5 come by chance in 1.4 % of cases


def test_too_few_rows_have_no_verdict() -> None:
    found = slices_of(classes(60), {"x": ["few"] * 19 + ["many"] * 41}, np.random.default_rng(0))
    assert {one.value: one.verdict for one in found} == {"few": "too few", "many": "too few"}
    assert all(one.p_value is None and one.score.low is None for one in found)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.1, "better"), (-0.01, 0.1, "not worse"), (-0.05, -0.03, "worse"), (-0.05, 0.1, "not shown")],
)
def test_the_verdict_on_an_interval(low: float, high: float, verdict: str) -> None:
    assert verdict_of(Score(value=0.0, low=low, high=high), 0.02) == verdict
    assert verdict_of(Score(value=0.0), 0.02) == "not shown"


def test_to_be_the_same_on_few_rows_proves_nothing() -> None:
    """On many it does; a bootstrap of equal rows would call any number of them proof."""
    few, many = classes(60), classes(300)
    assert compare(few, few, OLD, shots=1, headline="accuracy").verdict == "not shown"
    assert compare(many, many, OLD, shots=1, headline="accuracy").verdict == "not worse"


def test_a_worse_model_is_called_worse_and_a_better_one_better() -> None:
    good, bad = classes(300, right=0.9), classes(300, right=0.6)
    assert np.array_equal(good.targets, bad.targets)
    assert compare(bad, good, OLD, shots=1, headline="accuracy").verdict == "worse"
    assert compare(good, bad, OLD, shots=1, headline="accuracy").verdict == "better"
    small, large = numbers(np.linspace(-1, 1, 50)), numbers(np.linspace(-2, 2, 50))
    assert compare(large, small, OLD, shots=1, headline="rmse").verdict == "worse"
    assert compare(small, large, OLD, shots=1, headline="rmse").verdict == "better"


def test_a_model_is_scored_on_rows_it_was_not_adapted_on() -> None:
    plan = plan_of(CLINIC)
    assert isinstance(plan.data, TableData)
    examples = examples_of_rows(plan.data, "classification", clinic_table())
    support, query = support_rows(examples, 5, plan), query_rows(examples, 5, plan)
    assert sorted([*support, *query]) == list(range(40)) and len(support) == 10
    with pytest.raises(DataError, match="--shots"):
        usable_shots(plan, examples.take(np.arange(12)), (1, 5))
    assert usable_shots(plan, examples.take(np.arange(12)), None) == (1,)


@pytest.mark.parametrize(("tables", "table"), [(CLINIC, clinic_table(80)), (SHOP, shop_table(60))])
def test_a_meta_model_is_judged_as_its_adapted_models_answer(tables: dict[str, Any], table: Any) -> None:
    plan = plan_of(tables, "evaluation.steps=5", "evaluation.shots=[0, 2, 4]")
    published = PublishedModel(plan, 3, initial_vector(plan))
    column = "ward" if "ward" in table.columns else "price"
    found = judge_published(
        published, table, Request("now", "mine.csv", slices=(column,), shifts=True), before=published
    )
    assert isinstance(plan.data, TableData)
    examples = examples_of_rows(plan.data, plan.task.kind, table)
    own = adapted(published, examples.take(support_rows(examples, 4, plan)), 4)
    expected = scores_of(answered(own, examples.take(query_rows(examples, 4, plan))), np.random.default_rng(0))
    assert found.tables[-1].metrics | expected == found.tables[-1].metrics
    assert [one.shots for one in found.tables if one.arm == "adapted"] == [2, 4]
    assert {one.verdict for one in found.comparisons} <= {"not worse", "not shown"}  # than itself
    assert {one.column for one in found.slices} == {column} and {one.shift for one in found.shifts} >= {"noise", "swap"}
    assert Evaluation.model_validate_json(found.model_dump_json()) == found


def test_a_version_in_use_is_judged_and_rows_that_it_knows_are_told() -> None:
    found = judge_own(make_version(3), clinic_table(60), Request("now", "new.csv"), known_rows=7)
    assert (found.model.version, found.tables[0].arm, found.tables[0].rows) == (3, "in_use", 60)
    assert found.warnings[0].startswith("7 of 60 rows")


def test_models_of_other_tasks_are_not_compared() -> None:
    plan, other = plan_of(CLINIC), plan_of(CLINIC, 'data.labels=["well", "ill"]')
    published, before = (PublishedModel(one, 1, initial_vector(one)) for one in (plan, other))
    with pytest.raises(UsageError, match="another question"):
        judge_published(published, clinic_table(), Request("now", "mine.csv"), before=before)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two meta-models, a table, and an owner's folder."""
    tmp_path = tmp_path_factory.mktemp("judging")
    plan = plan_of(CLINIC, "evaluation.steps=2", "evaluation.learning_rate=0.01")
    assert isinstance(plan.data, TableData)
    examples = examples_of_rows(plan.data, "classification", clinic_table(100, seed=9))
    good = FewShot.of(plan, steps=2000).adapted(Learner(plan), initial_vector(plan), examples).own.parameters
    write_published(tmp_path / "new.safetensors", PublishedModel(plan, 2, good))
    write_published(tmp_path / "wild.safetensors", PublishedModel(plan, 1, -good))
    write_csv(tmp_path / "mine.csv", clinic_table(200))
    store_with(tmp_path / "owner", make_version())
    return tmp_path


def test_the_command_judges_and_its_gate_holds_back(files: Path) -> None:
    new, data = str(files / "new.safetensors"), str(files / "mine.csv")
    old = [data, "--shots", "2", "--before"]
    done = CliRunner().invoke(
        app, ["evaluate", new, "--data", *old, str(files / "wild.safetensors"), "--out", str(files / "found"), "--json"]
    )
    assert done.exit_code == 0, done.output
    found = Evaluation.model_validate(json.loads(done.stdout))
    written = (files / "found" / EVALUATION_FILE).read_text(encoding="utf-8")
    assert Evaluation.model_validate_json(written) == found
    assert (files / "found" / EVALUATION_FILE).stat().st_mode & 0o077 == 0
    gated = CliRunner().invoke(app, ["evaluate", str(files / "wild.safetensors"), "--data", *old, new, "--gate"])
    assert gated.exit_code == 1 and "The gate holds it back" in gated.output
    assert found.comparisons[0].verdict == "better"
    own = CliRunner().invoke(app, ["evaluate", "--own", str(files / "owner"), "--data", data])
    assert own.exit_code == 0 and "Version 1 on 200 rows" in own.output


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "either a meta-model or --own"),
        (["new.safetensors", "--own", "owner", "--data", "mine.csv"], "either a meta-model or --own"),
        (["new.safetensors"], "no rows"),
        (["new.safetensors", "--data", "mine.csv", "--gate"], "needs a model to compare"),
        (["new.safetensors", "--data", "mine.csv", "--shots", "1,x"], "not support sizes"),
        (["new.safetensors", "--data", "mine.csv", "--slice", "region"], "no column 'region'"),
        (["new.safetensors", "--data", "none.csv"], "cannot be read"),
        (["mine.csv", "--data", "mine.csv"], "damaged"),
        (["--own", "owner", "--data", "mine.csv", "--shots", "1"], "--shots and --before"),
    ],
)
def test_the_command_says_what_is_wrong(files: Path, arguments: list[str], problem: str) -> None:
    placed = [str(files / one) if (files / one).exists() or "none" in one else one for one in arguments]
    done = CliRunner().invoke(app, ["evaluate", *placed, *(["--out", str(files / "out")] if placed else [])])
    assert isinstance(done.exception, TestudoError) and problem in str(done.exception)
    assert not (files / "out").exists()
