"""The inner loops of one chunk of clients, from one start to each one's end."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from testudo_client.inner_jobs import InnerJob
from testudo_simulations.engine.batched import BatchedModel
from testudo_simulations.engine.batches import Pool, batches_of
from testudo_simulations.engine.noise import add_noise, fresh_generator


def train_chunk(model: BatchedModel, start: torch.Tensor, jobs: Sequence[InnerJob]) -> torch.Tensor:
    """Where each job ends, ``float[n, D]``.

    Args:
        model: To train, where ``start`` is.
        start: ``float[D]``, in the module's order; its type is that of all weights.
        jobs: All private or all not, those with more steps first.
    """

    def each(values: Sequence[float]) -> torch.Tensor:
        return start.new_tensor(values)[:, None]

    mechanisms = [job.mechanism for job in jobs if job.mechanism is not None]
    shares = each([job.learning_rate for job in jobs])
    if mechanisms:
        shares /= each([job.expected_batch for job in jobs])
        max_norms = each([mechanism.max_grad_norm for mechanism in mechanisms])
        deviations = shares * max_norms * each([mechanism.noise_multiplier for mechanism in mechanisms])
    noisy = any(mechanism.noise_multiplier > 0 for mechanism in mechanisms)
    generator = fresh_generator(start.device) if noisy else None
    with torch.no_grad():
        weights = model.layout.weights(start[None], len(jobs))
        pool = Pool.of(jobs, start)
        inputs = model.pooled(pool.inputs)
        for batch in batches_of(jobs, start):
            active = len(batch.rows)
            some = [weight[:active] for weight in weights]
            taken, targets = model.taken(inputs, batch.rows), pool.targets[batch.rows]
            if mechanisms:
                model.descend_clipped(some, taken, targets, batch.real * shares[:active], max_norms[:active])
            else:
                model.descend(some, taken, targets, batch.real * (shares[:active] / batch.counts.clamp(min=1)))
            if generator is not None:
                for at in model.learning:
                    add_noise(some[at], deviations[:active], generator)
        return model.layout.vectors(weights)


def outputs_of(model: BatchedModel, ends: torch.Tensor, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What each of the models ``ends``, ``float[n, D]``, puts out for its own inputs, ``float[m, *input_shape]``."""
    counts = [len(own) for own in inputs]
    firsts = torch.tensor([0, *counts]).cumsum(0)
    rows = firsts[:-1, None] + torch.arange(max(1, *counts))
    rows = rows.clamp(max=sum(counts)).to(ends.device)  # what is beyond a client's own is put out, and not read
    with torch.no_grad():
        pool = model.pooled(torch.cat([*inputs, inputs[0].new_zeros(1, *inputs[0].shape[1:])]).to(ends))
        raw = model.outputs(model.layout.weights(ends, len(ends)), model.taken(pool, rows))
    return [raw[place, :count] for place, count in enumerate(counts)]
