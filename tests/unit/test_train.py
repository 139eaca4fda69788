"""DP-SGD against its definition: clipping bounds one example, noise has the promised size, and nobody shares it."""

from __future__ import annotations

import math
import os
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from helpers import REGRESSION, Chosen, make_examples, make_plan
from testudo_client.train import Mechanism, noise_generator, run_private_inner_loop, sampling_generator
from testudo_common.errors import DataError, PrivacyError
from testudo_common.learning.inner_loop import InnerLoop
from testudo_common.learning.learner import Learner, as_tensors
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.privacy.events import SampledGaussian
from testudo_common.vectors import Vector


class RawParameter(nn.Module):
    """A parameter of its own, for which Opacus has no rule and takes functorch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 2) / 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.flatten(1) @ self.weight


class Viewing(nn.Module):
    """``view(n, -1)`` is in half of all models, and cannot be told of an empty batch."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(inputs.view(inputs.size(0), -1))
        return outputs


class Counting(nn.Linear):
    """A layer that keeps a statistic of what it saw."""

    def __init__(self) -> None:
        super().__init__(16, 2)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs.flatten(1))


class Unused(Viewing):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(2, 2)


class Frozen(Viewing):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(16, 16)
        self.body.requires_grad_(False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(self.body(inputs.flatten(1)))


@pytest.fixture(autouse=True)
def users_package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("models_of_a_user")
    for kind in (RawParameter, Viewing, Counting, Unused, Frozen):
        setattr(module, kind.__name__, _factory(kind))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def _factory(kind: Callable[[], nn.Module]) -> Callable[..., nn.Module]:
    def build(inputs: tuple[int, ...], outputs: int) -> nn.Module:
        return kind()

    return build


MODELS = [
    "linear",
    "mlp",
    "conv",
    "models_of_a_user:RawParameter",
    "models_of_a_user:Viewing",
    "models_of_a_user:Frozen",
]


def plan_of(name: str) -> FederationPlan:
    return make_plan(
        f"model.name={name}", "model.inputs=[1, 4, 4]", "model.hidden=[5]", "model.channels=8", "model.blocks=1"
    )


def images(count: int = 8, seed: int = 0) -> Examples:
    inputs = np.random.default_rng(seed).normal(size=(count, 1, 4, 4)).astype(np.float32)
    return Examples(inputs, (np.arange(count) % 2).astype(np.int64))


def mechanism(noise_multiplier: float = 0.0, max_grad_norm: float = 1.0, sampling: Any = None) -> Mechanism:
    return Mechanism(noise_multiplier, max_grad_norm, noise_generator(), sampling or sampling_generator())


def moved(learner: Learner, examples: Examples, loop: InnerLoop, how: Mechanism) -> Vector:
    """How far training from the initial weights moves them."""
    before = learner.vector()
    run_private_inner_loop(learner, examples, loop, how)
    change: Vector = learner.vector() - before
    learner.start_from(before)
    return change


def gradients(learner: Learner, examples: Examples) -> np.ndarray:
    """Each example's gradient by autograd, one example at a time, without Opacus: ``float64[n, d]``."""
    inputs, targets = as_tensors(examples)
    rows = []
    parameters = list(learner.model.parameters())
    for row in range(len(examples)):
        learner.model.zero_grad()
        learner.loss(learner.model(inputs[row : row + 1]), targets[row : row + 1]).backward()  # type: ignore[no-untyped-call]
        flat = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        rows.append(torch.cat([part.reshape(-1) for part in flat]).double().numpy())
    learner.model.zero_grad()
    return np.stack(rows)


def clipped(rows: np.ndarray, norm: float) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows * np.minimum(1.0, norm / lengths)


# --- the mechanism against its definition


@pytest.mark.parametrize("name", MODELS)
def test_without_noise_and_clipping_it_is_plain_gradient_descent(name: str) -> None:
    private, plain = Learner(plan_of(name)), Learner(plan_of(name))
    examples = images()
    event = run_private_inner_loop(private, examples, InnerLoop(4, 0.1, 1.0), mechanism(0.0, 1e6))
    inputs, targets = as_tensors(examples)
    optimizer = torch.optim.SGD(plain.model.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        plain.loss(plain.model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert not np.array_equal(private.vector(), Learner(plan_of(name)).vector())
    np.testing.assert_allclose(private.vector(), plain.vector(), rtol=0, atol=1e-6)
    assert event == SampledGaussian(0.0, 1.0, 4)


@pytest.mark.parametrize("name", MODELS)
def test_step_is_the_sum_of_clipped_gradients_over_the_expected_batch_size(name: str) -> None:
    """The divisor is q * n, whatever the sample's own size is."""
    learner = Learner(plan_of(name))
    examples = images(8)
    found = moved(learner, examples, InnerLoop(1, 0.5, 0.25), mechanism(0.0, 0.3, Chosen([1, 4, 6])))
    sums = clipped(gradients(learner, examples)[[1, 4, 6]], 0.3).sum(axis=0)
    assert np.linalg.norm(sums) > 0.3
    np.testing.assert_allclose(found, -0.5 * sums / (0.25 * 8), rtol=1e-4, atol=1e-6)


def test_regression_step_is_the_same() -> None:
    learner = Learner(make_plan(tables=REGRESSION))
    examples = make_examples(8, regression=True)
    found = moved(learner, examples, InnerLoop(1, 0.5, 1.0), mechanism(0.0, 0.3))
    sums = clipped(gradients(learner, examples), 0.3).sum(axis=0)
    np.testing.assert_allclose(found, -0.5 * sums / 8, rtol=1e-4, atol=1e-6)


def sum_of_gradients(learner: Learner, examples: Examples, max_grad_norm: float, rows: list[int]) -> np.ndarray:
    """What one step at learning rate 1 adds up, before it is divided: the mechanism's query."""
    change = moved(learner, examples, InnerLoop(1, 1.0, 0.5), mechanism(0.0, max_grad_norm, Chosen(rows)))
    return -change.astype(np.float64) * 0.5 * len(examples)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e4, 1e18, 1e30, 3e38])
def test_one_example_moves_the_sum_by_no_more_than_the_clipping_norm(name: str, factor: float) -> None:
    """Add or remove one example, however wild: at 1e18 squares overflow float32, at 1e30 gradients do."""
    learner = Learner(plan_of(name))
    examples = images(6)
    wild = examples.inputs.copy()
    wild[2] = np.sign(wild[2]) * np.float32(factor)
    targets = examples.targets.copy()
    raw = learner.outputs(wild[2:3])[0]
    targets[2] = int(np.argmin(raw)) if np.isfinite(raw).all() else 0
    examples = Examples(wild, targets)
    norm = 0.7
    with_it = sum_of_gradients(learner, examples, norm, [0, 1, 2, 5])
    without = sum_of_gradients(learner, examples, norm, [0, 1, 5])
    difference = float(np.linalg.norm(with_it - without))
    assert difference <= norm * (1 + 1e-4)
    if factor == 1e4 and name == "linear":
        assert difference >= norm * (1 - 1e-4), "a huge gradient moves it by all of the norm"


@pytest.mark.parametrize("steps", [1, 4])
def test_noise_has_the_promised_size(steps: int) -> None:
    """Standard deviation learning_rate * sigma * C / (q * n) a step; 2005 draws know theirs to 1.6 %."""
    learner = Learner(make_plan("model.inputs=[400]", "model.outputs=5"))
    examples = Examples(np.zeros((20, 400), dtype=np.float32), np.zeros(20, dtype=np.int64))
    how = mechanism(1.5, 0.8, Chosen(*[[]] * steps))
    noise = moved(learner, examples, InnerLoop(steps, 2.0, 0.25), how)
    expected = 2.0 * 1.5 * 0.8 / (0.25 * 20) * math.sqrt(steps)
    assert noise.std() == pytest.approx(expected, rel=0.1)
    assert abs(noise.mean()) < 6 * expected / math.sqrt(len(noise))
    assert len(np.unique(noise)) > 0.99 * len(noise), "every coordinate has its own"


def test_noise_is_added_to_the_gradients_and_does_not_depend_on_them() -> None:
    learner = Learner(make_plan("model.inputs=[400]", "model.outputs=5"))
    examples = Examples(make_examples(20, inputs=400).inputs, np.arange(20) % 5)
    rows = list(range(7))
    signal = moved(learner, examples, InnerLoop(1, 1.0, 0.25), mechanism(0.0, 0.8, Chosen(rows)))
    noisy = moved(learner, examples, InnerLoop(1, 1.0, 0.25), mechanism(1.5, 0.8, Chosen(rows)))
    noise = noisy - signal
    assert noise.std() == pytest.approx(1.5 * 0.8 / (0.25 * 20), rel=0.1)
    assert abs(np.corrcoef(noise, signal)[0, 1]) < 6 / math.sqrt(len(noise))


def test_example_is_drawn_below_the_sample_rate_and_nowhere_else() -> None:
    """A number is below q with probability q exactly; an example drawn more often costs more than is charged."""

    class Numbers:
        def random(self, count: int) -> np.ndarray:
            return np.array([np.nextafter(0.25, 0), 0.25, np.nextafter(0.25, 1), 0.0, 0.3, 0.26, 0.5, 0.999])

    learner = Learner(plan_of("linear"))
    examples = images(8)
    found = moved(learner, examples, InnerLoop(1, 0.5, 0.25), mechanism(0.0, 1e6, Numbers()))
    sums = gradients(learner, examples)[[0, 3]].sum(axis=0)
    np.testing.assert_allclose(found, -0.5 * sums / (0.25 * 8), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sample_rate", [0.1, 0.6])
def test_samples_are_poisson(sample_rate: float) -> None:
    """Each example by itself, in every step anew: sizes are binomial, and no example is drawn always or never."""

    class Watched:
        def __init__(self) -> None:
            self.drawn: list[np.ndarray] = []
            self._generator = sampling_generator()

        def random(self, count: int) -> np.ndarray:
            numbers = self._generator.random(count)
            self.drawn.append(numbers < sample_rate)
            return numbers

    watched = Watched()
    learner = Learner(make_plan(tables=REGRESSION))
    examples = make_examples(30, regression=True)
    run_private_inner_loop(learner, examples, InnerLoop(200, 0.01, sample_rate), mechanism(0.0, 1.0, watched))
    drawn = np.stack(watched.drawn)  # bool[steps, n]
    assert drawn.shape == (200, 30)
    deviation = math.sqrt(sample_rate * (1 - sample_rate))
    assert abs(drawn.mean() - sample_rate) < 6 * deviation / math.sqrt(drawn.size)
    assert drawn.sum(axis=1).std() == pytest.approx(deviation * math.sqrt(30), rel=0.35)
    assert np.abs(drawn.mean(axis=0) - sample_rate).max() < 6 * deviation / math.sqrt(200)


@pytest.mark.parametrize("name", MODELS)
def test_empty_samples_are_charged_and_harmless(name: str) -> None:
    learner = Learner(plan_of(name))
    before = learner.vector()
    loop = InnerLoop(5, 0.5, 1e-12)
    event = run_private_inner_loop(learner, images(), loop, mechanism(0.0))
    assert event == SampledGaussian(0.0, 1e-12, 5)
    np.testing.assert_array_equal(learner.vector(), before)


@pytest.mark.parametrize("name", MODELS)
def test_empty_samples_get_their_noise(name: str) -> None:
    """A step without noise would say that its sample was empty."""
    learner = Learner(plan_of(name))
    noise = moved(learner, images(8), InnerLoop(1, 1.0, 0.25), mechanism(1.0, 1.0, Chosen([])))
    frozen = sum(p.numel() for p in learner.model.parameters() if not p.requires_grad)
    assert np.count_nonzero(noise) == len(noise) - frozen
    assert 0.2 < noise[noise != 0].std() < 1.0, "0.5, from at least 32 numbers"


# --- the model before and after


@pytest.mark.parametrize("name", MODELS)
def test_training_twice_goes_on_from_the_first(name: str) -> None:
    """Opacus refuses to wrap a wrapped model, so it must have been unwrapped."""
    twice, once = Learner(plan_of(name)), Learner(plan_of(name))
    loop = InnerLoop(2, 0.1, 1.0)
    run_private_inner_loop(twice, images(), loop, mechanism(0.0))
    run_private_inner_loop(twice, images(), loop, mechanism(0.0))
    run_private_inner_loop(once, images(), InnerLoop(4, 0.1, 1.0), mechanism(0.0))
    np.testing.assert_allclose(twice.vector(), once.vector(), rtol=0, atol=1e-6)


def test_model_is_unwrapped_also_after_a_failure() -> None:
    class Broken:
        def random(self, count: int) -> np.ndarray:
            raise OSError("no entropy")

    learner = Learner(plan_of("conv"))
    with pytest.raises(OSError, match="no entropy"):
        run_private_inner_loop(learner, images(), InnerLoop(1, 0.1), mechanism(0.0, 1.0, Broken()))
    for _ in range(2):
        run_private_inner_loop(learner, images(), InnerLoop(1, 0.1), mechanism(0.0))
    assert not any(hasattr(parameter, "grad_sample") for parameter in learner.model.parameters())
    assert not any(part._forward_hooks or part._backward_hooks for part in learner.model.modules())


def test_frozen_parameters_stay() -> None:
    learner = Learner(plan_of("models_of_a_user:Frozen"))
    body = learner.model.body
    assert isinstance(body, nn.Linear)
    before = body.weight.clone()
    run_private_inner_loop(learner, images(), InnerLoop(2, 0.1, 0.5), mechanism(1.0))
    assert torch.equal(body.weight, before)


def test_layer_that_keeps_statistics_is_refused() -> None:
    learner = Learner(plan_of("models_of_a_user:Counting"))
    before = learner.vector()
    with pytest.raises(PrivacyError, match=r"model\.name: .*cannot be trained under differential privacy"):
        run_private_inner_loop(learner, images(), InnerLoop(2, 0.1), mechanism(1.0))
    np.testing.assert_array_equal(learner.vector(), before)


def test_parameter_without_a_part_in_the_outputs_is_refused() -> None:
    learner = Learner(plan_of("models_of_a_user:Unused"))
    with pytest.raises(PrivacyError, match="takes no part"):
        run_private_inner_loop(learner, images(), InnerLoop(2, 0.1, 1.0), mechanism(1.0))


def test_no_examples() -> None:
    with pytest.raises(DataError, match="no examples"):
        run_private_inner_loop(Learner(plan_of("linear")), images(0), InnerLoop(1, 0.1), mechanism(1.0))


def test_global_generators_are_left_alone() -> None:
    torch.manual_seed(5)
    torch_before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    learner = Learner(plan_of("conv"))
    run_private_inner_loop(learner, images(), InnerLoop(3, 0.1, 0.5), Mechanism.from_os(1.0, 1.0))
    assert torch.equal(torch.random.get_rng_state(), torch_before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # type: ignore[index]


# --- where the noise comes from


def normals(generator: torch.Generator, count: int) -> np.ndarray:
    return torch.randn(count, generator=generator).double().numpy()


def words_of(generator: torch.Generator) -> np.ndarray:
    """The Mersenne Twister's 624 words, which torch keeps as 64-bit numbers after 24 bytes of other things."""
    return generator.get_state().numpy()[24 : 24 + 8 * 624].view(np.uint64)


def test_torch_keeps_32_bits_of_a_seed() -> None:
    """The reason for noise_generator: 2^32 streams can be tried one by one."""
    for seed in (7, 2**31 + 5):
        short, long = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 2**32)
        np.testing.assert_array_equal(normals(short, 100), normals(long, 100))


def test_state_is_all_new_every_time() -> None:
    states = np.stack([words_of(noise_generator()) for _ in range(20)])
    for place in range(20):
        assert (states[place] != np.roll(states, 1, axis=0)[place]).sum() >= 623, "chance makes 1 equal at most"
    assert states.max() < 2**32
    bits = np.unpackbits(states.astype(np.uint32).view(np.uint8))
    assert abs(bits.mean() - 0.5) < 6 * 0.5 / math.sqrt(len(bits))


def follows_from_its_first_word(words: np.ndarray) -> bool:
    """Whether all words are grown from the first 32 bits, as ``manual_seed`` does (init_genrand, Matsumoto 2002)."""
    earlier = words[:-1]
    grown = (1812433253 * (earlier ^ (earlier >> 30)) + np.arange(1, 624, dtype=np.uint64)) & 0xFFFFFFFF
    return np.array_equal(grown, words[1:])


def test_state_is_not_grown_from_a_seed() -> None:
    assert follows_from_its_first_word(words_of(torch.Generator().manual_seed(2**40 + 7)))
    assert not follows_from_its_first_word(words_of(noise_generator()))


def test_every_bit_of_the_state_is_the_operating_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[bytes] = []

    def token_bytes(count: int) -> bytes:
        drawn.append(os.urandom(count))
        return drawn[-1]

    monkeypatch.setattr("secrets.token_bytes", token_bytes)
    assert words_of(noise_generator()).astype(np.uint32).tobytes() == b"".join(drawn)
    assert len(drawn[0]) == 4 * 624


def test_stream_is_that_of_the_whole_state() -> None:
    """numpy's own Mersenne Twister, given the same 624 words, makes the same numbers."""
    generator = noise_generator()
    oracle = np.random.MT19937()
    oracle.state = {
        "bit_generator": "MT19937",
        "state": {"key": words_of(generator).astype(np.uint32), "pos": 624},
    }
    expected = (oracle.random_raw(2000) & (2**24 - 1)) / 2**24
    np.testing.assert_array_equal(torch.rand(2000, generator=generator).double().numpy(), expected)


def test_streams_keep_differing() -> None:
    one, other = noise_generator(), noise_generator()
    for _ in range(20):
        first, second = normals(one, 1000), normals(other, 1000)
        assert (first != second).mean() > 0.99
        assert abs(np.corrcoef(first, second)[0, 1]) < 6 / math.sqrt(1000)


def test_normals_are_normal() -> None:
    draws = normals(noise_generator(), 100_000)
    assert abs(draws.mean()) < 6 / math.sqrt(len(draws))
    assert draws.std() == pytest.approx(1.0, rel=6 / math.sqrt(2 * len(draws)))
    assert (np.abs(draws) > 2).mean() == pytest.approx(0.0455, abs=0.005)
    assert np.abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 6 / math.sqrt(len(draws))


def test_no_two_generators_agree() -> None:
    """Two clients with one stream subtract to nothing."""
    draws = np.stack([normals(noise_generator(), 500) for _ in range(200)])
    correlation = np.corrcoef(draws) - np.eye(200)
    assert np.abs(correlation).max() < 7 / math.sqrt(500)
    assert len({row.tobytes() for row in draws}) == 200


def test_noise_of_two_clients_does_not_cancel() -> None:
    learner = Learner(make_plan("model.inputs=[400]", "model.outputs=5"))
    examples = Examples(np.zeros((4, 400), dtype=np.float32), np.zeros(4, dtype=np.int64))
    noises = [moved(learner, examples, InnerLoop(1, 1.0, 1e-12), Mechanism.from_os(1.0, 1e-12)) for _ in range(4)]
    for place, one in enumerate(noises):
        for other in noises[:place]:
            assert np.linalg.norm(one - other) == pytest.approx(math.sqrt(2) * np.linalg.norm(one), rel=0.15)


def test_forked_processes_have_noise_of_their_own() -> None:
    """After a fork, both have the same memory: nothing there may decide the noise."""

    def draw() -> bytes:
        how = Mechanism.from_os(1.0, 1.0)
        return normals(how.noise, 50).tobytes() + how.sampling.random(50).tobytes()

    draws = [draw()]
    for _ in range(3):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writing, draw())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            draws.append(pipe.read())
        os.waitpid(child, 0)
    assert all(len(one) == 800 for one in draws)
    assert len({one[:400] for one in draws}) == len({one[400:] for one in draws}) == 4


def test_sampling_generators_differ() -> None:
    assert len({sampling_generator().random(5).tobytes() for _ in range(50)}) == 50
