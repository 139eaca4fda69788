"""The engine's door: jobs in, what they led to out. How a model is stacked is decided here, once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch

from testudo_client.inner_jobs import InnerJob
from testudo_common.learning.learner import Learner, read_parameters, shared_parameters
from testudo_common.learning.tasks import Inputs
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector
from testudo_simulations.engine.batched import BatchedModel
from testudo_simulations.engine.chunk import outputs_of, train_chunk
from testudo_simulations.engine.general import GeneralModel
from testudo_simulations.engine.stacked import StackedModel
from testudo_simulations.engine.trial import try_out

_CPU_BYTES = 13 << 20
"""Of a chunk: in a core's reach, and what the allocator keeps instead of asking for it again in every step."""
_CUDA_SHARE = 0.25
"""Of the free memory, for a chunk: what one step makes on the way is not counted."""


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
        threads: Of the CPU: chunks that are trained at the same time, by one thread each.
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
        self._like = torch.empty(0, dtype=dtype, device=device)
        self._threads = threads if self._like.device.type == "cpu" else 1
        self.path = "vmap" if ":" in plan.model.name else "stacked"
        kind = GeneralModel if self.path == "vmap" else StackedModel
        model, inputs = self._learner.model, plan.model.inputs
        assert inputs is not None
        self._models: dict[bool, BatchedModel] = {
            private: kind(model, inputs, regression=self._learner.regression, private=private, like=self._like)
            for private in (False, True)
        }
        for private in {False, plan.privacy.unit == "example"}:
            try_out(self._models[private], plan, self._like, private=private)
        shared = shared_parameters(model, plan.model.unshared_head)
        self.shared = torch.cat(
            [torch.full((value.numel(),), name in shared) for name, value in model.named_parameters()]
        )

    def jobs_at_once(self, job: InnerJob) -> int:
        """How many jobs like this one a call to :meth:`train` should be given: what fits into memory or cache."""
        return self._chunk_size([job]) * self._threads

    def train(self, model: Vector, jobs: Sequence[InnerJob]) -> Trained:
        """Run every job from ``model``, ``float32[d]``; an unshared head starts at zero, as in ``start_from``.

        Noise is fresh from the operating system, whatever generator a job's mechanism has.

        Raises:
            ModelError: ``model`` is not a finite ``float32[d]``.
        """
        self._learner.start_from(model)
        start = torch.from_numpy(read_parameters(self._learner.model.parameters())).to(self._like)
        ends = start.cpu().expand(len(jobs), -1).clone()
        chunks = self._chunks(jobs)

        def run(chunk: list[int]) -> None:
            own = [jobs[place] for place in chunk]
            ends[chunk] = train_chunk(self._models[own[0].mechanism is not None], start, own).cpu()

        if self._threads == 1 or len(chunks) <= 1:
            for chunk in chunks:
                run(chunk)
        else:
            with ThreadPoolExecutor(self._threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                list(pool.map(run, chunks))
        return Trained(self, ends)

    def outputs(self, ends: torch.Tensor, inputs: Sequence[Inputs]) -> list[npt.NDArray[np.float32]]:
        """As :meth:`Trained.outputs`, of the models ``ends``, ``float[n, D]``."""
        found: list[npt.NDArray[np.float32]] = []
        model = self._models[False]
        size = max(1, self._budget() // self._bytes(model, max((len(own) for own in inputs), default=1)))
        for first in range(0, len(inputs), size):
            own = [torch.from_numpy(np.ascontiguousarray(one)) for one in inputs[first : first + size]]
            for raw in outputs_of(model, ends[first : first + size].to(self._like), own):
                result = raw.squeeze(-1) if self._learner.regression else raw.softmax(-1)
                found.append(result.float().cpu().numpy())
        return found

    def _chunks(self, jobs: Sequence[InnerJob]) -> list[list[int]]:
        """Which jobs are trained together: of one kind, and of like size. Those without a step are in none."""
        order = sorted((place for place in range(len(jobs)) if jobs[place].rows), key=lambda place: _size(jobs[place]))
        chunks = []
        for private in (False, True):
            places = [place for place in order if (jobs[place].mechanism is not None) is private]
            if places:
                size = min(self._chunk_size([jobs[place] for place in places]), -(-len(places) // self._threads))
                chunks += [places[first : first + size] for first in range(0, len(places), size)]
        return chunks

    def _chunk_size(self, jobs: Sequence[InnerJob]) -> int:
        batch = max((len(rows) for job in jobs for rows in job.rows), default=1)
        return max(1, self._budget() // self._bytes(self._models[jobs[0].mechanism is not None], batch))

    def _bytes(self, model: BatchedModel, batch: int) -> int:
        """About what one client takes while its model takes a step."""
        return self._like.element_size() * (2 * model.layout.size + batch * model.floats)

    def _budget(self) -> int:
        if self._like.device.type == "cuda":
            return int(_CUDA_SHARE * torch.cuda.mem_get_info(self._like.device)[0])
        return _CPU_BYTES


def _size(job: InnerJob) -> tuple[int, float]:
    """Sorts jobs: those with the most steps first, and beside each other those with batches of one size."""
    return -len(job.rows), sum(map(len, job.rows)) / len(job.rows)
