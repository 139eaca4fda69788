"""A small federation with secure aggregation in one process: plan, keys, participants, and a link to meddle with.

The participants are the real ones, and each message passes as bytes. No tests in here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from helpers import gate_of, make_examples, make_plan, request_for
from testudo_client.membership import Membership
from testudo_client.participant import Participant
from testudo_client.store import ClientStore
from testudo_common.learning.learner import Learner
from testudo_common.plan import FederationPlan
from testudo_common.secagg.bindings import commitments_digest
from testudo_common.secagg.groups import draw_coin, partition
from testudo_common.secagg.messages import MESSAGES
from testudo_common.secagg.quantize import Layout
from testudo_common.secure_terms import Attempt, attempt_of, terms_of
from testudo_common.vectors import Vector
from testudo_common.wire import Message, Parts, SecureMessage, TrainRequest, decode, encode
from testudo_server.secure_exchange import SecureExchange
from testudo_simulations.keys import SimulatedKeys

STEPS = ("TrainRequest", "CommitmentList", "Directory", "Deliveries", "SurvivorSet", "Confirmations")
"""What a client receives in one attempt, in this order."""
REPLIES = ("Commitment", "Advertisement", "SharedKeys", "MaskedInput", "Confirmation", "UnmaskingShares")
"""What it answers with."""

SECURE: dict[str, Any] = {
    "name": "small",
    "data": {"federation": "sine"},
    "task": {"kind": "regression"},
    "model": {"name": "linear", "inputs": [7], "outputs": 1},
    "inner": {"steps": 2, "learning_rate": 0.1, "sample_rate": 1.0},
    "rounds": {"count": 4, "cohort_size": 4},
    "secure_aggregation": {"mode": "secure", "group_size": 4, "min_group": 3},
}
"""Training under it is deterministic: the same model gives the same update."""
NOISY = ('privacy.unit="example"', "privacy.noise_multiplier=1.0", "inner.sample_rate=0.5")
NAMES = ("ada", "bob", "cyd", "dan")


def secure_plan(*settings: str) -> FederationPlan:
    """:data:`SECURE` with ``section.key=value`` changed."""
    return make_plan(*settings, tables=SECURE)


def names_of(count: int) -> tuple[str, ...]:
    """``count`` client ids, sorted."""
    return tuple(f"owner-{number:02d}" for number in range(count))


def keys_of(names: Iterable[str], federation: str = "small") -> SimulatedKeys:
    """Keys that are the same each time."""
    return SimulatedKeys(federation, names, hashlib.sha256(b"a test").digest())


class Members:
    """The participants of a federation, who share one model.

    Args:
        plan: With secure aggregation.
        names: Client ids.
        stores: Client id -> its store; those not named keep everything in memory.
        kinds: Client id -> another class than Participant.
        more: For every participant.
    """

    def __init__(
        self,
        plan: FederationPlan,
        names: Iterable[str] = NAMES,
        *,
        stores: Mapping[str, ClientStore] | None = None,
        kinds: Mapping[str, type[Participant]] | None = None,
        examples: Callable[[int], Any] | None = None,
        **more: Any,
    ) -> None:
        self.plan = plan
        self.names = tuple(names)
        self.keys = keys_of(self.names)
        self.learner = Learner(plan)
        self.stores = {name: (stores or {}).get(name) or ClientStore(None) for name in self.names}
        self._kinds = dict(kinds or {})
        self._examples = examples or own_examples
        self._more = more
        self.participants = {name: self.make(name) for name in self.names}

    def make(self, name: str, store: ClientStore | None = None) -> Participant:
        """A new participant of that name, on its store or another; as after a restart."""
        store = store or self.stores[name]
        return self._kinds.get(name, Participant)(
            name,
            self.plan,
            self._examples(self.names.index(name)),
            store,
            gate_of(self.plan, store),
            self.learner,
            membership=self.membership_of(name),
            **self._more,
        )

    def membership_of(self, name: str) -> Membership:
        return self.keys.membership_of(name)

    def restart(self, name: str) -> None:
        """Forget all that is not in its store."""
        self.participants[name] = self.make(name)

    def update_of(self, name: str) -> Vector:
        """The update that it remembers."""
        update = self.stores[name].load(self.plan.digest).last_update
        assert update is not None
        return update

    def mean_of(self, names: Iterable[str], weights: Iterable[int] | None = None) -> npt.NDArray[np.float64]:
        """What no protocol would give: the mean of their updates in float64."""
        updates = np.stack([self.update_of(name).astype(np.float64) for name in names])
        return np.average(updates, axis=0, weights=None if weights is None else list(weights))


def own_examples(place: int) -> Any:
    """Examples that differ from client to client."""
    return make_examples(12, regression=True, inputs=7, seed=place)


def layout_of(plan: FederationPlan, round_number: int = 1) -> Layout:
    """What a client's vector holds in a round."""
    size = Learner(plan).size
    attempt = Attempt(plan.digest, round_number, 0, "0" * 64)
    return terms_of(plan, keys_of(NAMES).roster, attempt, size).parameters.layout


def off_by(layout: Layout, weight: float = 1.0) -> float:
    """How far a coordinate of an opened mean may be from the mean of the updates.

    Each client rounds up or down to one of two neighbouring steps, so it is off by less than one, and by 2^-16 of one
    more where fixed point was cut off; the mean of such errors is no larger. float32 adds half of its last bit.

    Args:
        layout: Of the round.
        weight: Mean weight of the clients: a weighted update is rounded once, after it was multiplied.
    """
    return (1 + 2**-16) / (layout.scale * weight) + layout.max_norm * 2**-24


def kind_of(message: Message) -> str:
    """``TrainRequest``, or which message of the protocol it carries."""
    if isinstance(message, SecureMessage):
        return type(MESSAGES.decode(message.body)).__name__
    return type(message).__name__


def carried(message: Message) -> Message:
    """The message as it arrives: other memory, the same bytes."""
    parts = encode(message)
    return decode(Parts(parts.header, parts.body, None if parts.vector is None else parts.vector.copy()))


Answer = Callable[[], Message]
Meddling = Callable[[str, Message, Answer], "Message | str | None"]


def honest(_client: str, _message: Message, answer: Answer) -> Message:
    """Change nothing."""
    return answer()


class Link:
    """A transport straight to participants.

    Args:
        participants: Client id -> participant; read anew for each message.
        meddle: Given client, message, and what the client would answer: what arrives instead. None is no reply.

    Attributes:
        log: (client, kind of message, message, reply) of all that passed.
        told: Kind of message -> the last one sent.
        deadlines: Of each step, in seconds.
    """

    def __init__(self, participants: Mapping[str, Participant], meddle: Meddling = honest) -> None:
        self._participants = participants
        self._meddle = meddle
        self.log: list[tuple[str, str, Message, Message | str | None]] = []
        self.told: dict[str, Message] = {}
        self.deadlines: list[float] = []

    def deliver(
        self, requests: Mapping[str, Message], *, deadline_seconds: float
    ) -> Iterator[tuple[str, Message | str]]:
        self.deadlines.append(deadline_seconds)
        for client, message in requests.items():
            self.told[kind_of(message)] = message
            reply = self._meddle(client, carried(message), partial(self._answer, client, message))
            self.log.append((client, kind_of(message), message, reply))
            if reply is not None:
                yield client, reply

    def _answer(self, client: str, message: Message) -> Message:
        return carried(self._participants[client].answer(carried(message)))  # type: ignore[arg-type]

    def sent_to(self, client: str) -> list[Message]:
        return [message for name, _, message, _ in self.log if name == client]

    def said_by(self, client: str) -> list[Message | str | None]:
        return [reply for name, _, _, reply in self.log if name == client]


class Falling(Link):
    """A link on which some clients fall silent.

    Args:
        participants: See :class:`Link`.
        when: Client id -> (step from which on nothing is heard of it, whether it still handles that message).
    """

    def __init__(self, participants: Mapping[str, Participant], when: Mapping[str, tuple[str, bool]]) -> None:
        self._when = dict(when)
        self._gone: set[str] = set()
        super().__init__(participants, self._lose)

    def _lose(self, client: str, message: Message, answer: Answer) -> Message | None:
        step, handled = self._when.get(client, ("", False))
        if client in self._gone:
            return None
        if kind_of(message) != step:
            return answer()
        self._gone.add(client)
        if handled:
            answer()
        return None


def groups_of(members: Members, link: Link) -> tuple[tuple[str, ...], ...]:
    """The groups of the last attempt on a link, as every client computes them once it has the directory."""
    request, listed, directory = (link.told[kind] for kind in STEPS[:3])
    assert isinstance(request, TrainRequest)
    assert isinstance(listed, SecureMessage)
    assert isinstance(directory, SecureMessage)
    terms = terms_of(members.plan, members.keys.roster, attempt_of(request), len(request.model))
    entries = MESSAGES.decode(directory.body).entries
    coin = draw_coin(
        terms.round_context,
        commitments_digest(MESSAGES.decode(listed.body).entries),
        ((entry.client_id, entry.advertisement.nonce) for entry in entries),
    )
    return partition(coin, (entry.client_id for entry in entries), terms.parameters.group_size)


def exchange_of(members: Members, meddle: Meddling | Link = honest) -> tuple[SecureExchange, Link]:
    """The server's exchange with them, which keeps each group's mean, and the link between."""
    link = meddle if isinstance(meddle, Link) else Link(members.participants, meddle)
    return SecureExchange(link, members.plan, members.keys.roster, sum_only=False), link


def request_of(
    members: Members, model: Vector | None = None, *, round_number: int = 1, attempt: int = 0
) -> TrainRequest:
    """A proper request of the members' server."""
    model = np.zeros(members.learner.size, dtype=np.float32) if model is None else model
    return request_for(members.plan, model, round_number=round_number, attempt=attempt)
