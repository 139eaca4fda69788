"""The private inner loop: DP-SGD through Opacus on one client's examples. Holds no account and no message.

Opacus is used in parts, not through its PrivacyEngine, which derives the sampling rate from a loader and forgets
between rounds. Source: Abadi et al. 2016; LEARNING: Poisson sampling at q, expected batch size q * n, noise on every
step, the empty one included. n, the number of the client's examples, is treated as public to the mechanism.
"""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from testudo_common.errors import DataError, PrivacyError
from testudo_common.learning.inner_loop import InnerLoop, PlainSGD
from testudo_common.learning.learner import Learner, as_tensors
from testudo_common.learning.tasks import Examples
from testudo_common.privacy.events import SampledGaussian

if TYPE_CHECKING:
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

_MT19937_WORDS = 624
_MT19937_OFFSET = 24  # bytes before the words: the seed, two flags, the position


def noise_generator() -> torch.Generator:
    """A generator for noise whose whole state comes from the operating system.

    ``Generator.manual_seed`` and ``Generator.seed`` keep 32 bits of what they are given: 2^32 streams in all, which
    a server could try one by one, and of which two among 77,000 clients would be equal. So all 624 words of the
    Mersenne Twister's state are drawn, and it is set to start over from them. It is still not a cryptographic
    generator: see the threat model in docs/privacy.md.
    """
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state().numpy()
    words = np.frombuffer(secrets.token_bytes(4 * _MT19937_WORDS), dtype=np.uint32).astype(np.uint64)
    state[_MT19937_OFFSET : _MT19937_OFFSET + 8 * _MT19937_WORDS] = words.view(np.uint8)
    generator.set_state(torch.from_numpy(state))
    return generator


def sampling_generator() -> np.random.Generator:
    """A generator for Poisson sampling, seeded with 256 bits from the operating system."""
    return np.random.default_rng(secrets.randbits(256))


@dataclass(frozen=True, slots=True)
class Mechanism:
    """DP-SGD with its sources of randomness.

    Attributes:
        noise_multiplier: sigma / C, 0 or more.
        max_grad_norm: C, the L2 norm to which one example's gradient is clipped.
        noise: Only ever from :func:`noise_generator` where noise_multiplier is above 0.
        sampling: Only ever from :func:`sampling_generator` where noise_multiplier is above 0.
    """

    noise_multiplier: float
    max_grad_norm: float
    noise: torch.Generator
    sampling: np.random.Generator

    @classmethod
    def from_os(cls, noise_multiplier: float, max_grad_norm: float) -> Mechanism:
        """With both generators fresh from the operating system."""
        return cls(noise_multiplier, max_grad_norm, noise_generator(), sampling_generator())


def poisson_rows(count: int, loop: InnerLoop, sampling: np.random.Generator) -> Iterator[npt.NDArray[np.intp]]:
    """The Poisson sample of each step: each of ``count`` rows by itself, with probability ``loop.sample_rate``."""
    for _ in range(loop.steps):
        yield np.flatnonzero(sampling.random(count) < loop.sample_rate)


def expected_number(examples: Examples, given: float | None) -> float:
    """What the expected batch is a share of: ``given``, or else the number of ``examples``.

    Raises:
        DataError: Neither says how many there might be.
    """
    if given is None and len(examples) == 0:
        raise DataError("there are no examples to train on")
    return len(examples) if given is None else given


def run_private_inner_loop(
    learner: Learner,
    examples: Examples,
    loop: InnerLoop,
    mechanism: Mechanism,
    expected_examples: float | None = None,
) -> SampledGaussian:
    """Train ``learner`` in place with DP-SGD, from where it stands.

    Args:
        learner: The plan's.
        examples: To train on.
        loop: How.
        mechanism: Of this run alone.
        expected_examples: Above 0: what the expected batch is a share of, where the number of ``examples`` itself is
            to be hidden; then there may be none, and each step is noise. None: their number.

    Returns:
        What it cost. Every step is charged, also one whose Poisson sample was empty.

    Raises:
        DataError: There are no examples, and ``expected_examples`` does not say how many there might be.
        PrivacyError: The model has a layer or a parameter for which Opacus has no per-example gradients.
    """
    from opacus.optimizers import DPOptimizer  # an import of two seconds, which few processes need

    expected = loop.sample_rate * expected_number(examples, expected_examples)
    inputs, targets = as_tensors(examples)
    with _grad_samples(learner) as module:
        optimizer = DPOptimizer(
            PlainSGD(learner.model.parameters(), loop.learning_rate),
            noise_multiplier=mechanism.noise_multiplier,
            max_grad_norm=mechanism.max_grad_norm,
            expected_batch_size=expected,  # it only divides by it
            generator=mechanism.noise,
        )
        for rows in poisson_rows(len(examples), loop, mechanism.sampling):
            optimizer.zero_grad()
            if len(rows) > 0:
                learner.loss(module(inputs[rows]), targets[rows]).backward()  # type: ignore[no-untyped-call]
            _make_clippable(optimizer, empty=len(rows) == 0)
            optimizer.step()
    return SampledGaussian(mechanism.noise_multiplier, loop.sample_rate, loop.steps)


def _make_clippable(optimizer: DPOptimizer, *, empty: bool) -> None:
    """Finite per-example gradients for every parameter; none at all, whose sum is zero, for an empty sample.

    Not every layer reads an empty batch. And clipping does not bound an infinite gradient but makes it NaN, which
    would end the round and so tell the server that this one example is there.
    """
    for parameter in optimizer.params:
        if empty:
            parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
        elif parameter.grad_sample is None:
            raise PrivacyError(
                "the model has a parameter that takes no part in its outputs, so no gradient to make private",
                where="model.name",
                remedy="remove it from the model, or freeze it with requires_grad = False",
            )
        else:
            parameter.grad_sample.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


@contextmanager
def _grad_samples(learner: Learner) -> Iterator[GradSampleModule]:
    """The learner's model with per-example gradients, and without them again afterwards: wrapping twice raises."""
    from opacus import GradSampleModule

    with warnings.catch_warnings():
        # Opacus says that secure mode is off, and torch, at every step, that the inputs need no gradient.
        warnings.simplefilter("ignore")
        try:
            module = GradSampleModule(learner.model, strict=True)
        except (NotImplementedError, ValueError) as error:
            raise PrivacyError(
                "the model has a layer that cannot be trained under differential privacy",
                where="model.name",
                remedy="use layers that Opacus supports: Linear, Conv, GroupNorm, LayerNorm, Embedding",
            ) from error
        try:
            yield module
        finally:
            module.to_standard_module()
