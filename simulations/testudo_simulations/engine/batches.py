"""Jobs of unequal size as rectangles: one pool of examples, and for every step the rows of every client, filled up.

A filled-up place repeats an example of the same client and step and has weight 0, so that it adds nothing, and can be
infinite only where the client's own gradient is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from testudo_client.inner_jobs import InnerJob


@dataclass(frozen=True, slots=True)
class Batch:
    """One step of the clients that still have one, who are the first of the chunk.

    Attributes:
        rows: Of the pool, ``int64[clients, batch]``.
        real: Which places are examples, ``float[clients, batch]``: 1, and 0 where it was filled up.
        counts: Of real ones, ``float[clients, 1]``.
    """

    rows: torch.Tensor
    real: torch.Tensor
    counts: torch.Tensor


@dataclass(frozen=True, slots=True)
class Pool:
    """The examples of all clients of a chunk, one after another, and after them one of zeros.

    Attributes:
        inputs: ``float[examples + 1, *input_shape]``.
        targets: ``int64[examples + 1]``, or ``float[examples + 1]`` for regression.
    """

    inputs: torch.Tensor
    targets: torch.Tensor

    @classmethod
    def of(cls, jobs: Sequence[InnerJob], like: torch.Tensor) -> Pool:
        """The examples of ``jobs``, one or more, in numbers ``like`` those of the weights."""
        inputs = [job.examples.inputs for job in jobs]
        targets = [job.examples.targets for job in jobs]
        inputs.append(np.zeros((1, *inputs[0].shape[1:]), dtype=inputs[0].dtype))
        targets.append(np.zeros(1, dtype=targets[0].dtype))
        all_inputs = torch.from_numpy(np.concatenate(inputs)).to(like)
        all_targets = torch.from_numpy(np.concatenate(targets)).to(like.device)
        return cls(all_inputs, all_targets.to(like) if all_targets.is_floating_point() else all_targets)


def batches_of(jobs: Sequence[InnerJob], like: torch.Tensor) -> Iterator[Batch]:
    """The batches of each step.

    Args:
        jobs: In the order of the pool, those with more steps first.
        like: Has the type and the device of the weights.
    """
    steps = np.array([len(job.rows) for job in jobs])
    offsets = np.cumsum([0, *(len(job.examples) for job in jobs)])
    for step in range(steps[0]):
        active = int(np.searchsorted(-steps, -step))
        yield _batch([job.rows[step] for job in jobs[:active]], offsets, like)


def _batch(rows: Sequence[npt.NDArray[np.intp]], offsets: npt.NDArray[np.intp], like: torch.Tensor) -> Batch:
    counts = np.fromiter(map(len, rows), dtype=np.intp, count=len(rows))
    ends = np.cumsum(counts)
    # One more at the end: the pool's example of zeros, which stands in for every empty sample.
    flat = np.concatenate([*rows, np.zeros(1, dtype=np.intp)]) + np.append(
        np.repeat(offsets[: len(rows)], counts), offsets[-1]
    )
    places = np.arange(max(counts.max(), 1))
    within = np.minimum(places, np.maximum(counts - 1, 0)[:, None])
    index = flat[np.where(counts[:, None] > 0, (ends - counts)[:, None] + within, len(flat) - 1)]
    return Batch(
        torch.from_numpy(index).to(like.device),
        torch.from_numpy(places < counts[:, None]).to(like),
        torch.from_numpy(counts[:, None]).to(like),
    )
