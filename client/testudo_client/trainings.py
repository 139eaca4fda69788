"""What an owner trains for the rounds: charged first, then trained here or elsewhere, and remembered for a retry.

Whether a request may be answered at all is the participant's to decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from testudo_client.gate import Gate
from testudo_client.inner_jobs import InnerJob
from testudo_client.meta_update import MechanismFactory, mean_update, meta_update, meta_update_jobs
from testudo_client.store import ClientMemory, ClientStore
from testudo_common.errors import DataError
from testudo_common.learning.learner import Learner
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector, clip_to_norm
from testudo_common.wire import RefusalReason, TrainRequest


@dataclass(frozen=True, slots=True)
class Begun:
    """A training that is charged, and whose inner loops somebody else runs.

    Attributes:
        request: What asked for it.
        reservation: Its number in the ledger.
        jobs: One a task.
    """

    request: TrainRequest
    reservation: int
    jobs: tuple[InnerJob, ...] = field(repr=False)


class Trainings:
    """The trainings of one client under one plan.

    Args:
        plan: The plan.
        store: Where the last update is remembered.
        gate: Charged before data is touched.
        learner: The plan's model.
        mechanism: Makes the DP mechanism of a round.
        draw_task: Makes the examples of one task.
        seeded: Given a round and more words, the generator of what is no secret.
        is_used: Whether an update left masked already, and must be trained anew.
    """

    def __init__(
        self,
        plan: FederationPlan,
        store: ClientStore,
        gate: Gate,
        learner: Learner,
        mechanism: MechanismFactory,
        *,
        draw_task: Callable[[np.random.Generator], Examples],
        seeded: Callable[..., np.random.Generator],
        is_used: Callable[[Vector], bool],
    ) -> None:
        self._plan, self._plan_digest = plan, plan.digest
        self._store, self._gate, self._learner, self._mechanism = store, gate, learner, mechanism
        self._draw_task, self._seeded, self._is_used = draw_task, seeded, is_used
        self._failed: tuple[int, int, str] | None = None  # round, attempt and model of one begun that came to nothing

    def update_for(self, request: TrainRequest) -> Vector | RefusalReason:
        """The update for ``request``: the one remembered, unless it was used up, or a new one.

        Raises:
            BudgetError: A new one does not fit into an account.
            LedgerError: The ledger cannot be trusted.
        """
        if (remembered := self._remembered(request)) is not None:
            return remembered
        if self._failed == (request.round, request.attempt, request.model_digest):
            self._failed = None  # it was told of: asked again, it is trained and charged anew
            return RefusalReason.DATA_UNUSABLE
        self._learner.start_from(request.model)  # a model that cannot be used costs nothing
        reservation = self._gate.charge_training(request.round, request.attempt)
        seeded = self._seeded_for(request)
        try:
            update = meta_update(self._learner, self._plan, request.model, self._draw_task, self._mechanism, seeded)
        except DataError:
            return RefusalReason.DATA_UNUSABLE
        return self._remember(request, reservation, update)

    def begin(self, request: TrainRequest) -> Begun | None:
        """Charge a training whose inner loops somebody else runs; see :meth:`Participant.begin_training`."""
        if self._remembered(request) is not None:
            return None
        reservation = self._gate.charge_training(request.round, request.attempt)
        try:
            jobs = meta_update_jobs(self._plan, self._draw_task, self._mechanism, self._seeded_for(request))
        except DataError:
            self._failed = (request.round, request.attempt, request.model_digest)
            return None
        return Begun(request, reservation, jobs)

    def finish(self, begun: Begun, trained: npt.NDArray[np.float32]) -> None:
        """Remember what the jobs led to, ``float32[jobs, d]``; :meth:`update_for` gives it."""
        request = begun.request
        update = mean_update(request.model, trained)
        if isinstance(self._remember(request, begun.reservation, update), RefusalReason):
            self._failed = (request.round, request.attempt, request.model_digest)

    def _remembered(self, request: TrainRequest) -> Vector | None:
        """The update for ``request`` that was trained already, and may still be put into a sum."""
        memory = self._store.load(self._plan_digest)
        if (memory.last_round, memory.last_model_digest) != (request.round, request.model_digest):
            return None
        assert memory.last_update is not None
        return None if self._is_used(memory.last_update) else memory.last_update

    def _seeded_for(self, request: TrainRequest) -> np.random.Generator:
        # In a group, an update that left is never sent again; in clear, a round begun anew gives the same bytes.
        again = [str(request.attempt)] if request.attempt and self._plan.secure else []
        return self._seeded(request.round, *again)

    def _remember(self, request: TrainRequest, reservation: int, update: Vector) -> Vector | RefusalReason:
        if not np.isfinite(update).all():
            # Charged all the same: the refusal tells that training diverged, and that was computed from the data.
            return RefusalReason.DATA_UNUSABLE
        update = clip_to_norm(update, self._plan.outer.max_update_norm)
        # Remembered before it is sent: a retry sends the same bytes again.
        self._store.save(self._plan_digest, ClientMemory(request.round, request.model_digest, update))
        self._gate.kept(reservation, update)
        return update
