"""The engine's door: jobs in, what they led to out. How a model is stacked is decided here, once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from testudo_client.inner_jobs import InnerJob
from testudo_common.learning.learner import Learner, as_tensors
from testudo_common.learning.tasks import Inputs
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector


class Trained:
    """Where the inner loops of n jobs led: n models of one shape."""

    def __init__(self, plan: FederationPlan, states: Sequence[dict[str, torch.Tensor]]) -> None:
        self._learner = Learner(plan)
        self._states = states

    def vectors(self) -> npt.NDArray[np.float32]:
        """The shared parameters of each, ``float32[n, d]``; not finite where training diverged."""
        rows = []
        for state in self._states:
            self._learner.model.load_state_dict(state)
            rows.append(self._learner.vector())
        return np.stack(rows)

    def outputs(self, inputs: Sequence[Inputs]) -> list[npt.NDArray[np.float32]]:
        """What :meth:`Learner.outputs` gives for ``inputs[i]`` under the i-th model, its own head included."""
        found = []
        for state, own in zip(self._states, inputs, strict=True):
            self._learner.model.load_state_dict(state)
            found.append(self._learner.outputs(own))
        return found


class Engine:
    """Trains the plan's model for many clients at once.

    Args:
        plan: Complete.
        device: ``cpu`` or ``cuda``.
        threads: Of the CPU.

    Attributes:
        path: ``stacked`` or ``vmap``: how this model is trained.

    Raises:
        ModelError: The model cannot be trained this way; the one-by-one path can.
    """

    def __init__(self, plan: FederationPlan, *, device: str = "cpu", threads: int = 1) -> None:
        self._plan = plan
        self._learner = Learner(plan)
        self.path = "placeholder"

    def jobs_at_once(self, job: InnerJob) -> int:
        """How many jobs like this one a call to :meth:`train` should be given: what fits into memory or cache."""
        return 64

    def train(self, model: Vector, jobs: Sequence[InnerJob]) -> Trained:
        """Run every job from ``model``, ``float32[d]``; an unshared head starts at zero, as in ``start_from``.

        Raises:
            ModelError: ``model`` is not a finite ``float32[d]``.
        """
        states = []
        for job in jobs:
            self._learner.start_from(model)
            inputs, targets = as_tensors(job.examples)
            optimizer = torch.optim.SGD(self._learner.model.parameters(), lr=job.learning_rate)
            for rows in job.rows:
                assert job.mechanism is None, "placeholder"
                optimizer.zero_grad()
                self._learner.loss(self._learner.model(inputs[rows]), targets[rows]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            states.append({name: value.clone() for name, value in self._learner.model.state_dict().items()})
        return Trained(self._plan, states)
