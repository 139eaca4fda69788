"""Simulated data owners: which participant answers for which partition, in this process or in a Ray worker.

A participant is made when it is asked, and let go of when others are: what a client must remember is in its store,
ledger and witness. Where clients share the model, those asked to train next are trained at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from flwr.app import Context, Message

from testudo_client.meta_update import MechanismFactory, os_mechanism
from testudo_client.participant import Participant
from testudo_client.train import Mechanism
from testudo_client.trainings import Begun
from testudo_common.errors import PrivacyError, UsageError, WireError
from testudo_common.flower_records import TRAIN, carries_vector, from_records
from testudo_common.learning.learner import Learner
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import load_plan
from testudo_common.secagg.primitives import derive
from testudo_common.vectors import Vector
from testudo_common.wire import RefusalReason, TrainRequest
from testudo_simulations.attacks.adversary import Adversary
from testudo_simulations.attacks.participants import PoisonedMaskFreeParticipant, PoisonedParticipant
from testudo_simulations.consent import simulated_gate
from testudo_simulations.engine import Engine
from testudo_simulations.federations import load_federation
from testudo_simulations.federations.base import Federation
from testudo_simulations.keys import SimulatedKeys, needs_keys
from testudo_simulations.mask_free import MaskFreeParticipant
from testudo_simulations.memories import Memories


def seeded_mechanism(noise_multiplier: float, max_grad_norm: float, seeded: np.random.Generator) -> Mechanism:
    """A repeatable mechanism, for runs without noise only.

    Raises:
        PrivacyError: There is noise: repeatable noise can be subtracted.
    """
    if noise_multiplier > 0:
        raise PrivacyError("seeded sampling is for a noise multiplier of 0 only", where="privacy.noise_multiplier")
    return Mechanism(noise_multiplier, max_grad_norm, torch.Generator(), seeded)


_HELD_BYTES = 128 << 20  # of participants that are not asked at the moment
_PARTICIPANT_BYTES = 64 << 10  # beside its examples and its update


class Owners:
    """The participants of a federation in one process, made when they are asked; they share one model.

    Args:
        federation: Its training clients, in order of their ids, are the partitions.
        state: Folder of what each client remembers, or None for memory only.
        keys: The clients' keys and roster; None under a plan with neither secure aggregation nor a log.
        masks: False for participants that do not mask: see mask_free.py.
        adversary: Answers for the poisoned clients among them; None: all are honest.
        mirrors: Whether each client's mirror of the log is a file beside its state; otherwise it is in memory.
        logged: File of the server's log, from which clients without mirrors recall what they signed before a restart.
        engine: Trains those at once that :meth:`train_ahead` is told of; None: each is trained by itself.

    Attributes:
        trained_at_once: Trainings by the engine so far.
    """

    def __init__(
        self,
        federation: Federation,
        state: Path | None,
        keys: SimulatedKeys | None,
        *,
        masks: bool = True,
        adversary: Adversary | None = None,
        mirrors: bool = False,
        logged: Path | None = None,
        engine: Engine | None = None,
    ) -> None:
        torch.set_num_threads(1)
        self._plan = federation.plan
        self._federation = federation
        self._clients = list(federation.training)
        self._keys = keys
        self._masks = masks
        self._learner = Learner(federation.plan)
        self._participants: OrderedDict[int, Participant] = OrderedDict()
        self._memories = Memories(federation, state, keys, masks=masks, mirrors=mirrors, logged=logged)
        self._secure_cpu_seconds = 0.0  # of participants let go of
        self._mechanism = _mechanism_of(federation.plan)
        self._engine = engine
        self._asked_next = 0
        self.trained_at_once = 0
        self._adversary = adversary
        if adversary is not None:
            adversary.watch({client: partial(self._honest_update, place) for place, client in enumerate(self._clients)})

    def __call__(self, context: Context) -> Participant:
        """The participant of the context's partition.

        Raises:
            UsageError: There are fewer clients than partitions.
        """
        partition = int(context.node_config["partition-id"])
        if partition >= len(self._clients):
            raise UsageError(
                f"partition {partition} of {len(self._clients)} training clients",
                remedy=f"start the simulation with {len(self._clients)} nodes",
            )
        return self._of(partition)

    def train_ahead(self, asked: Sequence[tuple[Message, Context]]) -> None:
        """Train at once what the honest clients among these are asked to train; their answers find it done.

        A client that would refuse, that remembers its update, or whose examples have another shape is left to its own
        answer.

        Args:
            asked: Messages that are answered next, each with its node's context.
        """
        if self._engine is None:
            return
        self._asked_next = len(asked)
        begun = list(self._begun(asked))
        for digest in dict.fromkeys(training.request.model_digest for _, training in begun):
            self._train([(who, training) for who, training in begun if training.request.model_digest == digest])

    def _begun(self, asked: Sequence[tuple[Message, Context]]) -> Iterator[tuple[Participant, Begun]]:
        for message, context in asked:
            request = _training_asked(message)
            partition = int(context.node_config["partition-id"])
            if request is None or partition >= len(self._clients) or not self._can_be_stacked(partition):
                continue
            participant, training = self._of(partition), None
            with suppress(Exception):  # its answer comes to the same, and is where that is told
                training = participant.begin_training(request)
            if training is not None:
                yield participant, training

    def _can_be_stacked(self, partition: int) -> bool:
        client = self._clients[partition]
        if self._adversary is not None and client in self._adversary.poisoned:
            return False
        return self._federation.training[client].inputs.shape[1:] == self._plan.model.inputs

    def _train(self, begun: Sequence[tuple[Participant, Begun]]) -> None:
        assert self._engine is not None
        jobs = [job for _, training in begun for job in training.jobs]
        trained = self._engine.train(begun[0][1].request.model, jobs).vectors()
        tasks = self._plan.task.tasks_per_client
        for place, (participant, training) in enumerate(begun):
            participant.finish_training(training, trained[place * tasks : (place + 1) * tasks])
        self.trained_at_once += len(begun)

    def _of(self, partition: int) -> Participant:
        if partition not in self._participants:
            self._participants[partition] = self._make(partition)
            self._let_go()
        self._participants.move_to_end(partition)
        return self._participants[partition]

    def _let_go(self) -> None:
        """Of participants that were not asked for long, where they fill more than their share of memory."""
        first = self._federation.training[self._clients[0]]
        size = first.inputs.nbytes + 4 * self._learner.size + _PARTICIPANT_BYTES
        most = max(_HELD_BYTES // size, self._asked_next, 1)
        while len(self._participants) > most and self._adversary is None:
            _, participant = self._participants.popitem(last=False)
            self._secure_cpu_seconds += participant.secure_cpu_seconds

    def _honest_update(self, partition: int, request: TrainRequest) -> Vector | None:
        update = self._of(partition).own_update(request)
        return None if isinstance(update, RefusalReason) else update

    def _make(self, partition: int) -> Participant:
        client = self._clients[partition]
        memory = self._memories.of(partition)
        return self._kind_of(client)(
            client,
            self._plan,
            self._federation.training[client],
            memory.store,
            simulated_gate(self._plan, client, memory.ledger),
            self._learner,
            self._mechanism,
            self._keys.membership_of(client) if self._keys is not None else None,
            split_key=derive(client.encode(), "simulated split"),
            witness=memory.witness,
        )

    def _kind_of(self, client: str) -> Callable[..., Participant]:
        if self._adversary is None or client not in self._adversary.poisoned:
            return Participant if self._masks else MaskFreeParticipant
        return partial(PoisonedParticipant if self._masks else PoisonedMaskFreeParticipant, self._adversary)

    @property
    def secure_cpu_seconds(self) -> float:
        """CPU seconds that all participants of this process spent on secure aggregation so far."""
        held = sum(participant.secure_cpu_seconds for participant in self._participants.values())
        return self._secure_cpu_seconds + held

    @property
    def audit_cpu_seconds(self) -> float:
        """CPU seconds that all participants of this process spent on the audit log so far."""
        return self._memories.audit_cpu_seconds


def _training_asked(message: Message) -> TrainRequest | None:
    """What the message asks to train; None if it asks for something else."""
    if message.metadata.message_type != TRAIN or not carries_vector(message.content):
        return None  # the many steps of secure aggregation and of the log
    try:
        request = from_records(message.content)
    except WireError:
        return None
    return request if isinstance(request, TrainRequest) else None


def _mechanism_of(plan: FederationPlan) -> MechanismFactory:
    return seeded_mechanism if plan.privacy.noise_multiplier == 0 else os_mechanism


@dataclass(frozen=True, slots=True)
class OwnersByFile:
    """The same, for another process: says where plan, data and state are, and loads them there once.

    Attributes:
        plan: Path of a complete plan.
        data: Path of the federation's data, empty where it simulates its own.
        state: Folder of what each client remembers.
        keys: Folder of the simulated keys.
    """

    plan: str
    data: str
    state: str
    keys: str

    def __call__(self, context: Context) -> Participant:
        """The participant of the context's partition."""
        return _owners_of(self)(context)


@lru_cache(maxsize=2)
def _owners_of(files: OwnersByFile) -> Owners:
    federation = load_federation(load_plan(Path(files.plan)), Path(files.data) if files.data else None)
    keys = SimulatedKeys.of(federation, Path(files.keys)) if needs_keys(federation.plan) else None
    return Owners(federation, Path(files.state), keys, mirrors=True)


def participant_of_partition(context: Context) -> Participant:
    """Entry point for ``flwr run`` on a simulated federation: the run's configuration says where things are.

    Raises:
        UsageError: It names no plan or no folder.
    """
    plan, data, out = (str(context.run_config.get(key, "")) for key in ("plan", "data", "out"))
    if not plan or not out:
        raise UsageError("the run names no plan or no folder", remedy='flwr run ... -c \'plan="..." out="..."\'')
    return OwnersByFile(plan, data, str(Path(out) / "clients"), str(Path(out) / "keys"))(context)
