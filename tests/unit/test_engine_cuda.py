"""The vectorised engine on a CUDA device, where there is one: what it does on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from engine_cases import CASES, Way, case_examples, case_plan, difference, job_of, start_of
from testudo_common.learning.inner_loop import InnerLoop
from testudo_simulations.engine import Engine
from testudo_simulations.engine.noise import fresh_generator

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("way", [Way(), Way(max_grad_norm=0.5)], ids=["plain", "private"])
@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_it_equals_the_one_by_one_path(settings: tuple[str, ...], way: Way) -> None:
    plan = case_plan(*settings)
    examples = [case_examples(plan, count, seed) for seed, count in enumerate((5, 12, 1, 3))]
    jobs = [job_of(own, way, seed) for seed, own in enumerate(examples)]
    engine = Engine(plan, device="cuda", dtype=torch.float64)
    assert engine.jobs_at_once(jobs[0]) >= 1
    assert difference(plan, engine.train(start_of(plan), jobs), examples, way, range(4)) < 1e-8


def test_in_float32_it_is_the_same_to_rounding() -> None:
    plan = case_plan(*CASES["conv, norms by products"])
    way = Way()
    examples = [case_examples(plan, 6, seed) for seed in range(3)]
    trained = Engine(plan, device="cuda").train(start_of(plan), [job_of(own, way, 0) for own in examples])
    assert difference(plan, trained, examples, way, (0, 0, 0)) < 1e-4


def test_noise_is_gaussian_and_never_the_same() -> None:
    plan = case_plan("model.name=mlp", "model.inputs=[20]", "model.hidden=[40]")
    way = Way(max_grad_norm=3.0, loop=InnerLoop(1, 0.5, 0.25), expected_examples=8.0)
    jobs = [job_of(case_examples(plan, 0), way, seed, 2.0) for seed in range(2)]
    engine = Engine(plan, device="cuda")
    rows = np.concatenate([engine.train(start_of(plan), jobs).vectors() - start_of(plan) for _ in range(2)]) / 1.5
    assert all(stats.kstest(row, "norm").pvalue > 1e-7 for row in rows)
    assert np.abs(np.corrcoef(rows) - np.eye(4)).max() < 5.5 / np.sqrt(rows.shape[1])


def test_a_generator_is_never_the_same_twice() -> None:
    assert len({bytes(fresh_generator(torch.device("cuda")).get_state().numpy()) for _ in range(3)}) == 3
