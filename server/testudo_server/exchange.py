"""How a round's group means come about. The coordinator asks for them and does not know how.

Here: what every exchange gives back, and the plain one, in which each client is a group of one and its update is seen
by the server. The secure one is secure_exchange.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from testudo_common.vectors import Vector, fault_of_vector
from testudo_common.wire import Message, Refusal, TrainReply, TrainRequest, encode
from testudo_server.running_mean import RunningMean


@dataclass(frozen=True, slots=True)
class GroupMean:
    """The mean meta-update of the members that survived.

    Attributes:
        members: Client ids, sorted.
        mean: ``float32[d]``, finite; None: it was added up with the others' and is not kept.
        votes: What the mean weighs: the number of members, or the sum of their weights where the plan has weights.
    """

    members: tuple[str, ...]
    mean: Vector | None = field(repr=False, compare=False)
    votes: int = 1


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """What became of one group; of the plain exchange there is none.

    Attributes:
        attempt: In which it was drawn.
        members: Client ids of all that were drawn into it, sorted.
        survivors: Of those whose sum was opened, sorted; empty if none was.
        fault: Why no sum of it counts, as a fixed word; empty if one does.
        blamed: Whether a member must have cheated for that, so that all get a strike; dropouts are nobody's fault.
        disputes: (owner, holder) of shares that proved wrong: one of the two cheated, and nobody is blamed for it.
    """

    attempt: int
    members: tuple[str, ...]
    survivors: tuple[str, ...]
    fault: str = ""
    blamed: bool = False
    disputes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ExchangeCost:
    """What an exchange took at the server.

    Attributes:
        bytes_down: Payload bytes sent.
        bytes_up: Payload bytes received.
        cpu_seconds: Of secure aggregation's own computation; 0 for the plain exchange.
    """

    bytes_down: int = 0
    bytes_up: int = 0
    cpu_seconds: float = 0.0

    def __add__(self, other: ExchangeCost) -> ExchangeCost:
        """Both together."""
        return ExchangeCost(
            self.bytes_down + other.bytes_down, self.bytes_up + other.bytes_up, self.cpu_seconds + other.cpu_seconds
        )


@dataclass(frozen=True, slots=True)
class Collected:
    """What a round brought in.

    Attributes:
        groups: Usable group means, in the order of their members.
        excluded: (client id, reason) of everyone whose update is in no group.
        records: What became of each group.
        vanished: Who fell silent when the groups could be known; the next attempt is made without them.
        counts: ``int64[k]``, metric counts summed over all groups; empty in a round without.
        cost: At the server.
        bad: Rows that are missing since they cannot be honest ones: so many fewer are bad among the others.
        mean: ``float32[d]``, of all groups by their votes, where their own means are not kept; None where they are.
    """

    groups: tuple[GroupMean, ...]
    excluded: tuple[tuple[str, str], ...]
    records: tuple[GroupRecord, ...] = ()
    vanished: tuple[str, ...] = ()
    counts: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.empty(0, dtype=np.int64), repr=False, compare=False
    )
    cost: ExchangeCost = ExchangeCost()
    bad: int = 0
    mean: Vector | None = field(default=None, repr=False, compare=False)


class GroupMeans:
    """Takes a round's group means as they come: keeps each, or adds it up with the others and keeps none.

    Args:
        running: What adds them up; None: each is kept, for a rule that compares them.
    """

    def __init__(self, running: RunningMean | None) -> None:
        self._running = running
        self._groups: list[GroupMean] = []

    def take(self, group: GroupMean) -> None:
        """The next one, with its mean; in any order."""
        assert group.mean is not None
        if self._running is not None:
            self._running.add(group.mean, group.votes)
            group = GroupMean(group.members, None, group.votes)
        self._groups.append(group)

    @property
    def groups(self) -> tuple[GroupMean, ...]:
        """All of them, in the order of their members."""
        return tuple(sorted(self._groups, key=_members_of))

    @property
    def mean(self) -> Vector | None:
        """See :class:`Collected`."""
        return self._running.result() if self._running is not None and self._groups else None


def _members_of(group: GroupMean) -> tuple[str, ...]:
    return group.members


class Transport(Protocol):
    """Carries messages to clients and back; knows nothing of what they mean."""

    def deliver(
        self, requests: Mapping[str, Message], *, deadline_seconds: float, enough: Callable[[], bool] | None = None
    ) -> Iterator[tuple[str, Message | str]]:
        """Send each client its request; give back each reply as it arrives, or in words why there is none.

        Args:
            requests: Client id -> its request.
            deadline_seconds: Replies after this are not waited for.
            enough: Asked after each reply; once it says so, what has arrived is given back and nothing waited for.
        """


class RoundLog(Protocol):
    """What an exchange tells the audit log while an attempt is under way."""

    def groups_drawn(self, coin: bytes, groups: tuple[tuple[str, ...], ...]) -> None:
        """Before any member learns its group: log the groups, and show the log to the members.

        Args:
            coin: 32 bytes.
            groups: Members of each, in the order that the coin gives them.
        """

    def received(self, client: str, statement: str | None) -> str | None:
        """When an update has arrived: take the owner's signed contribution.

        Returns:
            In words, why the update cannot count; None if it can.
        """

    def all_received(self) -> None:
        """Before a sum of them is opened, or given back: log the contributions taken since the last time.

        The disk has them on return.
        """


class _NoLog:
    """Of a plan without a log."""

    def groups_drawn(self, coin: bytes, groups: tuple[tuple[str, ...], ...]) -> None:
        """Log nothing."""

    def received(self, client: str, statement: str | None) -> str | None:
        """Ask for nothing."""
        del client, statement
        return None

    def all_received(self) -> None:
        """Log nothing."""


NO_LOG: RoundLog = _NoLog()


class Exchange(Protocol):
    """Turns one request to a cohort into group means.

    Attributes:
        max_attempts: How often one round may be begun.
    """

    max_attempts: int

    def group_means(self, request: TrainRequest, cohort: tuple[str, ...], log: RoundLog = NO_LOG) -> Collected:
        """Ask every client of ``cohort``; bad or missing replies are set aside one by one, never fatal.

        Raises:
            AuditError: The log cannot be written.
        """


NO_REPLY = "no reply before the deadline"
FAILED_ON_THE_WAY = "Flower error"
NOT_SIGNED = "reply not signed by"
REFUSED = "refused"
NOT_ENROLLED = "not on the roster"
NOT_OPENED = "its group was not opened"
"""How the sentences begin that say why an update is in no group; every other one is about the update itself."""


class PlainExchange:
    """Every client a group of one. Over TLS nobody but the server sees an update; the server sees each.

    Args:
        transport: To the clients.
        deadline_seconds: A reply after this is not waited for.
        max_norm: S, to which an honest client clips; what is longer is set aside.
        sum_only: Whether updates are added up as they come and not kept: for a rule that compares none.
    """

    max_attempts = 1

    def __init__(
        self, transport: Transport, *, deadline_seconds: float, max_norm: float, sum_only: bool = False
    ) -> None:
        self._transport = transport
        self._deadline_seconds = deadline_seconds
        self._max_norm = max_norm
        self._sum_only = sum_only

    def group_means(self, request: TrainRequest, cohort: tuple[str, ...], log: RoundLog = NO_LOG) -> Collected:
        """See :class:`Exchange`."""
        reach = len(cohort) * self._max_norm * (1 + _NORM_TOLERANCE)
        means = GroupMeans(RunningMean(len(request.model), reach) if self._sum_only else None)
        missing = dict.fromkeys(cohort, NO_REPLY)
        waiting, bad, received = set(cohort), 0, 0
        asked = dict.fromkeys(cohort, request)
        for client, reply in self._transport.deliver(asked, deadline_seconds=self._deadline_seconds):
            if client not in waiting:
                continue
            waiting.remove(client)
            received += 0 if isinstance(reply, str) else encode(reply).size_bytes
            unsigned = log.received(client, reply.statement) if isinstance(reply, TrainReply) else None
            fault = fault_of_reply(reply, request, self._max_norm)
            bad += isinstance(reply, TrainReply) and fault is not None
            if reason := fault or unsigned:
                missing[client] = reason
                continue
            assert isinstance(reply, TrainReply)
            means.take(GroupMean((client,), reply.update))
            del missing[client]
        log.all_received()
        cost = ExchangeCost(len(cohort) * encode(request).size_bytes, received)
        return Collected(means.groups, tuple(missing.items()), cost=cost, bad=bad, mean=means.mean)


_NORM_TOLERANCE = 1e-5  # of float32, after clipping


def fault_of_reply(reply: Message | str, request: TrainRequest, max_norm: float) -> str | None:
    """Why ``reply`` is not a usable answer to ``request``, or None if it is one; ``max_norm`` is S."""
    match reply:
        case str():
            return reply
        case Refusal(reason=reason):
            return f"{REFUSED}: {reason.value}"
        case TrainReply():
            named = (reply.plan_digest, reply.round, reply.attempt, reply.model_digest)
            if named != (request.plan_digest, request.round, request.attempt, request.model_digest):
                return "answered another request"
            return _fault_of_update(reply.update, len(request.model), max_norm)
        case _:
            return "not a reply"


def _fault_of_update(update: Vector, size: int, max_norm: float) -> str | None:
    if fault := fault_of_vector(update, size):
        return f"update {fault}"
    if float(np.linalg.norm(update.astype(np.float64))) > max_norm * (1 + _NORM_TOLERANCE):
        return "update longer than the plan allows"
    return None
