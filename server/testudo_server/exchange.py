"""How a round's group means come about. The coordinator asks for them and does not know how.

Here: the plain exchange, in which every client is a group of one and its update is seen by the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from testudo_common.vectors import Vector, fault_of_vector
from testudo_common.wire import Message, Refusal, TrainReply, TrainRequest


@dataclass(frozen=True, slots=True)
class GroupMean:
    """The mean meta-update of the members that survived.

    Attributes:
        members: Client ids, sorted.
        mean: ``float32[d]``, finite.
    """

    members: tuple[str, ...]
    mean: Vector = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Collected:
    """What a round brought in.

    Attributes:
        groups: Usable group means, in the order of their members.
        excluded: (client id, reason) of everyone whose update is in no group.
    """

    groups: tuple[GroupMean, ...]
    excluded: tuple[tuple[str, str], ...]


class Transport(Protocol):
    """Carries messages to clients and back; knows nothing of what they mean."""

    def deliver(self, requests: Mapping[str, Message], *, deadline_seconds: float) -> Mapping[str, Message | str]:
        """Send each client its request; give back its reply, or in words why there is none."""


class Exchange(Protocol):
    """Turns one request to a cohort into group means."""

    def group_means(self, request: TrainRequest, cohort: tuple[str, ...]) -> Collected:
        """Ask every client of ``cohort``; bad or missing replies are set aside one by one, never fatal."""


class PlainExchange:
    """Every client a group of one. Over TLS nobody but the server sees an update; the server sees each.

    Args:
        transport: To the clients.
        deadline_seconds: A reply after this is not waited for.
    """

    def __init__(self, transport: Transport, *, deadline_seconds: float) -> None:
        self._transport = transport
        self._deadline_seconds = deadline_seconds

    def group_means(self, request: TrainRequest, cohort: tuple[str, ...]) -> Collected:
        """See :class:`Exchange`."""
        replies = self._transport.deliver(dict.fromkeys(cohort, request), deadline_seconds=self._deadline_seconds)
        groups: list[GroupMean] = []
        excluded: list[tuple[str, str]] = []
        for client in cohort:
            reply = replies.get(client, "no reply before the deadline")
            if fault := fault_of_reply(reply, request):
                excluded.append((client, fault))
            else:
                assert isinstance(reply, TrainReply)
                groups.append(GroupMean((client,), reply.update))
        return Collected(tuple(groups), tuple(excluded))


def fault_of_reply(reply: Message | str, request: TrainRequest) -> str | None:
    """Why ``reply`` is not a usable answer to ``request``, or None if it is one."""
    match reply:
        case str():
            return reply
        case Refusal(reason=reason):
            return f"refused: {reason.value}"
        case TrainReply():
            named = (reply.plan_digest, reply.round, reply.attempt, reply.model_digest)
            if named != (request.plan_digest, request.round, request.attempt, request.model_digest):
                return "answered another request"
            if fault := fault_of_vector(reply.update, len(request.model)):
                return f"update {fault}"
            return None
        case _:
            return "not a reply"
