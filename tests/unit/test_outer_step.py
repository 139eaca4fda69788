"""The outer step, the cohort and the mean: against formulas by hand, torch's Adam, and properties."""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from testudo_common.errors import AggregationError
from testudo_common.plan.sections import OuterPlan
from testudo_common.vectors import Vector
from testudo_server.aggregate import mean
from testudo_server.cohort import draw_cohort
from testudo_server.outer_step import OuterState, init_outer, outer_step
from testudo_server.running_mean import RunningMean

numbers = st.floats(-1e3, 1e3, width=16)
vectors = arrays(np.float32, 5, elements=numbers)


def vector(*values: float) -> Vector:
    return np.array(values, dtype=np.float32)


def run(outer: OuterPlan, model: Vector, updates: list[Vector]) -> list[Vector]:
    """The models after each update, of as many rounds as there are updates."""
    state = init_outer(outer, len(model))
    models = []
    for number, update in enumerate(updates):
        model, state = outer_step(outer, state, model, update, progress=number / len(updates))
        models.append(model)
    return models


# --- SGD


def test_sgd_anneals_to_zero_over_the_rounds() -> None:
    outer = OuterPlan(step_size=0.5, anneal=True)
    models = run(outer, vector(0.0, 8.0), [vector(1.0, -2.0)] * 4)
    steps = np.cumsum([0.5 * (1 - done / 4) for done in range(4)])
    np.testing.assert_allclose(np.stack(models), [[step, 8 - 2 * step] for step in steps], rtol=1e-6)


def test_sgd_without_annealing() -> None:
    outer = OuterPlan(step_size=0.5, anneal=False)
    models = run(outer, vector(0.0), [vector(1.0)] * 4)
    np.testing.assert_allclose(np.stack(models)[:, 0], [0.5, 1.0, 1.5, 2.0])


def test_sgd_of_step_size_one_is_the_mean_of_the_clients_models() -> None:
    model, update = vector(3.0, 4.0), vector(-1.0, 0.5)
    np.testing.assert_array_equal(run(OuterPlan(), model, [update])[0], model + update)


@given(vectors, st.floats(0, 0.999), st.booleans())
@settings(max_examples=50, deadline=None)
def test_zero_update_keeps_the_model(model: Vector, progress: float, anneal: bool) -> None:
    outer = OuterPlan(anneal=anneal)
    following, state = outer_step(outer, init_outer(outer, 5), model, np.zeros(5, dtype=np.float32), progress=progress)
    np.testing.assert_array_equal(following, model)
    assert len(state.first) == len(state.second) == 0


# --- Adam and Yogi (Reddi et al. 2021, algorithm 2), one coordinate by hand

UPDATES = [0.5, -0.25, 0.125, 4.0, 0.0, -3.0]


def by_hand(kind: str, outer: OuterPlan, start: float) -> list[float]:
    x, m, v = start, 0.0, outer.tau**2
    found = []
    for delta in UPDATES:
        m = outer.beta1 * m + (1 - outer.beta1) * delta
        if kind == "adam":
            v = outer.beta2 * v + (1 - outer.beta2) * delta * delta
        else:
            v = v - (1 - outer.beta2) * delta * delta * math.copysign(1, v - delta * delta)
        x = x + outer.step_size * m / (math.sqrt(v) + outer.tau)
        found.append(x)
    return found


@pytest.mark.parametrize("kind", ["adam", "yogi"])
@pytest.mark.parametrize("tau", [1e-3, 0.1])
def test_adaptive_steps_equal_the_formula(kind: str, tau: float) -> None:
    outer = OuterPlan(optimizer=kind, step_size=0.3, beta1=0.8, beta2=0.95, tau=tau)  # type: ignore[arg-type]
    models = run(outer, vector(2.0), [vector(update) for update in UPDATES])
    np.testing.assert_allclose(np.stack(models)[:, 0], by_hand(kind, outer, 2.0), rtol=1e-5)


def test_adam_is_torchs_without_its_bias_correction() -> None:
    """torch divides by corrections and starts v at 0: undone here, step by step, in float64."""
    outer = OuterPlan(optimizer="adam", step_size=0.3, beta1=0.8, beta2=0.95, tau=1e-3)
    parameter = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    reference = torch.optim.Adam([parameter], lr=1.0, betas=(0.8, 0.95), eps=0.0)
    state = init_outer(outer, 1)
    model = vector(0.0)
    for number, update in enumerate(UPDATES, start=1):
        parameter.grad = torch.tensor([update], dtype=torch.float64)
        reference.step()
        before = model
        model, state = outer_step(outer, state, model, vector(update), progress=0.0)
        moments = reference.state[parameter]
        second = moments["exp_avg_sq"].item() + 0.95**number * outer.tau**2
        assert state.first[0] == pytest.approx(moments["exp_avg"].item())
        assert state.second[0] == pytest.approx(second)
        step = 0.3 * moments["exp_avg"].item() / (math.sqrt(second) + outer.tau)
        assert model[0] - before[0] == pytest.approx(step, rel=1e-5)


def test_yogi_and_adam_differ() -> None:
    """A large v is forgotten slowly by Yogi."""
    adam, yogi = (OuterPlan(optimizer=kind, beta2=0.9) for kind in ("adam", "yogi"))  # type: ignore[arg-type]
    state = OuterState(np.zeros(1), np.full(1, 100.0))
    seconds = [outer_step(o, state, vector(0), vector(0.1), progress=0)[1].second[0] for o in (adam, yogi)]
    assert seconds == pytest.approx([90.001, 99.999])


@pytest.mark.parametrize("kind", ["adam", "yogi"])
def test_adaptive_steps_do_not_anneal(kind: str) -> None:
    outer = OuterPlan(optimizer=kind)  # type: ignore[arg-type]
    models = [
        outer_step(outer, init_outer(outer, 1), vector(1), vector(1), progress=progress)[0][0]
        for progress in (0.0, 0.9)
    ]
    assert models[0] == models[1]


@given(st.sampled_from(["sgd", "adam", "yogi"]), vectors, vectors)
@settings(max_examples=50, deadline=None)
def test_arguments_are_left_alone_and_results_are_float32(kind: str, model: Vector, update: Vector) -> None:
    outer = OuterPlan(optimizer=kind)  # type: ignore[arg-type]
    state = init_outer(outer, 5)
    copies = model.copy(), update.copy(), state.first.copy(), state.second.copy()
    following, _ = outer_step(outer, state, model, update, progress=0.5)
    assert following.dtype == np.float32
    assert following is not model
    for given_now, copy in zip((model, update, state.first, state.second), copies, strict=True):
        np.testing.assert_array_equal(given_now, copy)


# --- the mean


@given(arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=numbers), st.randoms())
@settings(max_examples=50, deadline=None)
def test_mean(rows: np.ndarray, rng: object) -> None:
    found = mean(rows, [1] * len(rows))
    assert found.dtype == np.float32
    expected = [math.fsum(column.tolist()) / len(rows) for column in rows.T]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)
    order = list(range(len(rows)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    np.testing.assert_allclose(mean(rows[order], [1] * len(rows)), found, rtol=1e-6, atol=1e-12)


def test_mean_is_summed_in_float64() -> None:
    assert mean(np.array([[2.0**24], [1.0], [-(2.0**24)]], dtype=np.float32), [1, 1, 1])[0] == np.float32(1 / 3)


groups_of_clients = st.lists(st.lists(st.integers(-1000, 1000), min_size=1, max_size=6), min_size=1, max_size=6)


@given(groups_of_clients)
@settings(max_examples=50, deadline=None)
def test_mean_of_groups_is_the_mean_of_the_clients_behind_them(groups: list[list[int]]) -> None:
    rows = np.array([[sum(group) / len(group)] for group in groups], dtype=np.float32)
    everybody = [value for group in groups for value in group]
    found = mean(rows, [len(group) for group in groups])
    np.testing.assert_allclose(found, [sum(everybody) / len(everybody)], rtol=1e-5, atol=1e-3)


weighed = st.lists(
    st.tuples(arrays(np.float32, 3, elements=st.floats(-100, 100, width=32)), st.integers(1, 1000)),
    min_size=1,
    max_size=8,
)


@given(weighed, st.randoms())
@settings(max_examples=50, deadline=None)
def test_mean_of_rows_that_come_one_by_one(groups: list[tuple[Vector, int]], rng: random.Random) -> None:
    """The same to the last bit in any order, however much farther than it must it could reach; and that of all rows."""
    most = 100.0 * sum(votes for _, votes in groups)

    def folded(groups: list[tuple[Vector, int]], reach: float) -> Vector:
        running = RunningMean(3, reach)
        for row, votes in groups:
            running.add(row, votes)
        return running.result()

    found = folded(groups, 1000 * most)
    others = groups.copy()
    rng.shuffle(others)
    assert folded(others, 1000 * most).tobytes() == found.tobytes()
    rows, votes = np.stack([row for row, _ in groups]), [count for _, count in groups]
    expected = [
        float(sum(Fraction(float(value)) * count for value, count in zip(column, votes, strict=True)) / sum(votes))
        for column in rows.T
    ]
    np.testing.assert_allclose(found, expected, rtol=2**-23, atol=1e-11)
    np.testing.assert_allclose(found, mean(rows, votes), rtol=2**-23, atol=1e-11)


def test_rows_that_would_overflow_the_sum_are_refused() -> None:
    running = RunningMean(2, 3.0)
    running.add(np.array([1.0, -2.0], dtype=np.float32))
    for bad in ([0.0, 1.5], [np.nan, 0.0], [-np.inf, 0.0]):
        with pytest.raises(AggregationError, match="farther than 3"):
            running.add(np.array(bad, dtype=np.float32))
    running.add(np.array([-1.0, 0.5], dtype=np.float32))
    assert running.result().tolist() == [0.0, -0.75], "as if the others had not come"


def test_votes_are_weights_and_not_repetitions_of_a_row() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    assert mean(rows, [3, 1]).tolist() == [0.75, 0.25]
    assert mean(rows, [300_000, 100_000]).tolist() == [0.75, 0.25]


# --- cohorts

clients = st.dictionaries(st.text(max_size=4), st.integers(0, 5), max_size=12)


def draw(participations: dict[str, int], size: int, limit: int | None = None, **more: int) -> tuple[str, ...]:
    return draw_cohort(
        participations,
        size,
        limit=limit,
        seed=more.get("seed", 0),
        round_number=more.get("round_number", 1),
    )


@given(clients, st.integers(1, 15), st.one_of(st.none(), st.integers(1, 6)), st.randoms())
@settings(max_examples=50, deadline=None)
def test_cohort(participations: dict[str, int], size: int, limit: int | None, rng: object) -> None:
    cohort = draw(participations, size, limit)
    eligible = {client for client, count in participations.items() if limit is None or count < limit}
    assert list(cohort) == sorted(set(cohort))
    assert set(cohort) <= eligible
    assert len(cohort) == min(size, len(eligible))
    most = max((participations[client] for client in cohort), default=0)
    assert all(participations[client] >= most for client in eligible - set(cohort)), "least asked first"
    items = list(participations.items())
    rng.shuffle(items)  # type: ignore[attr-defined]
    assert draw(dict(items), size, limit) == cohort, "the order of a mapping changes nothing"

    def turn(client: str) -> tuple[int, bytes]:
        return participations[client], hashlib.sha256(f"0|1|{client}".encode()).digest()

    assert cohort == tuple(sorted(sorted(eligible, key=turn)[:size])), "as all clients sorted by their turns"


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 25), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_turns_are_even(count: int, size: int, rounds: int, seed: int) -> None:
    asked = {f"client-{number}": 0 for number in range(count)}
    for number in range(1, rounds + 1):
        for client in draw(asked, size, seed=seed, round_number=number):
            asked[client] += 1
    assert max(asked.values()) - min(asked.values()) <= 1
    assert sum(asked.values()) == rounds * min(size, count)
    assert max(asked.values()) == math.ceil(rounds * min(size, count) / count)


def test_ties_are_broken_by_seed_and_round() -> None:
    names = {f"client-{number}": 0 for number in range(20)}
    cohorts = {draw(names, 5, seed=seed, round_number=number) for seed in range(5) for number in range(1, 6)}
    assert len(cohorts) == 25
    assert draw(names, 5, seed=3) == draw(names, 5, seed=3)
    asked = Counter(c for number in range(1, 201) for c in draw(names, 5, round_number=number))
    assert set(asked) == set(names)
    assert max(asked.values()) < 80, "50 on average, 6 deviations more at most"
