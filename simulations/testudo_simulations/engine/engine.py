"""The engine's door: jobs in, what they led to out. How a model is stacked is decided here, once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from testudo_client.inner_jobs import InnerJob
from testudo_client.train import noise_generator
from testudo_common.learning.learner import Learner, read_parameters, shared_parameters
from testudo_common.learning.tasks import Inputs
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector
from testudo_simulations.engine.batches import Pool, batches_of
from testudo_simulations.engine.stacked import StackedModel


SIZE = 0


class Trained:
    """Where the inner loops of n jobs led: n models of one shape.

    Attributes:
        ends: All parameters of each, the head's too, ``float[n, D]``, in the module's order.
    """

    def __init__(self, engine: Engine, ends: torch.Tensor) -> None:
        self._engine = engine
        self.ends = ends

    def vectors(self) -> npt.NDArray[np.float32]:
        """The shared parameters of each, ``float32[n, d]``; not finite where training diverged."""
        shared: npt.NDArray[np.float32] = self.ends[:, self._engine.shared].float().numpy()
        return shared

    def outputs(self, inputs: Sequence[Inputs]) -> list[npt.NDArray[np.float32]]:
        """What :meth:`Learner.outputs` gives for ``inputs[i]`` under the i-th model, its own head included."""
        return self._engine.outputs(self.ends, inputs)


class Engine:
    """Trains the plan's model for many clients at once.

    Args:
        plan: Complete.
        device: ``cpu`` or ``cuda``.
        threads: Of the CPU.
        dtype: Of weights, gradients and noise.

    Attributes:
        path: ``stacked`` or ``vmap``: how this model is trained.
        shared: Which of the module's parameters are shared, ``bool[D]``.

    Raises:
        ModelError: The model cannot be trained this way; the one-by-one path can.
    """

    def __init__(
        self, plan: FederationPlan, *, device: str = "cpu", threads: int = 1, dtype: torch.dtype = torch.float32
    ) -> None:
        self._learner = Learner(plan)
        self._device = torch.device(device)
        self._dtype = dtype
        self._regression = self._learner.regression
        model = self._learner.model
        assert plan.model.inputs is not None
        like = torch.empty(0, dtype=dtype, device=device)
        self._models = {
            private: StackedModel(model, plan.model.inputs, regression=self._regression, private=private, like=like)
            for private in (False, True)
        }
        self._model = self._models[False]
        self.path = "stacked"
        shared = shared_parameters(model, plan.model.unshared_head)
        self.shared = torch.cat(
            [torch.full((value.numel(),), name in shared) for name, value in model.named_parameters()]
        )
        self._back = torch.argsort(torch.cat([entries.flatten() for entries in self._model.entries]))

    def jobs_at_once(self, job: InnerJob) -> int:
        """How many jobs like this one a call to :meth:`train` should be given: what fits into memory or cache."""
        return 64

    def train(self, model: Vector, jobs: Sequence[InnerJob]) -> Trained:
        """Run every job from ``model``, ``float32[d]``; an unshared head starts at zero, as in ``start_from``.

        Raises:
            ModelError: ``model`` is not a finite ``float32[d]``.
        """
        self._learner.start_from(model)
        start = torch.from_numpy(read_parameters(self._learner.model.parameters())).to(self._dtype)
        ends = start.expand(len(jobs), -1).clone()
        order = sorted(range(len(jobs)), key=lambda place: _likeness(jobs[place]))
        for private in (False, True):
            places = [place for place in order if (jobs[place].mechanism is not None) is private]
            size = SIZE or 64
            for first in range(0, len(places), size):
                chunk = places[first : first + size]
                if jobs[chunk[0]].rows:
                    ends[chunk] = self._train_chunk(start, [jobs[place] for place in chunk])
        return Trained(self, ends)

    def _train_chunk(self, start: torch.Tensor, jobs: Sequence[InnerJob]) -> torch.Tensor:
        """Ends ``float[n, D]`` of jobs that are all private or all not, those with more steps first."""
        weights = self._weights(start.expand(len(jobs), -1))
        pool = Pool.of(jobs, self._dtype, self._device)
        model = self._models[jobs[0].mechanism is not None]
        inputs = model.pooled(pool.inputs)
        rates = self._each([job.learning_rate for job in jobs])
        if jobs[0].mechanism is None:
            for batch in batches_of(jobs, self._dtype, self._device):
                active = len(batch.rows)
                factors = batch.real * (rates[:active] / batch.counts.clamp(min=1))
                taken = model.taken(inputs, batch.rows)
                model.descend([weight[:active] for weight in weights], taken, pool.targets[batch.rows], factors)
        else:
            mechanisms = [job.mechanism for job in jobs if job.mechanism is not None]
            rates /= self._each([job.expected_batch for job in jobs])
            max_norms = self._each([mechanism.max_grad_norm for mechanism in mechanisms])
            deviations = rates * max_norms * self._each([mechanism.noise_multiplier for mechanism in mechanisms])
            noise = noise_generator() if bool((deviations > 0).any()) else None
            for batch in batches_of(jobs, self._dtype, self._device):
                active = len(batch.rows)
                some = [weight[:active] for weight in weights]
                taken = model.taken(inputs, batch.rows)
                model.descend_clipped(
                    some, taken, pool.targets[batch.rows], batch.real * rates[:active], max_norms[:active]
                )
                if noise is not None:
                    for weight in some:
                        drawn = torch.empty_like(weight).normal_(generator=noise)
                        weight.flatten(1).addcmul_(drawn.flatten(1), deviations[:active])
        return torch.cat([weight.flatten(1) for weight in weights], dim=1)[:, self._back].cpu()

    def _weights(self, vectors: torch.Tensor) -> list[torch.Tensor]:
        """Parameters ``float[n, D]`` in the module's order, as the model's weights."""
        return [vectors[:, entries.flatten()].view(-1, *entries.shape).to(self._device) for entries in self._model.entries]

    def _each(self, values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=self._dtype, device=self._device)[:, None]

    def outputs(self, ends: torch.Tensor, inputs: Sequence[Inputs]) -> list[npt.NDArray[np.float32]]:
        """As :meth:`Trained.outputs`, with the models' parameters ``ends``, ``float[n, D]``."""
        found: list[npt.NDArray[np.float32]] = []
        for end, own in zip(ends, inputs, strict=True):
            pooled = self._model.pooled(torch.from_numpy(np.ascontiguousarray(own)).to(self._device, self._dtype))
            taken = self._model.taken(pooled, torch.arange(len(own), device=self._device)[None])
            raw = self._model.outputs(self._weights(end[None]), taken)[0]
            found.append((raw.squeeze(-1) if self._regression else raw.softmax(-1)).float().cpu().numpy())
        return found


def _likeness(job: InnerJob) -> tuple[int, float]:
    """Sorts jobs: those with the most steps first, and beside each other those with batches of one size."""
    return -len(job.rows), sum(map(len, job.rows)) / max(len(job.rows), 1)
