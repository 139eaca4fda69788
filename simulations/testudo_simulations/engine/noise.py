"""The noise of DP-SGD for many clients at once, on the machine that adds it.

One generator makes the noise of a whole chunk, ``[clients, d]`` a step, where the one-by-one path has one a client. The
distribution is the same: either way every coordinate of every client and step is a Gaussian of its own, used once, from
a generator whose whole state comes from the operating system, and no two chunks have the same one.
"""

from __future__ import annotations

import secrets

import numpy as np
import torch

from testudo_client.train import noise_generator


def fresh_generator(device: torch.device) -> torch.Generator:
    """A generator on ``device`` with as much from the operating system as its state can hold."""
    if device.type == "cpu":
        return noise_generator()
    generator = torch.Generator(device)
    # Philox on CUDA: a seed of 64 bits, and an offset that must be a multiple of 4 and not overflow.
    state = np.array([secrets.randbits(64), secrets.randbits(60) << 2], dtype=np.uint64)
    generator.set_state(torch.from_numpy(state.view(np.uint8)))
    return generator


def add_noise(weight: torch.Tensor, deviations: torch.Tensor, generator: torch.Generator) -> None:
    """Add to every entry of ``weight``, ``float[clients, ...]``, a Gaussian of its client's width, ``[clients, 1]``."""
    drawn = torch.empty_like(weight).normal_(generator=generator)
    weight.flatten(1).addcmul_(drawn.flatten(1), deviations)
