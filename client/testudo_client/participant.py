"""One data owner's part in a round: check what was sent, train, remember, reply. Never imports Flower.

Decides everything that app.py only carries. Every refusal is one of the wire's fixed reasons. Under a plan with secure
aggregation no update leaves in clear, whatever the server asks for: training ends in a commitment, and what follows
are the steps of that protocol.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from testudo_client.evaluate import federated_sums
from testudo_client.gate import REFUSED, SENTENCES, Gate, reason_of
from testudo_client.membership import Membership
from testudo_client.meta_update import MechanismFactory, os_mechanism
from testudo_client.newcomer import newcomer_counts
from testudo_client.observer import observed
from testudo_client.owner_log import sentence_of
from testudo_client.secure_side import SecureSide
from testudo_client.store import ClientStore
from testudo_client.trainings import Begun, Trainings
from testudo_client.witness import Witness
from testudo_common.errors import Breach, BudgetError, ProtocolError, UsageError
from testudo_common.learning.inner_loop import LocalCentre
from testudo_common.learning.learner import Learner, initial_vector
from testudo_common.learning.tasks import Examples, draw_episode
from testudo_common.plan import FederationPlan
from testudo_common.privacy.events import Events
from testudo_common.privacy.planned import planned_event
from testudo_common.secagg.masking import Words
from testudo_common.secagg.primitives import derive, random_secret
from testudo_common.secagg.quantize import Contribution, encode
from testudo_common.secagg.terms import Terms
from testudo_common.secure_terms import CLIPPED, UNCLIPPED, calibration_counts_of, metric_counts_of
from testudo_common.signed_replies import ReplySigner
from testudo_common.vectors import Vector, fault_of_vector, vector_digest
from testudo_common.wire import (
    LogUpdate,
    Refusal,
    RefusalReason,
    SecureMessage,
    TrainReply,
    TrainRequest,
    Witnessed,
)

Answer = TrainReply | SecureMessage | Witnessed | Refusal
_BAD_LUCK = frozenset({Breach.TOO_FEW, Breach.CONFIRMATION})
"""What dropouts alone bring about too; the server must not take it for a member's fault."""


def _is_unclipped(update: Vector, max_norm: float) -> bool:
    """Whether clipping to ``max_norm`` leaves it; one that was clipped to the plan's own norm counts as clipped."""
    return float(np.linalg.norm(update.astype(np.float64))) < max_norm * (1 - 1e-6)


@lru_cache(maxsize=8)
def _initial_digest(plan: FederationPlan) -> str:
    """Of the model that the plan begins with, hex."""
    return vector_digest(initial_vector(plan))


class Participant:
    """A client of one plan.

    Args:
        client_id: Its name in the federation; enters the seed of what may be seeded.
        plan: The copy installed here, not one the server sent.
        examples: This owner's training examples.
        store: Where it remembers what it replied, and the session it is in.
        gate: Consent and ledger: asked before data is touched.
        learner: The plan's model; may be shared between participants of one thread.
        mechanism: Makes the DP mechanism of a round; anything but the default is for tests with zero noise.
        membership: Its key and the roster; needed under a plan with secure aggregation.
        witness: Its witness of the log; needed under a plan with one.
        split_key: Says which examples are queries when the model is scored; None: derived from the membership's key.
            Anything but that is for simulations, which are to repeat themselves.

    Attributes:
        secure_cpu_seconds: Spent on secure aggregation so far, in this process.

    Raises:
        UsageError: The plan has secure aggregation, and no membership is given; or a log, and no witness.
        RosterError: The roster does not hold this client with this key.
    """

    def __init__(
        self,
        client_id: str,
        plan: FederationPlan,
        examples: Examples,
        store: ClientStore,
        gate: Gate,
        learner: Learner | None = None,
        mechanism: MechanismFactory = os_mechanism,
        membership: Membership | None = None,
        split_key: bytes | None = None,
        witness: Witness | None = None,
    ) -> None:
        self.client_id = client_id
        self.plan = plan
        self.plan_digest = plan.digest
        self._examples = examples
        self._store = store
        self._gate = gate
        self._learner = learner if learner is not None else Learner(plan)
        self._mechanism = mechanism
        self._membership = membership
        self._given_split_key = split_key
        self._witness = self._witness_of_the_log(witness)
        self._secure = self._secure_side(membership)
        self._trainings = Trainings(
            plan,
            store,
            gate,
            self._learner,
            mechanism,
            draw_task=self._draw_task,
            seeded=self._seeded,
            is_used=self._is_used,
        )
        self.secure_cpu_seconds = 0.0

    def _secure_side(self, membership: Membership | None) -> SecureSide | None:
        if not self.plan.secure:
            return None
        if membership is None:
            raise UsageError(
                "the plan has secure aggregation, and this client has no key and no roster",
                where=self.client_id,
                remedy="make your folder with testudo-client init, and get roster.json from the federation",
            )
        identity = membership.identity_of(self.client_id)
        return SecureSide(self.plan, identity, membership.roster, self._store, self._learner.size, self._witness)

    def _witness_of_the_log(self, witness: Witness | None) -> Witness | None:
        if not self.plan.audited:
            return None
        if witness is None:
            raise UsageError(
                "the plan has an audit log, and this client does not watch it",
                where=self.client_id,
                remedy="make your folder with testudo-client init, and get roster.json from the federation",
            )
        return witness

    @property
    def signer(self) -> ReplySigner | None:
        """Signs what leaves; None without a key."""
        if self._membership is not None:
            return ReplySigner(self.client_id, self._membership.key)
        return None if self._witness is None else self._witness.signer

    def answer(self, message: TrainRequest | SecureMessage | LogUpdate) -> Answer:
        """Answer one message of the server. What goes wrong without an answer stands in the owner's log as well."""
        with self._store.exclusive():
            try:
                match message:
                    case LogUpdate():
                        return self.observe(message)
                    case SecureMessage():
                        return self.step(message)
                    case _:
                        return self.train(message)
            except Exception as error:
                self._gate.refused(message, RefusalReason.INTERNAL, sentence_of(error))
                raise

    def observe(self, update: LogUpdate) -> Witnessed | Refusal:
        """Answer what is new in the log: reads no data, and needs nobody's consent."""
        if self._witness is None or update.plan_digest != self.plan_digest:
            return self._refuse(update, RefusalReason.OTHER_PLAN)
        return observed(self._witness, update, self._gate.refused)

    def train(self, request: TrainRequest) -> TrainReply | SecureMessage | Refusal:
        """Answer one request: with an update (the same one again for the same request), or a refusal.

        With secure aggregation the update stays here, and a commitment answers.
        """
        if reason := self._fault_of(request):
            return self._refuse(request, reason)
        try:
            if self._witness is not None:
                self._witness.check(request, lambda: _initial_digest(self.plan))
            self._gate.check()
            return self._trained(request)
        except REFUSED as error:
            return self._refuse(request, reason_of(error), str(error))

    def _trained(self, request: TrainRequest) -> TrainReply | SecureMessage | Refusal:
        if self._secure is not None and (reason := self._secure.fault_of(request)):
            return self._refuse(request, reason)
        update = self._update_for(request)
        if isinstance(update, RefusalReason):
            return self._refuse(request, update)
        if not self.plan.secure:
            statement = self._statement(request.round, request.attempt, request.model_digest, update)
            return TrainReply(self.plan_digest, request.round, request.attempt, request.model_digest, update, statement)
        assert self._secure is not None
        counts = self._counts_for(request)
        with self._timed():
            begun = self._secure.begin(request, update, counts)
        return self._refuse(request, begun) if isinstance(begun, RefusalReason) else begun

    def step(self, message: SecureMessage) -> SecureMessage | Refusal:
        """Answer one step of secure aggregation after training."""
        if self._secure is None or message.plan_digest != self.plan_digest:
            return self._refuse(message, RefusalReason.OTHER_PLAN)

        def charged(terms: Terms, members: int, counts: npt.NDArray[np.int64]) -> tuple[Vector, Words]:
            self._gate.charge_sum(message.round, message.attempt)
            return self._encoded(terms, members, counts)

        try:
            if self._witness is not None:
                self._witness.refuse_if_halted()
            self._gate.check()
            with self._timed():
                return self._with_statement(self._secure.step(message, charged))
        except REFUSED as error:
            return self._refuse(message, reason_of(error), str(error))
        except ProtocolError as error:
            bad_luck = error.breach in _BAD_LUCK
            return self._refuse(
                message, RefusalReason.TOO_FEW if bad_luck else RefusalReason.PROTOCOL_BROKEN, str(error)
            )

    def _with_statement(self, reply: SecureMessage) -> SecureMessage:
        """The reply; beside a vector, with what the owner says of it for the log."""
        if reply.masked is None or self._witness is None:
            return reply
        memory = self._store.load(self.plan_digest)
        assert memory.last_update is not None  # it is in the vector
        statement = self._statement(reply.round, reply.attempt, memory.last_model_digest, memory.last_update)
        return replace(reply, statement=statement)

    def _statement(self, round_number: int, attempt: int, model_digest: str, update: Vector) -> str | None:
        """The owner's signed contribution; None under a plan without a log."""
        if self._witness is None:
            return None
        return self._witness.statement(round_number, attempt, model_digest, vector_digest(update))

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.process_time()
        try:
            yield
        finally:
            self.secure_cpu_seconds += time.process_time() - started

    def _encoded(self, terms: Terms, members: int, counts: npt.NDArray[np.int64]) -> tuple[Vector, Words]:
        """The update remembered, and what goes into the sum for it: ``uint32[size]``, not masked yet.

        Every call adds fresh noise, where the plan has some: whoever saw two of them would see less of it.

        Args:
            terms: Of the attempt.
            members: Of the group whose sum it goes into: they share the noise.
            counts: ``int64[k]``, metric sums; empty in a round without.
        """
        update = self._store.load(self.plan_digest).last_update
        assert update is not None  # a session begins with one
        layout, share = terms.parameters.layout, terms.parameters.noise_share(members)
        weight = max(1, min(len(self._examples), self.plan.secure_aggregation.max_weight))
        if self.plan.adapts_clip:
            counts = np.append(counts, UNCLIPPED if _is_unclipped(update, layout.max_norm) else CLIPPED)
        given = Contribution(update, weight, counts if len(counts) else None)
        return update, encode(layout, given, random_secret(), share, None if share is None else random_secret())

    def _counts_for(self, request: TrainRequest) -> npt.NDArray[np.int64]:
        """Metric sums of the received model on this owner's examples, where the round has them: ``int64[k]``."""
        if not self.plan.scores_in(request.round):
            return np.empty(0, dtype=np.int64)
        calibrates, event = self.plan.calibrates_in(request.round), planned_event(self.plan)
        counts = metric_counts_of(self.plan)
        try:
            self._gate.charge_scores(request.round, request.attempt)
        except BudgetError as error:  # the sum can do without this client's scores; the update is worth more
            self._gate.refused(request, RefusalReason.PRIVACY_SPENT, f"no scores in this round: {error}")
            size = calibration_counts_of(self.plan).size if calibrates else 2 * counts.size
            return np.zeros(size, dtype=np.int64)
        seeded, mechanism = self._seeded(request.round, "evaluation"), None
        if event is not None:
            mechanism = self._mechanism(event.noise_multiplier, self.plan.privacy.max_grad_norm, seeded)
        if calibrates:
            given = (self._learner, request.model, self._examples, self.plan)
            return newcomer_counts(*given, split_key=self._split_key(), mechanism=mechanism)
        sums = federated_sums(
            self._learner,
            request.model,
            self._examples,
            self.plan,
            seeded,
            split_key=self._split_key(),
            mechanism=mechanism,
        )
        return np.concatenate([counts.encode(each) for each in sums])

    def _split_key(self) -> bytes:
        """The secret that says which of this owner's examples are queries, the same for as long as its key is."""
        if self._given_split_key is not None:
            return self._given_split_key
        assert self._membership is not None  # scores leave under secure aggregation only
        return derive(self._membership.key.private_bytes_raw(), "split of examples")

    def own_update(self, request: TrainRequest) -> Vector | RefusalReason:
        """What this owner trained for ``request``: trained now if it was not, the same again for the same request."""
        return self._update_for(request)

    def _update_for(self, request: TrainRequest) -> Vector | RefusalReason:
        """The update for ``request``: the one remembered, unless it was used up, or a new one.

        Raises:
            BudgetError: A new one does not fit into an account.
            LedgerError: The ledger cannot be trusted.
        """
        return self._trainings.update_for(request)

    def _is_used(self, update: Vector) -> bool:
        return self._secure is not None and self._secure.has_used(update)

    def _fault_of(self, request: TrainRequest) -> RefusalReason | None:
        if request.plan_digest != self.plan_digest:
            return RefusalReason.OTHER_PLAN
        if (request.clip is not None) != self.plan.adapts_clip:
            return RefusalReason.OTHER_PLAN
        if request.clip is not None and not 0 < request.clip <= self.plan.outer.max_update_norm:
            return RefusalReason.OTHER_PLAN
        if len(request.model) != self._learner.size or vector_digest(request.model) != request.model_digest:
            return RefusalReason.OTHER_MODEL
        return None

    def begin_training(self, request: TrainRequest) -> Begun | None:
        """Charge the training that :meth:`train` would do for ``request``, for somebody else to run its inner loops.

        Whoever has run them calls :meth:`finish_training`, and then :meth:`train` answers with what came of it.

        Returns:
            None where :meth:`train` would not train now, since it would refuse or has the update already: nothing is
            charged then. None also where these data cannot be used, which is charged, and refused by :meth:`train`.

        Raises:
            Exception: What :meth:`train` would refuse for, or raise; the next call to it does.
        """
        if self._fault_of(request) or fault_of_vector(request.model, self._learner.size):
            return None
        if self._witness is not None:
            self._witness.check(request, lambda: _initial_digest(self.plan))
        self._gate.check()
        if self._secure is not None and self._secure.fault_of(request):
            return None
        return self._trainings.begin(request)

    def finish_training(self, begun: Begun, trained: npt.NDArray[np.float32]) -> None:
        """Remember what the jobs of ``begun`` led to, ``float32[jobs, d]``, as :meth:`train` does with its own."""
        self._trainings.finish(begun, trained)

    @property
    def spent(self) -> Events:
        """Everything spent so far under this plan at the unit of one example, composed."""
        return self._gate.spent.example

    def _draw_task(self, seeded: np.random.Generator) -> Examples:
        task = self.plan.task
        if task.kind == "few_shot":
            assert task.ways is not None and task.shots is not None  # the plan was checked
            support, _ = draw_episode(self._examples, task.ways, task.shots, 0, seeded)
            return support
        return LocalCentre.of(self._examples, task.local_centring).subtract(self._examples)

    def _seeded(self, round_number: int, *more: str) -> np.random.Generator:
        """For what is no secret: the order of batches without privacy, and episodes."""
        label = "|".join([str(self.plan.seed), self.client_id, str(round_number), *more]).encode()
        return np.random.default_rng(int.from_bytes(hashlib.sha256(label).digest()[:16], "big"))

    def _refuse(
        self, message: TrainRequest | SecureMessage | LogUpdate, reason: RefusalReason, sentence: str = ""
    ) -> Refusal:
        self._gate.refused(message, reason, sentence or SENTENCES[reason])
        return Refusal(self.plan_digest, message.round, message.attempt, reason)
