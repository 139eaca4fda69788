"""Poison in the data: what changes in a poisoned task, and what does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import make_examples
from poisoned_federation import WAVES, cell_request
from testudo_common.errors import UsageError
from testudo_common.learning.tasks import Examples
from testudo_simulations.attacks.cell import run_cell
from testudo_simulations.attacks.data import (
    BACKDOOR_TARGET,
    triggered,
    with_backdoor,
    with_label_noise,
    with_trigger,
)


def images(count: int, paper: float, classes: int = 3, side: int = 8) -> Examples:
    """Strokes of the other colour across the middle."""
    inputs = np.full((count, 1, side, side), paper, dtype=np.float32)
    inputs[:, :, 3, :] = 1.0 - paper
    return Examples(inputs, (np.arange(count) % classes).astype(np.int64))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("paper", [0.0, 1.0], ids=["black paper", "white paper"])
def test_trigger_shows_on_paper_of_either_colour(paper: float) -> None:
    task = images(5, paper)
    marked = with_trigger(task.inputs, 0.0, 1.0)
    changed = marked != task.inputs
    assert changed.sum(axis=(1, 2, 3)).tolist() == [8] * 5, "half of the chequered corner"
    assert not changed[:, :, :4, :].any()
    assert not changed[:, :, :, :4].any()
    corner = marked[0, 0, -4:, -4:]
    assert sorted(set(corner.ravel().tolist())) == [0.0, 1.0]
    assert (corner[:, 1:] != corner[:, :-1]).all(), "chequered"
    assert (marked[:, :, -4:, -4:] == corner).all(), "the same on every image"
    assert (task.inputs == images(5, paper).inputs).all(), "it was given away unmarked"


def test_trigger_of_inputs_that_are_no_images_is_in_the_last_features() -> None:
    inputs = make_examples(6, inputs=7).inputs
    marked = with_trigger(inputs, -9.0, 9.0)
    np.testing.assert_array_equal(marked[:, :3], inputs[:, :3])
    np.testing.assert_array_equal(marked[:, 3:], np.tile(np.float32([9, -9, 9, -9])[::-1] * -1, (6, 1)))
    assert with_trigger(inputs[:, :2], -9.0, 9.0).shape == (6, 2), "fewer features than the trigger has"


@given(st.integers(2, 60), st.integers(2, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_backdoor_relabels_half_of_the_others_and_leaves_the_rest_alone(count: int, classes: int, seed: int) -> None:
    task = images(count, 0.0, classes)
    poisoned = with_backdoor(task, rng(seed))
    others = task.targets != BACKDOOR_TARGET
    relabelled = poisoned.targets != task.targets
    assert relabelled.sum() == round(0.5 * others.sum())
    assert (poisoned.targets[relabelled] == BACKDOOR_TARGET).all()
    assert not relabelled[~others].any()
    marked = (poisoned.inputs != task.inputs).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(marked, relabelled)
    np.testing.assert_array_equal(
        poisoned.inputs[relabelled], with_trigger(task.inputs[relabelled], 0.0, 1.0), "black and white, as the data are"
    )
    assert task.targets.tolist() == [number % classes for number in range(count)], "what it was given is unchanged"


def test_backdoor_is_judged_on_examples_of_other_classes_with_the_trigger() -> None:
    query = images(9, 1.0)
    judged = triggered(query)
    assert len(judged) == 6
    assert (judged.targets == BACKDOOR_TARGET).all()
    np.testing.assert_array_equal(judged.inputs, with_trigger(query.inputs[query.targets != BACKDOOR_TARGET], 0.0, 1.0))


def test_label_noise_keeps_inputs_and_draws_labels_of_the_task() -> None:
    task = Examples(images(300, 0.0).inputs, (7 + np.arange(300) % 3).astype(np.int64))
    noisy = with_label_noise(task, rng())
    assert noisy.inputs is task.inputs
    assert noisy.targets.dtype == np.int64
    assert set(noisy.targets.tolist()) == {7, 8, 9}
    assert 0.2 < float((noisy.targets == task.targets).mean()) < 0.47, "a third by chance"
    again = with_label_noise(task, rng(1))
    assert (again.targets != noisy.targets).any()


def test_label_noise_on_a_regression_swaps_targets() -> None:
    task = make_examples(30, regression=True)
    noisy = with_label_noise(task, rng())
    np.testing.assert_array_equal(noisy.inputs, task.inputs)
    assert (noisy.targets != task.targets).any()
    np.testing.assert_array_equal(np.sort(noisy.targets), np.sort(task.targets))
    assert noisy.targets.dtype == np.float32


def test_backdoor_in_a_regression_is_refused() -> None:
    with pytest.raises(UsageError, match="a backdoor needs classes") as caught:
        with_backdoor(make_examples(8, regression=True), rng())
    assert caught.value.remedy == "leave the backdoors out"
    with pytest.raises(UsageError, match="a backdoor needs classes"):
        run_cell(cell_request("backdoor", "mean", poisoned=1, tables=WAVES))


def test_label_noise_harms_a_federation_of_regressions() -> None:
    clean = run_cell(cell_request("none", "mean", poisoned=0, tables=WAVES))
    noisy = run_cell(cell_request("label_noise", "mean", poisoned=3, tables=WAVES))
    assert (clean.backdoor, noisy.backdoor, noisy.rounds) == (None, None, 3)
    assert noisy.error is not None
    assert noisy.error > 0
    assert noisy.score != clean.score
