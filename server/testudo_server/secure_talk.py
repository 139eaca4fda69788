"""An attempt's conversation with the clients in secure aggregation: who fell silent and why, and what it cost.

Not the steps, which are secure_exchange.py's: what it is given to send it sends, and what is no answer to it is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from testudo_common.errors import PeerError, ProtocolError
from testudo_common.secagg.messages import MESSAGES, Commitment, ToClient
from testudo_common.wire import Message, Refusal, RefusalReason, SecureMessage, TrainRequest, encode
from testudo_server.exchange import NO_REPLY, REFUSED, RoundLog, Transport

T = TypeVar("T")


@dataclass(slots=True)
class Talk:
    """See the module.

    Attributes:
        transport: To the clients.
        request: That began the attempt.
        log: Told of each update that arrives.
        deadline_seconds: Of each step but training.
        silent: Client id -> why nothing more is expected of it.
        broken: Who said that the server broke the protocol.
        vanished: Who was silent when the groups could be known.
        bytes_down: Payload bytes sent so far.
        bytes_up: Payload bytes received so far.
    """

    transport: Transport
    request: TrainRequest
    log: RoundLog
    deadline_seconds: float
    silent: dict[str, str] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    vanished: tuple[str, ...] = ()
    bytes_down: int = 0
    bytes_up: int = 0

    def train(self, cohort: tuple[str, ...], deadline_seconds: float) -> dict[str, Commitment]:
        """Send the training request; the commitments that answer it."""
        requests = dict.fromkeys(cohort, self.request)
        return {client: message for client, message, _ in self._ask(requests, Commitment, deadline_seconds)}

    def step(self, messages: Mapping[str, ToClient], expected: type[T]) -> dict[str, T]:
        """Send each client its message; the answers that are of the expected kind."""
        return {client: message for client, message, _ in self.stream(messages, expected)}

    def stream(self, messages: Mapping[str, ToClient], expected: type[T]) -> Iterator[tuple[str, T, SecureMessage]]:
        """The same, one by one as they arrive, each with what carried it."""
        carried: dict[int, SecureMessage] = {}
        for message in messages.values():  # the same message to many is encoded once
            if id(message) not in carried:
                named = (self.request.plan_digest, self.request.round, self.request.attempt)
                carried[id(message)] = SecureMessage(*named, MESSAGES.encode(message))
        requests = {client: carried[id(message)] for client, message in messages.items()}
        return self._ask(requests, expected, self.deadline_seconds)

    def set_aside(self, faults: Iterable[PeerError]) -> None:
        """Whoever broke a rule has fallen silent, for that reason."""
        self.silent.update({fault.client_id: fault.problem for fault in faults})

    def _ask(
        self, requests: Mapping[str, Message], expected: type[T], deadline_seconds: float
    ) -> Iterator[tuple[str, T, SecureMessage]]:
        sizes: dict[int, int] = {}
        for request in requests.values():
            if id(request) not in sizes:
                sizes[id(request)] = encode(request).size_bytes
            self.bytes_down += sizes[id(request)]
        waiting = set(requests)
        for client, reply in self.transport.deliver(requests, deadline_seconds=deadline_seconds):
            if client not in waiting:
                continue
            waiting.remove(client)
            if isinstance(reply, str):
                self.silent[client] = reply
                continue
            self.bytes_up += encode(reply).size_bytes
            fault = self._fault_of(reply)
            message = None if fault else _decoded(reply)
            if not isinstance(message, expected):
                self.silent[client] = fault or "reply not understood"
                if isinstance(reply, Refusal) and reply.reason is RefusalReason.PROTOCOL_BROKEN:
                    self.broken.add(client)
                continue
            assert isinstance(reply, SecureMessage)
            yield client, message, reply
        for client in waiting:
            self.silent[client] = NO_REPLY

    def _fault_of(self, reply: Message) -> str | None:
        match reply:
            case Refusal(reason=reason):
                return f"{REFUSED}: {reason.value}"
            case SecureMessage(plan_digest=plan, round=number, attempt=attempt):
                if (plan, number, attempt) != (self.request.plan_digest, self.request.round, self.request.attempt):
                    return "answered another request"
                return None
            case _:
                return "not a message of secure aggregation"


def _decoded(reply: Message) -> object:
    assert isinstance(reply, SecureMessage)
    try:
        return MESSAGES.decode(reply.body)
    except ProtocolError:
        return None
