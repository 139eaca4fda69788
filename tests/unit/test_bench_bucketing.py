"""What the benchmark of bucketing trains on, what its attackers send, and that it lists the published table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from testudo_common.vectors import Vector
from testudo_server.aggregate.base import Rows
from testudo_simulations.benchmarks import BENCHMARKS, bucketing
from testudo_simulations.benchmarks.bucketing import (
    ATTACKERS,
    CASES,
    HONEST,
    MainDirection,
    Setup,
    accuracy_under_mimicry,
    measure_bucketing,
)
from testudo_simulations.benchmarks.label_sorted import Network, label_sorted

TINY = Setup(iterations=3, hidden=4)


def rows_sent(monkeypatch: pytest.MonkeyPatch, setup: Setup) -> list[Rows]:
    """What the server is given in every iteration."""
    seen: list[Rows] = []

    def watched(*_: object) -> Callable[[Rows], Vector]:
        def mean(rows: Rows) -> Vector:
            seen.append(rows)
            return rows.mean(axis=0)

        return mean

    monkeypatch.setattr(bucketing, "_aggregator", watched)
    accuracy_under_mimicry(("mean",), 0, setup)
    return seen


def test_shards_are_sorted_by_label_and_share_nothing_with_the_test() -> None:
    shards = label_sorted(3, HONEST)
    assert shards.targets.shape == (HONEST, 70)
    assert shards.inputs.shape == (HONEST, 70, 64)
    assert (np.diff(shards.targets.ravel()) >= 0).all()
    assert max(len(set(labels)) for labels in shards.targets.tolist()) == 2
    images = np.concatenate([shards.inputs.reshape(-1, 64), shards.test.inputs])
    assert len(images) == 1797
    assert len(np.unique(images, axis=0)) == 1797  # no two of the data set's images are equal
    assert abs(shards.inputs.mean()) < 1e-5
    assert abs(shards.inputs.std() - 1.0) < 1e-5


def test_a_batch_has_a_workers_own_examples_once_each() -> None:
    shards = label_sorted(0, HONEST)
    inputs, targets = shards.batch(70, np.random.default_rng(1))
    assert not np.array_equal(inputs, shards.inputs)
    for worker in range(HONEST):
        np.testing.assert_array_equal(np.sort(targets[worker]), np.sort(shards.targets[worker]))
        own = {image.tobytes() for image in shards.inputs[worker]}
        assert {image.tobytes() for image in inputs[worker]} == own
    assert shards.batch(32, np.random.default_rng(1))[1].shape == (HONEST, 32)


def test_gradients_are_those_of_the_cross_entropy() -> None:
    rng = np.random.default_rng(0)
    network = Network(pixels=3, hidden=4)
    model = network.initial(rng).astype(np.float64)
    inputs, targets = rng.normal(size=(2, 5, 3)), rng.integers(10, size=(2, 5))

    def loss(parameters: np.ndarray, worker: int) -> float:
        first, first_bias, second, second_bias = network.parts(parameters)
        logits = np.maximum(inputs[worker] @ first + first_bias, 0.0) @ second + second_bias
        chosen = logits[np.arange(5), targets[worker]]
        return float((np.log(np.exp(logits).sum(axis=1)) - chosen).mean())

    found = network.gradients(model, inputs, targets)
    for worker in range(2):
        for place in range(len(model)):
            step = np.zeros_like(model)
            step[place] = 1e-6
            slope = (loss(model + step, worker) - loss(model - step, worker)) / 2e-6
            assert found[worker, place] == pytest.approx(slope, abs=1e-7)


def test_mimics_copy_one_honest_worker_from_the_warm_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = rows_sent(monkeypatch, replace(TINY, iterations=5))
    copied = set()
    for rows in seen:
        assert rows.shape == (HONEST + ATTACKERS, len(rows[0]))
        honest, bad = rows[:HONEST], rows[HONEST:]
        same = np.flatnonzero((honest == bad[0]).all(axis=1))
        assert len(same) == 1
        assert (bad == bad[0]).all()
        copied.add(int(same[0]))
    assert len(copied) == 1
    known = MainDirection(0, np.zeros(len(seen[0][0])), np.random.default_rng([0, 3]).normal(size=len(seen[0][0])))
    assert copied == {int(np.argmax(seen[0][:HONEST] @ known.after(seen[0][:HONEST]).direction))}


def test_the_direction_becomes_the_one_in_which_honest_rows_vary_most() -> None:
    rng = np.random.default_rng(4)
    main = rng.normal(size=30)
    known = MainDirection(0, np.zeros(30), rng.normal(size=30))
    for _ in range(200):
        honest = 7.0 + rng.normal(size=(20, 30)) + 5.0 * rng.normal(size=(20, 1)) * main / np.linalg.norm(main)
        known = known.after(honest.astype(np.float32))
    assert abs(known.direction @ main) / np.linalg.norm(main) > 0.98
    assert np.abs(known.mean - 7.0).max() < 1.0
    assert known.seen == 200


def test_the_target_is_the_furthest_one_way() -> None:
    known = MainDirection(1, np.zeros(2), np.array([1.0, 0.0]))
    assert known.target(np.array([[-3, 0], [1, 0], [2, 5], [0, 9]], dtype=np.float32)) == 2


def test_rows_that_do_not_vary_have_no_direction() -> None:
    known = MainDirection(0, np.zeros(3), np.ones(3)).after(np.ones((4, 3), dtype=np.float32))
    np.testing.assert_array_equal(known.direction, 0.0)
    assert known.target(np.ones((4, 3), dtype=np.float32)) == 0


def test_workers_send_their_momentum(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a shard in every batch, and no step: the gradient stays what it is."""
    still = replace(TINY, learning_rate=0.0, batch_size=70, momentum=0.5)
    first, second, third = (rows[:HONEST] for rows in rows_sent(monkeypatch, still))
    np.testing.assert_allclose(second, 1.5 * first, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(third, 1.75 * first, rtol=1e-3, atol=1e-6)


def test_published_clipping_begins_at_the_last_result() -> None:
    rng = np.random.default_rng(2)
    clipped = bucketing._aggregator(("centred_clipping",), Setup(), rng)
    centre = np.zeros(8)
    for _ in range(3):
        rows = rng.normal(30.0, 20.0, size=(25, 8)).astype(np.float32)
        for _ in range(3):
            off = rows - centre
            norms = np.linalg.norm(off, axis=1, keepdims=True)
            centre = centre + (off * np.minimum(1.0, 10.0 / norms)).mean(axis=0)
        np.testing.assert_allclose(clipped(rows), centre, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("names", [("krum",), ("bucketing", "median")])
def test_a_seed_says_it_all(names: tuple[str, ...]) -> None:
    setup = replace(TINY, iterations=20, learning_rate=0.3)
    assert accuracy_under_mimicry(names, 1, setup) == accuracy_under_mimicry(names, 1, setup)


def test_the_published_table_is_listed() -> None:
    found = {(each.case, each.metric): each for each in measure_bucketing(2, replace(TINY, iterations=1))}
    assert len(found) == 2 * (len(CASES) + 3)
    for number, (names, published) in enumerate(CASES.items()):
        accuracy = found[" + ".join(names), "test_accuracy"]
        assert (accuracy.reference, accuracy.unit) == (published, "%")
        assert accuracy.reference_name == "Karimireddy et al. 2022, MNIST"
        assert accuracy.ratio == pytest.approx(accuracy.ours / published)
        if number > 1:
            continue
        each = [accuracy_under_mimicry(names, seed, replace(TINY, iterations=1)) for seed in (0, 1)]
        assert accuracy.ours == pytest.approx(sum(each) / 2)
        assert found[accuracy.case, "half_range"].ours == pytest.approx(abs(each[0] - each[1]) / 2)
    assert found["mean, no attack", "test_accuracy"].reference is None
    assert "bucketing" in BENCHMARKS


def test_buckets_save_the_geometric_median_from_mimicry() -> None:
    setup = Setup(iterations=90, learning_rate=0.05)
    alone = accuracy_under_mimicry(("geometric_median",), 0, setup)
    assert accuracy_under_mimicry(("bucketing", "geometric_median"), 0, setup) > alone + 20.0
