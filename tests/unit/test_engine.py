"""The vectorised engine against the one-by-one path: the same steps, for every model, cohort and kind of fault."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine_cases import CASES, Way, alone, case_examples, case_plan, difference, job_of, start_of
from helpers import Chosen
from testudo_client.inner_jobs import InnerJob
from testudo_common.errors import ModelError
from testudo_common.learning.inner_loop import InnerLoop
from testudo_common.learning.learner import Learner
from testudo_simulations.engine import Engine
from testudo_simulations.engine import engine as door

COUNTS = (5, 12, 1, 3)
every_model = pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
PLAIN, PRIVATE = Way(), Way(max_grad_norm=0.5)
both_ways = pytest.mark.parametrize("way", [PLAIN, PRIVATE], ids=["plain", "private"])


@every_model
@pytest.mark.parametrize("regression", [False, True], ids=["classes", "regression"])
def test_plain_equals_the_one_by_one_path(settings: tuple[str, ...], regression: bool) -> None:
    plan = case_plan(*settings, regression=regression)
    way = Way(loop=InnerLoop(steps=3, learning_rate=0.02 if regression else 0.3, sample_rate=0.4))
    examples = [case_examples(plan, count, seed) for seed, count in enumerate(COUNTS)]
    jobs = [job_of(own, way, seed) for seed, own in enumerate(examples)]
    trained = Engine(plan, dtype=torch.float64).train(start_of(plan), jobs)
    assert difference(plan, trained, examples, way, range(len(COUNTS))) < 1e-8


@every_model
@pytest.mark.parametrize("max_grad_norm", [0.02, 0.5, 1e3], ids=["all clipped", "some", "none"])
def test_private_without_noise_equals_opacus(settings: tuple[str, ...], max_grad_norm: float) -> None:
    plan = case_plan(*settings, regression=max_grad_norm == 0.5 and "conv" not in settings[0])
    way = replace(PRIVATE, max_grad_norm=max_grad_norm)
    examples = [case_examples(plan, count, seed) for seed, count in enumerate(COUNTS)]
    jobs = [job_of(own, way, seed) for seed, own in enumerate(examples)]
    trained = Engine(plan, dtype=torch.float64).train(start_of(plan), jobs)
    assert difference(plan, trained, examples, way, range(len(COUNTS))) < 1e-8


@pytest.mark.parametrize("name", ["mlp", "conv", "conv, norms by products"])
def test_in_float32_it_is_the_same_to_rounding(name: str) -> None:
    plan = case_plan(*CASES[name])
    for way in (PLAIN, PRIVATE):
        examples = [case_examples(plan, count, seed) for seed, count in enumerate(COUNTS)]
        jobs = [job_of(own, way, seed) for seed, own in enumerate(examples)]
        trained = Engine(plan).train(start_of(plan), jobs)
        assert trained.ends.dtype == torch.float32
        assert difference(plan, trained, examples, way, range(len(COUNTS))) < 1e-4


def test_no_example_counts_for_more_than_the_clipping_norm() -> None:
    plan = case_plan(*CASES["conv"])
    start = start_of(plan)
    way = Way(max_grad_norm=1e-3, loop=InnerLoop(steps=1, learning_rate=0.3, sample_rate=1.0))
    examples = [case_examples(plan, count, seed) for seed, count in enumerate(COUNTS)]
    trained = Engine(plan, dtype=torch.float64).train(start, [job_of(own, way, 0) for own in examples])
    moved = np.linalg.norm(trained.ends.numpy() - start, axis=1)
    assert (moved <= 0.3 * 1e-3 * (1 + 1e-9)).all()
    assert moved[2] == pytest.approx(0.3 * 1e-3, rel=1e-2)  # one example, whose gradient is longer than that


def test_an_empty_sample_is_a_step_of_noise_alone() -> None:
    plan = case_plan(*CASES["conv"])
    steps = ([0, 2], [], [1])
    way = replace(PRIVATE, loop=InnerLoop(steps=3, learning_rate=0.3, sample_rate=0.4))
    examples = case_examples(plan, 4)
    job = job_of(examples, way, 0)
    rows = tuple(np.array(step, dtype=np.intp) for step in steps)
    other = job_of(case_examples(plan, 6, 1), way, 1)
    trained = Engine(plan, dtype=torch.float64).train(start_of(plan), [replace(job, rows=rows), other])
    end, _ = alone(plan, examples, way, 0, Chosen(*steps))
    assert np.abs(trained.ends[0].numpy() - end).max() < 1e-10


@pytest.mark.parametrize("way", [PLAIN, replace(PRIVATE, expected_examples=8.0)], ids=["plain", "private"])
def test_a_client_without_examples_stays_where_it_starts(way: Way) -> None:
    plan = case_plan(*CASES["conv"])
    nobody = case_examples(plan, 0)
    other = case_examples(plan, 5)
    trained = Engine(plan).train(start_of(plan), [job_of(nobody, way, 0), job_of(other, way, 1)])
    assert np.array_equal(trained.vectors()[0], start_of(plan))
    assert not np.array_equal(trained.vectors()[1], start_of(plan))
    only = Engine(plan).train(start_of(plan), [job_of(nobody, way, 0)])
    assert np.array_equal(only.vectors()[0], start_of(plan))
    assert only.outputs([nobody.inputs])[0].shape == (0, 3)


@both_ways
@pytest.mark.parametrize("name", ["mlp", "conv", "conv, norms by products", "conv, wide"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30], ids=["nan", "infinite", "huge"])
def test_one_clients_broken_example_is_its_own_affair(name: str, bad: float, way: Way) -> None:
    plan = case_plan(*CASES[name])
    way = replace(way, loop=InnerLoop(steps=2, learning_rate=0.3, sample_rate=0.8))
    engine = Engine(plan, dtype=torch.float64)
    examples = [case_examples(plan, count, seed) for seed, count in enumerate((4, 5, 3))]
    whole = engine.train(start_of(plan), [job_of(own, way, seed) for seed, own in enumerate(examples)])
    examples[1].inputs[2].flat[1] = bad
    broken = engine.train(start_of(plan), [job_of(own, way, seed) for seed, own in enumerate(examples)])
    for other in (0, 2):
        assert torch.equal(broken.ends[other], whole.ends[other])
    end, _ = alone(plan, examples[1], way, 1)
    np.testing.assert_allclose(broken.ends[1].numpy(), end, rtol=1e-6, atol=1e-8)
    if way is not PLAIN and way.max_grad_norm is not None:
        assert np.isfinite(end).all()  # the example is made harmless, and the client's others still teach


def test_one_client_that_diverges_leaves_the_others() -> None:
    plan = case_plan(*CASES["mlp"], regression=True)
    engine = Engine(plan)
    examples = [case_examples(plan, 4, seed) for seed in range(3)]
    jobs = [job_of(own, Way(loop=InnerLoop(30, 0.05)), seed) for seed, own in enumerate(examples)]
    whole = engine.train(start_of(plan), jobs)
    jobs[1] = replace(jobs[1], learning_rate=1e6)
    diverged = engine.train(start_of(plan), jobs).vectors()
    assert not np.isfinite(diverged[1]).all()
    assert np.array_equal(diverged[[0, 2]], whole.vectors()[[0, 2]])


def test_jobs_of_every_kind_in_one_call_keep_their_places() -> None:
    plan = case_plan(*CASES["conv"])
    ways = [
        Way(loop=InnerLoop(2, 0.1, 0.5)),
        replace(PRIVATE, loop=InnerLoop(4, 0.3, 0.5)),
        Way(loop=InnerLoop(5, 0.2, 1.0)),
        replace(PRIVATE, max_grad_norm=0.1, loop=InnerLoop(2, 0.5, 0.2)),
        Way(loop=InnerLoop(1, 0.3, 0.3)),
    ]
    examples = [case_examples(plan, count, count) for count in (7, 4, 2, 9, 3)]
    jobs = [job_of(own, way, place) for place, (own, way) in enumerate(zip(examples, ways, strict=True))]
    trained = Engine(plan, dtype=torch.float64).train(start_of(plan), jobs)
    for place, (own, way) in enumerate(zip(examples, ways, strict=True)):
        end, _ = alone(plan, own, way, place)
        assert np.abs(trained.ends[place].numpy() - end).max() < 1e-9


def test_an_unshared_head_starts_at_zero_and_stays_with_its_model() -> None:
    plan = case_plan(*CASES["head unshared"])
    learner = Learner(plan)
    examples = [case_examples(plan, 6, seed) for seed in range(2)]
    jobs = [job_of(own, PLAIN, seed) for seed, own in enumerate(examples)]
    jobs.append(InnerJob(examples[0], (), 0.1))
    trained = Engine(plan).train(learner.vector(), jobs)
    assert trained.vectors().shape == (3, learner.size)
    assert trained.ends.shape[1] > learner.size
    inputs = [case_examples(plan, count, 9).inputs for count in (2, 4, 3)]
    outputs = trained.outputs(inputs)
    assert [output.shape for output in outputs] == [(2, 3), (4, 3), (3, 3)]
    assert not np.allclose(outputs[0], outputs[1][:2])
    np.testing.assert_allclose(outputs[2], 1 / 3, rtol=1e-6)  # nobody's head learned


@pytest.mark.parametrize("threads", [1, 2])
@both_ways
def test_chunks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch, threads: int, way: Way) -> None:
    plan = case_plan(*CASES["conv, norms by products"])
    examples = [case_examples(plan, count, seed) for seed, count in enumerate((5, 9, 4, 6, 3))]
    jobs = [job_of(own, way, seed) for seed, own in enumerate(examples)]
    whole = Engine(plan, dtype=torch.float64).train(start_of(plan), jobs)
    monkeypatch.setattr(door, "_CPU_BYTES", 1)
    engine = Engine(plan, dtype=torch.float64, threads=threads)
    assert engine.jobs_at_once(jobs[0]) == threads
    apart = engine.train(start_of(plan), jobs)
    assert torch.allclose(whole.ends, apart.ends, rtol=0, atol=1e-10)
    inputs = [own.inputs for own in examples]
    for one, other in zip(whole.outputs(inputs), apart.outputs(inputs), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_larger_jobs_are_taken_fewer_at_once() -> None:
    plan = case_plan(*CASES["conv"])
    engine = Engine(plan)
    small, large = (job_of(case_examples(plan, count), PLAIN, 0) for count in (10, 1000))
    assert engine.jobs_at_once(small) > engine.jobs_at_once(large) >= 1
    assert Engine(plan, threads=3).jobs_at_once(small) == 3 * engine.jobs_at_once(small)


@pytest.mark.parametrize("fault", ["infinite", "too short"])
def test_a_model_that_is_none_is_refused(fault: str) -> None:
    plan = case_plan(*CASES["linear"])
    model = start_of(plan)
    model[0] = np.inf
    with pytest.raises(ModelError, match="not finite" if fault == "infinite" else "shape"):
        Engine(plan).train(model if fault == "infinite" else model[1:], [])


def test_no_jobs_lead_nowhere() -> None:
    plan = case_plan(*CASES["linear"])
    trained = Engine(plan).train(start_of(plan), [])
    assert trained.vectors().shape == (0, len(start_of(plan)))
    assert trained.outputs([]) == []
