"""One data owner's part in a round: check what was sent, train, remember, reply. Never imports Flower.

Decides everything that app.py only carries. Every refusal is one of the wire's fixed reasons.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from testudo_client.store import ClientMemory, ClientStore
from testudo_client.train import Mechanism, run_private_inner_loop
from testudo_common.errors import DataError
from testudo_common.learning.inner_loop import InnerLoop, LocalCentre, run_inner_loop
from testudo_common.learning.learner import Learner
from testudo_common.learning.tasks import Examples, draw_episode
from testudo_common.plan import FederationPlan
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.privacy.events import Events, compose
from testudo_common.privacy.planned import planned_event, steps_per_round
from testudo_common.vectors import Vector, clip_to_norm, vector_digest
from testudo_common.wire import Refusal, RefusalReason, TrainReply, TrainRequest

MechanismFactory = Callable[[float, float, np.random.Generator], Mechanism]


def os_mechanism(noise_multiplier: float, max_grad_norm: float, _seeded: np.random.Generator) -> Mechanism:
    """Noise and samples from the operating system: the only mechanism that gives privacy."""
    return Mechanism.from_os(noise_multiplier, max_grad_norm)


class Participant:
    """A client of one plan.

    Args:
        client_id: Its name in the federation; enters the seed of what may be seeded.
        plan: The copy installed here, not one the server sent.
        examples: This owner's training examples.
        store: Where it remembers what it spent and replied.
        learner: The plan's model; may be shared between participants of one thread.
        mechanism: Makes the DP mechanism of a round; anything but the default is for tests with zero noise.
    """

    def __init__(
        self,
        client_id: str,
        plan: FederationPlan,
        examples: Examples,
        store: ClientStore,
        learner: Learner | None = None,
        mechanism: MechanismFactory = os_mechanism,
    ) -> None:
        self.client_id = client_id
        self.plan = plan
        self.plan_digest = plan.digest
        self._examples = examples
        self._store = store
        self._learner = learner if learner is not None else Learner(plan)
        self._mechanism = mechanism

    def train(self, request: TrainRequest) -> TrainReply | Refusal:
        """Answer one request: an update, the same update again, or a refusal."""
        if reason := self._fault_of(request):
            return self._refuse(request, reason)
        memory = self._store.load(self.plan_digest)
        if (memory.last_round, memory.last_model_digest) == (request.round, request.model_digest):
            assert memory.last_update is not None
            return self._reply(request, memory.last_update)
        if not self._affordable(memory.events):
            return self._refuse(request, RefusalReason.PRIVACY_SPENT)
        return self._train_and_remember(request, memory)

    def _fault_of(self, request: TrainRequest) -> RefusalReason | None:
        if request.plan_digest != self.plan_digest:
            return RefusalReason.OTHER_PLAN
        if len(request.model) != self._learner.size or vector_digest(request.model) != request.model_digest:
            return RefusalReason.OTHER_MODEL
        return None

    def _train_and_remember(self, request: TrainRequest, memory: ClientMemory) -> TrainReply | Refusal:
        try:
            update, spent = self._train_tasks(request)
        except DataError:
            return self._refuse(request, RefusalReason.DATA_UNUSABLE)
        if not np.isfinite(update).all():
            # Charged all the same: the refusal tells that training diverged, and that was computed from the data.
            self._store.save(self.plan_digest, replace(memory, events=compose([*memory.events, *spent])))
            return self._refuse(request, RefusalReason.DATA_UNUSABLE)
        update = clip_to_norm(update, self.plan.outer.max_update_norm)
        # Remembered before it is sent: what leaves is always accounted for.
        self._store.save(self.plan_digest, memory.after(request.round, request.model_digest, update, spent))
        return self._reply(request, update)

    @property
    def spent(self) -> Events:
        """Everything spent so far under this plan, composed."""
        return self._store.load(self.plan_digest).events

    def _affordable(self, spent: Events) -> bool:
        event = planned_event(self.plan)
        target = self.plan.privacy.epsilon
        if event is None:
            return True
        planned = compose([*spent, event])
        limit = self.plan.rounds.max_participations
        if limit is not None and sum(e.steps for e in planned) > limit * steps_per_round(self.plan):
            return False
        if target is None:
            return True
        return epsilon_of(planned, self.plan.privacy.delta, self.plan.privacy.accountant) <= target

    def _train_tasks(self, request: TrainRequest) -> tuple[Vector, Events]:
        """The mean meta-update of this round's tasks, not finite if training diverged, and what they cost."""
        seeded = self._seeded(request.round)
        total = np.zeros(self._learner.size, dtype=np.float64)
        spent: list[Events] = []
        for _ in range(self.plan.task.tasks_per_client):
            self._learner.start_from(request.model)
            spent.append(self._train_one(self._draw_task(seeded), seeded))
            total += self._learner.vector().astype(np.float64) - request.model
        mean = (total / self.plan.task.tasks_per_client).astype(np.float32)
        return mean, compose(e for events in spent for e in events)

    def _train_one(self, task: Examples, seeded: np.random.Generator) -> Events:
        inner = self.plan.inner
        loop = InnerLoop(inner.steps, inner.learning_rate, inner.sample_rate)
        event = planned_event(self.plan)
        if event is None:
            run_inner_loop(self._learner, task, loop, seeded)
            return ()
        mechanism = self._mechanism(event.noise_multiplier, self.plan.privacy.max_grad_norm, seeded)
        return (run_private_inner_loop(self._learner, task, loop, mechanism),)

    def _draw_task(self, seeded: np.random.Generator) -> Examples:
        task = self.plan.task
        if task.kind == "few_shot":
            assert task.ways is not None and task.shots is not None  # the plan was checked
            support, _ = draw_episode(self._examples, task.ways, task.shots, 0, seeded)
            return support
        return LocalCentre.of(self._examples, task.local_centring).subtract(self._examples)

    def _seeded(self, round_number: int) -> np.random.Generator:
        """For what is no secret: the order of batches without privacy, and episodes."""
        label = f"{self.plan.seed}|{self.client_id}|{round_number}".encode()
        return np.random.default_rng(int.from_bytes(hashlib.sha256(label).digest()[:16], "big"))

    def _reply(self, request: TrainRequest, update: Vector) -> TrainReply:
        return TrainReply(self.plan_digest, request.round, request.attempt, request.model_digest, update)

    def _refuse(self, request: TrainRequest, reason: RefusalReason) -> Refusal:
        return Refusal(self.plan_digest, request.round, request.attempt, reason)
