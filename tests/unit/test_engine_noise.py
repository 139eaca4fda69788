"""The engine's noise: as wide as Opacus' and of its distribution, everybody's own, and never twice."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from engine_cases import CASES, Way, case_examples, case_plan, job_of, start_of
from testudo_client.train import run_private_inner_loop
from testudo_common.learning.inner_loop import InnerLoop
from testudo_common.learning.learner import Learner
from testudo_simulations.engine import Engine, chunk
from testudo_simulations.engine import engine as door
from testudo_simulations.engine.noise import fresh_generator

ALARM = 1e-7  # of a false one
SIGMA = 2.0
WIDE = ("model.name=mlp", "model.inputs=[20]", "model.hidden=[40]")  # d = 963
NOISE_ALONE = Way(max_grad_norm=3.0, loop=InnerLoop(1, 0.5, 0.25), expected_examples=8.0)
DEVIATION = 0.5 * SIGMA * 3.0 / (0.25 * 8.0)


def noise_of(engine: Engine, start: np.ndarray, clients: int, way: Way = NOISE_ALONE, plan=None) -> np.ndarray:
    """What clients without an example become: nothing but noise, ``[clients, d]``."""
    nobody = case_examples(plan, 0)
    jobs = [job_of(nobody, way, seed, SIGMA) for seed in range(clients)]
    return engine.train(start, jobs).vectors().astype(np.float64) - start


def uncorrelated(one: np.ndarray, other: np.ndarray) -> bool:
    return abs(float(np.corrcoef(one, other)[0, 1])) < 5.5 / math.sqrt(len(one))


@pytest.mark.parametrize("settings", [WIDE, CASES["conv, norms by products"]], ids=["mlp", "conv"])
def test_it_is_gaussian_and_as_wide_as_promised(settings: tuple[str, ...]) -> None:
    plan = case_plan(*settings)
    moved = noise_of(Engine(plan, dtype=torch.float64), start_of(plan), 3, plan=plan)
    assert stats.kstest(moved.ravel() / DEVIATION, "norm").pvalue > ALARM
    assert stats.kstest(moved[1] / DEVIATION, "norm").pvalue > ALARM


def test_it_is_of_the_distribution_that_opacus_adds() -> None:
    plan = case_plan(*WIDE)
    examples = case_examples(plan, 6)
    way = Way(max_grad_norm=3.0, loop=InnerLoop(3, 0.5, 0.5))

    def by_opacus(noise_multiplier: float) -> np.ndarray:
        learner = Learner(plan)
        run_private_inner_loop(learner, examples, way.loop, way.mechanism(0, noise_multiplier))
        return learner.vector().astype(np.float64)

    def by_engine(noise_multiplier: float) -> np.ndarray:
        job = job_of(examples, way, 0, noise_multiplier)
        return Engine(plan).train(start_of(plan), [job]).vectors()[0].astype(np.float64)

    quiet = by_opacus(0.0)
    np.testing.assert_allclose(by_engine(0.0), quiet, atol=1e-4)
    # From the second step on the noise also moves the gradients, by either path alike.
    assert stats.ks_2samp(by_opacus(SIGMA) - quiet, by_engine(SIGMA) - quiet).pvalue > ALARM


def test_it_comes_on_top_of_the_clipped_sum_and_is_divided_like_it() -> None:
    plan = case_plan(*WIDE)
    way = Way(max_grad_norm=0.1, loop=InnerLoop(1, 0.5, 0.5))
    engine = Engine(plan, dtype=torch.float64)
    examples = [case_examples(plan, count, count) for count in (4, 10)]
    noisy, quiet = (
        engine.train(start_of(plan), [job_of(own, way, 1, sigma) for own in examples]).ends for sigma in (SIGMA, 0.0)
    )
    for place, own in enumerate(examples):
        deviation = 0.5 * SIGMA * 0.1 / (0.5 * len(own))
        added = (noisy[place] - quiet[place]).numpy() / deviation
        assert stats.kstest(added, "norm").pvalue > ALARM
        assert (added != 0).all()


def test_every_step_adds_its_own() -> None:
    plan = case_plan(*WIDE)
    way = Way(max_grad_norm=3.0, loop=InnerLoop(4, 0.5, 0.25), expected_examples=8.0)
    moved = noise_of(Engine(plan), start_of(plan), 2, way, plan)
    assert stats.kstest(moved.ravel() / (2 * DEVIATION), "norm").pvalue > ALARM  # one block four times would give 4


@pytest.mark.parametrize("chunked", [False, True], ids=["one chunk", "chunk by chunk"])
def test_no_two_clients_and_no_two_calls_share_it(monkeypatch: pytest.MonkeyPatch, chunked: bool) -> None:
    if chunked:
        monkeypatch.setattr(door, "_CPU_BYTES", 1)
    plan = case_plan(*WIDE)
    engine = Engine(plan, threads=2 if chunked else 1)
    start = start_of(plan)
    rows = [*noise_of(engine, start, 3, plan=plan), *noise_of(engine, start, 2, plan=plan)]
    for place, row in enumerate(rows):
        assert all(uncorrelated(row, other) for other in rows[:place])


def test_a_seeded_torch_changes_nothing_and_is_left_alone() -> None:
    plan = case_plan(*WIDE)
    engine = Engine(plan)
    found = []
    for _ in range(2):
        torch.manual_seed(7)
        found.append(noise_of(engine, start_of(plan), 1, plan=plan)[0])
        assert torch.rand(()).item() == torch.rand((), generator=torch.Generator().manual_seed(7)).item()
    assert uncorrelated(*found)


def test_without_noise_none_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(device: torch.device) -> torch.Generator:
        raise AssertionError("noise was drawn")

    plan = case_plan(*CASES["mlp"])
    monkeypatch.setattr(chunk, "fresh_generator", draw)
    Engine(plan).train(start_of(plan), [job_of(case_examples(plan, 4), Way(max_grad_norm=1.0), 0)])


def test_a_generator_is_never_the_same_twice() -> None:
    states = {bytes(fresh_generator(torch.device("cpu")).get_state().numpy()) for _ in range(3)}
    assert len(states) == 3
