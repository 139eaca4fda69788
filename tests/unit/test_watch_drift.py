"""Tests of drift and of outcomes: known answers, what holds while nothing drifts, and what is found when it does."""

from __future__ import annotations

import sys
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testudo_client.watching.drift import (
    Compared,
    corrected,
    distance_test,
    holm,
    input_tests,
    output_tests,
    range_test,
    shares_test,
)
from testudo_client.watching.outcomes import Outcomes, outcome_tests, outcomes_of
from testudo_client.watching.streams import changed
from testudo_common.errors import UsageError
from testudo_common.learning.columns import InputColumn

AGE = InputColumn("age", 0)
LAB = InputColumn("lab", 1, missing=True)
WARD = InputColumn("ward", 3, width=3, kind="category")
COLUMNS = (AGE, LAB, WARD)


def rows(count: int, rng: np.random.Generator, *, empty: float = 0.2) -> np.ndarray:
    inputs = np.zeros((count, 6), dtype=np.float32)
    inputs[:, 0] = rng.normal(size=count)
    gone = rng.random(count) < empty
    inputs[:, 1] = np.where(gone, 0, rng.exponential(size=count))
    inputs[:, 2] = gone
    inputs[np.arange(count), 3 + rng.choice(3, count, p=[0.6, 0.3, 0.1])] = 1.0
    return inputs


def flagged(tests: list[Compared], level: float = 0.05) -> set[str]:
    return {test.name for test in corrected(tests) if test.adjusted <= level}


def test_holm_as_worked_out_by_hand() -> None:
    """Four hypotheses: 0.01 x 4, 0.02 x 3 = 0.06, then at least that, and 0.04 x 1 raised to it."""
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, 0.04, 0.02])), [0.06, 0.04, 0.06, 0.06])
    assert holm(np.empty(0)).size == 0


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=12), level=st.floats(0.001, 0.4))
def test_holm_rejects_what_its_definition_rejects(p: list[float], level: float) -> None:
    """Step down: the smallest p against level/m, the next against level/(m - 1), until one is not below."""
    rejected = set()
    for step, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[place] * (len(p) - step) > level:
            break
        rejected.add(place)
    assert {place for place, one in enumerate(holm(np.array(p))) if one <= level} == rejected


def test_families_weigh_the_same_however_many_tests_they_have() -> None:
    many = [Compared("inputs", str(place), "t", 0.0, 0.5) for place in range(50)]
    found = corrected([*many, Compared("outcomes", "loss", "t", 0.0, 0.01)])
    assert found[-1].adjusted == pytest.approx(0.02)
    alone = corrected([Compared("inputs", "a", "t", 0.0, 0.01), Compared("inputs", "b", "t", 0.0, 0.5)])
    assert [one.adjusted for one in alone] == pytest.approx([0.02, 0.5])


def test_known_answers_of_the_tests_beneath() -> None:
    apart = distance_test("inputs", "x", np.arange(5.0), np.arange(5.0) + 10)
    assert (apart.difference, apart.p) == (1.0, pytest.approx(2 / 252))  # 2 of the C(10, 5) orders are that extreme
    tea = shares_test("inputs", "cup", np.array([[3, 1], [1, 3]]))  # Fisher's lady tasting tea, both sides
    assert (tea.test, tea.p) == ("Fisher", pytest.approx(34 / 70))
    even = shares_test("inputs", "die", np.array([[30, 30, 30], [60, 60, 60]]))
    assert (even.test, even.p, even.difference) == ("chi-square", pytest.approx(1.0), 0.0)
    assert shares_test("inputs", "one", np.array([[5, 0], [7, 0]])).p == 1.0


def test_how_many_values_chance_puts_outside_a_range_is_counted_over_all_orders() -> None:
    """Three old and three new values in all 20 orders: the new ones outside, against the formula."""
    old_places = list(combinations(range(6), 3))
    outside = [sum(place < min(old) or place > max(old) for place in range(6)) for old in old_places]
    for count in range(4):
        new = np.concatenate([np.full(count, 99.0), np.full(3 - count, 1.5)])
        found = range_test("inputs", "x", np.arange(3.0), new)
        assert found.p == pytest.approx(sum(each >= count for each in outside) / len(outside))
        assert found.difference == count / 3


def test_a_wider_spread_is_found_by_its_range() -> None:
    rng = np.random.default_rng(0)
    old, new = rows(200, rng), rows(50, rng)
    new[:, 0] *= 3
    assert "age (range)" in flagged(input_tests(old, new, COLUMNS))


def test_shares_of_small_counts_are_drawn_and_the_same_each_time() -> None:
    counts = np.array([[20, 3, 1], [2, 9, 1]])
    first, again = shares_test("inputs", "w", counts), shares_test("inputs", "w", counts)
    assert first == again
    assert first.test == "chi-square, drawn"
    assert 0 < first.p < 0.01


@pytest.mark.parametrize("count", [50, 100, 500])
def test_a_check_of_rows_that_do_not_drift_flags_less_often_than_its_level(count: int) -> None:
    """On average over references; 100 checks at 5 %, of which 12 or more are flagged with a chance of 0.4 %."""
    rng = np.random.default_rng(count)
    alarms = 0
    for _ in range(100):
        old, new = rows(150, rng), rows(count, rng)
        loss = Outcomes(rng.exponential(size=150)), Outcomes(rng.exponential(size=count))
        alarms += bool(flagged([*input_tests(old, new, COLUMNS), *outcome_tests(*loss)]))
    assert alarms < 12


def test_what_drifts_is_named() -> None:
    rng = np.random.default_rng(0)
    old, new = rows(300, rng), rows(150, rng)
    moved = new.copy()
    moved[:, 0] += 1.0
    assert flagged(input_tests(old, moved, COLUMNS)) <= {"age", "age (range)"}
    assert "age" in flagged(input_tests(old, moved, COLUMNS))
    assert flagged(input_tests(old, rows(150, rng, empty=0.7), COLUMNS)) == {"lab (empty)"}
    other = new.copy()
    other[:, 3:] = [0.0, 0.0, 1.0]
    assert flagged(input_tests(old, other, COLUMNS)) == {"ward"}


def test_of_two_classes_one_output_is_tested_and_of_three_all() -> None:
    rng = np.random.default_rng(0)
    two, three = rng.dirichlet([1, 1], 60), rng.dirichlet([1, 1, 1], 60)
    assert [test.name for test in output_tests(two, two, ("no", "yes"))] == ["yes"]
    assert [test.name for test in output_tests(three, three, ("a", "b", "c"))] == ["a", "b", "c"]
    assert [test.name for test in output_tests(two[:, :1], two[:, :1], ())] == ["prediction"]


def classes(count: int, rng: np.random.Generator, *, wrong: float = 0.0) -> Outcomes:
    """Of a calibrated classifier; a share ``wrong`` of the outcomes is the other class."""
    sure = rng.uniform(0.5, 1, count)
    right = (rng.random(count) < sure) & (rng.random(count) >= wrong)
    return outcomes_of(np.stack([1 - sure, sure], axis=1), right.astype(np.float64), regression=False)


def test_worse_outcomes_are_found_and_better_ones_are_no_alarm() -> None:
    rng = np.random.default_rng(1)
    reference, worse = classes(200, rng), classes(100, rng, wrong=0.5)
    assert flagged(outcome_tests(reference, worse)) == {"loss", "accuracy", "calibration"}
    assert flagged(outcome_tests(worse, reference)) == set()
    assert flagged(outcome_tests(reference, classes(100, rng))) == set()


def test_surer_and_no_better_is_worse_calibration() -> None:
    rng = np.random.default_rng(2)
    sure = rng.uniform(0.6, 0.8, 400)
    right = (rng.random(400) < sure).astype(np.float64)
    probabilities = np.stack([1 - sure, sure], axis=1)
    surer = np.stack([0.5 - sure / 2, 0.5 + sure / 2], axis=1)
    before = outcomes_of(probabilities[:200], right[:200], regression=False)
    after = outcomes_of(surer[200:], right[200:], regression=False)
    assert "calibration" in flagged(outcome_tests(before, after))


def test_a_regression_is_judged_by_its_squared_errors() -> None:
    outcomes = outcomes_of(np.array([[1.0], [3.0]]), np.array([1.5, 1.0]), regression=True)
    np.testing.assert_allclose(outcomes.losses, [0.25, 4.0])
    assert outcomes.correct is None
    assert [test.name for test in outcome_tests(outcomes, outcomes)] == ["loss"]


@pytest.mark.parametrize("stream", ["adwin", "page-hinkley"])
def test_a_stream_finds_losses_that_grow_and_none_that_shrink(stream: str) -> None:
    pytest.importorskip("river")
    rng = np.random.default_rng(0)
    small, large = rng.exponential(0.4, 300), rng.exponential(1.2, 300)
    at = changed(np.concatenate([small, large]), stream).at  # type: ignore[arg-type]
    assert at is not None
    assert at > 300
    assert changed(np.concatenate([large, small]), stream).at is None  # type: ignore[arg-type]
    assert changed(small, stream).at is None  # type: ignore[arg-type]


def test_a_stream_without_river_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "river.drift", None)
    with pytest.raises(UsageError, match=r"testudo-fl\[monitor\]"):
        changed(np.zeros(3), "adwin")
