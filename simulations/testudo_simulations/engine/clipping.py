"""An example's gradient bounded as in the one-by-one path, before and in Opacus' DPOptimizer (Abadi et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

_DIVISOR = 1e-6  # added to a norm by Opacus before it divides by it


def clipped(factors: torch.Tensor, squared_norms: torch.Tensor, max_norms: torch.Tensor) -> torch.Tensor:
    """By what each example's gradient counts: ``factors``, and less where it is longer than it may be.

    Args:
        factors: Of each example, ``float[clients, batch]``.
        squared_norms: Of each example's gradient of all weights together, ``float[clients, batch]``.
        max_norms: C, ``float[clients, 1]``.
    """
    return factors * (max_norms / (squared_norms.sqrt() + _DIVISOR)).clamp_(max=1)


def squared_norms_of(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """``float[clients, batch]`` of ``gradients``, each ``float[clients, batch, ...]`` and of its own weights."""
    norms = [torch.linalg.vector_norm(one.flatten(2), dim=2) for one in gradients]
    return torch.stack(norms).square_().sum(dim=0)


def descend_along(weights: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], factors: torch.Tensor) -> None:
    """Take from the first weights the sum of their examples' gradients, each times its factor, ``[clients, batch]``."""
    for weight, own in zip(weights, gradients, strict=False):
        weight.sub_(torch.bmm(factors[:, None], own.flatten(2)).view_as(weight))


def made_finite(gradients: torch.Tensor) -> torch.Tensor:
    """``gradients`` with 0 for what is not finite: clipping would make it NaN."""
    return gradients.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
