"""The secure exchange: group means of which the server has seen nothing but each group's sum.

Carries the steps of testudo_common.secagg to the clients and back, with a deadline for each; all groups go through a
step together. Whoever does not answer, or breaks a rule, is set aside as a dropout; a group that cannot be opened, or
whose opened sum is not what honest clients can have sent, is left out, and the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from testudo_common.errors import Breach, PeerError, ProtocolError
from testudo_common.plan import FederationPlan
from testudo_common.roster import Roster
from testudo_common.secagg import server as protocol
from testudo_common.secagg.messages import (
    MESSAGES,
    Advertisement,
    Commitment,
    Confirmation,
    Confirmations,
    Deliveries,
    MaskedInput,
    SharedKeys,
    SurvivorSet,
    ToClient,
    UnmaskingShares,
)
from testudo_common.secagg.quantize import RING_BITS, decode
from testudo_common.secagg.terms import Member, Terms
from testudo_common.secure_terms import attempt_of, terms_of
from testudo_common.wire import Message, Refusal, RefusalReason, SecureMessage, TrainRequest, encode
from testudo_server.exchange import (
    NO_LOG,
    NO_REPLY,
    NOT_ENROLLED,
    NOT_OPENED,
    REFUSED,
    Collected,
    ExchangeCost,
    GroupMean,
    GroupMeans,
    GroupRecord,
    RoundLog,
    Transport,
)
from testudo_server.robust import needs_sum_only
from testudo_server.running_mean import RunningMean

T = TypeVar("T")
CHEATING = frozenset({Breach.RANGE, Breach.NORM, Breach.SHARE})
"""What only a member's fault brings about; anything else may be bad luck."""


@dataclass(slots=True)
class _Group:
    """One group on its way: the protocol's state of it, or what ended it."""

    members: tuple[Member, ...]
    state: Any
    fault: ProtocolError | None = None
    counts: npt.NDArray[np.int64] | None = None
    survivors: tuple[str, ...] = ()
    disputes: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(member.client_id for member in self.members)


@dataclass(slots=True)
class _Talk:
    """One attempt's conversation with the clients: who fell silent and why, and what it cost."""

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


class SecureExchange:
    """Groups of clients whose sums alone are opened.

    Args:
        transport: To the clients.
        plan: Complete.
        roster: Whose signatures count.
        sum_only: Whether group means are added up as they are opened and not kept; None: where the plan's rule compares
            none.

    Raises:
        ProtocolError: The plan's numbers do not fit together.
    """

    def __init__(
        self, transport: Transport, plan: FederationPlan, roster: Roster, *, sum_only: bool | None = None
    ) -> None:
        self._transport = transport
        self._plan = plan
        self._roster = roster
        self._sum_only = needs_sum_only(plan) if sum_only is None else sum_only
        self._cpu_seconds = 0.0
        self.max_attempts = plan.secure_aggregation.max_attempts

    def group_means(self, request: TrainRequest, cohort: tuple[str, ...], log: RoundLog = NO_LOG) -> Collected:
        """See :class:`testudo_server.exchange.Exchange`."""
        self._cpu_seconds = 0.0
        talk = _Talk(self._transport, request, log, self._plan.secure_aggregation.step_deadline_seconds)
        terms = terms_of(self._plan, self._roster, attempt_of(request), len(request.model))
        groups: list[_Group] = []
        trouble: ProtocolError | None = None
        means = GroupMeans(None)
        try:
            groups, shared = self._draw_groups(talk, terms, cohort)
            means = means_for(terms, len(groups), self._sum_only)
            survivors = self._mask(talk, terms, groups, shared)
            self._unmask(talk, terms, groups, survivors, means)
        except ProtocolError as error:  # of the cohort as a whole, before there were groups
            trouble = error
        return self._collected(talk, cohort, groups, means, trouble)

    def _draw_groups(
        self, talk: _Talk, terms: Terms, cohort: tuple[str, ...]
    ) -> tuple[list[_Group], dict[str, SharedKeys]]:
        """Steps 0 to 2: who takes part, in which groups, and the shares that they sent.

        Raises:
            ProtocolError: Too few are there, or too many left once the groups could be known.
        """
        known = tuple(client for client in cohort if client in self._roster.members)
        talk.silent.update({client: NOT_ENROLLED for client in cohort if client not in known})
        commitments = talk.train(known, self._plan.rounds.deadline_seconds)
        with self._timed():
            state, listed = protocol.begin(terms, commitments)
        advertisements = talk.step(dict.fromkeys(commitments, listed), Advertisement)
        talk.vanished = tuple(sorted(set(commitments) - set(advertisements)))
        try:
            with self._timed():
                drawn, directory, faults = protocol.gather(terms, state, advertisements)
        except ProtocolError as error:
            talk.set_aside(error.peers)
            talk.vanished = tuple(sorted({*talk.vanished, *(peer.client_id for peer in error.peers)}))
            raise
        talk.set_aside(faults)
        groups = [_Group(sharing.members, sharing) for sharing in drawn]
        talk.log.groups_drawn(protocol.coin_of(terms, state, directory), tuple(group.names for group in groups))
        return groups, talk.step({name: directory for group in groups for name in group.names}, SharedKeys)

    def _mask(
        self, talk: _Talk, terms: Terms, groups: list[_Group], shared: Mapping[str, SharedKeys]
    ) -> dict[str, SurvivorSet]:
        """Step 3: the masked inputs, added up as they arrive; the survivors of each group."""
        deliveries: dict[str, Deliveries] = {}
        group_of: dict[str, _Group] = {}
        survivors: dict[str, SurvivorSet] = {}

        def share(group: _Group) -> None:
            group.state, own, faults = protocol.share(terms, group.state, shared)
            talk.set_aside(faults)
            deliveries.update(own)
            group_of.update(dict.fromkeys(own, group))

        def close(group: _Group) -> None:
            group.state, message = protocol.close_masking(terms, group.state)
            survivors.update({group.names[position]: message for position in message.survivors})

        self._advance(groups, share)
        for client, _, reply in talk.stream(deliveries, MaskedInput):
            if unsigned := talk.log.received(client, reply.statement):
                talk.silent[client] = unsigned
                continue
            try:
                with self._timed():
                    group_of[client].state = protocol.accept(group_of[client].state, client, reply.masked)
            except PeerError as fault:
                talk.set_aside([fault])
        talk.log.all_received()
        self._advance(groups, close)
        return survivors

    def _unmask(
        self,
        talk: _Talk,
        terms: Terms,
        groups: list[_Group],
        survivors: Mapping[str, SurvivorSet],
        means: GroupMeans,
    ) -> None:
        """Steps 4 and 5: everybody confirms the survivors, the masks go, and what is left is judged."""
        confirmed = talk.step(survivors, Confirmation)
        confirmations: dict[str, Confirmations] = {}

        def confirm(group: _Group) -> None:
            group.state, own = protocol.confirm(terms, group.state, confirmed)
            confirmations.update(own)

        def open_sum(group: _Group) -> None:
            found = protocol.open_sum(terms, group.state, shares)
            talk.set_aside(found.faults)
            group.disputes = found.disputes
            talk.silent.update(dict.fromkeys(found.liars, "its shares of others' secrets were wrong"))
            share = terms.parameters.noise_share(len(group.members))
            opened = decode(terms.parameters.layout, found.total, len(found.survivors), share)
            means.take(GroupMean(found.survivors, opened.mean, opened.weight))
            group.survivors, group.counts, group.state = found.survivors, opened.counts, None

        self._advance(groups, confirm)
        shares = talk.step(confirmations, UnmaskingShares)
        self._advance(groups, open_sum)

    def _advance(self, groups: list[_Group], step: Callable[[_Group], None]) -> None:
        """A step of each group that has not ended; a fault ends that group only."""
        for group in groups:
            if group.fault is not None:
                continue
            try:
                with self._timed():
                    step(group)
            except ProtocolError as fault:
                group.fault = fault

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.process_time()
        try:
            yield
        finally:
            self._cpu_seconds += time.process_time() - started

    def _collected(
        self,
        talk: _Talk,
        cohort: tuple[str, ...],
        groups: list[_Group],
        means: GroupMeans,
        trouble: ProtocolError | None,
    ) -> Collected:
        counts = [group.counts for group in groups if group.counts is not None]
        records = tuple(_record_of(talk, group) for group in groups)
        summed = {name for group in means.groups for name in group.members}
        reasons = {name: str(group.fault.problem) for group in groups if group.fault for name in group.names}
        general = trouble.problem if trouble is not None else "it is in no group"
        return Collected(
            groups=means.groups,
            excluded=tuple(
                (client, talk.silent.get(client) or f"{NOT_OPENED}: {reasons.get(client, general)}")
                for client in cohort
                if client not in summed
            ),
            records=records,
            counts=np.sum(counts, axis=0, dtype=np.int64) if counts else np.empty(0, dtype=np.int64),
            vanished=talk.vanished,
            cost=ExchangeCost(talk.bytes_down, talk.bytes_up, self._cpu_seconds),
            bad=sum(record.blamed for record in records),
            mean=means.mean,
        )


def means_for(terms: Terms, groups: int, sum_only: bool) -> GroupMeans:
    """What takes the means of ``groups`` groups.

    Args:
        terms: Of the attempt. What an opened sum says is in steps of its layout, each number of 32 bits with its sign.
        groups: How many.
        sum_only: See :class:`SecureExchange`.
    """
    layout = terms.parameters.layout
    reach = groups * 2.0 ** (RING_BITS - 1) / layout.scale
    return GroupMeans(RunningMean(layout.values, reach) if sum_only else None)


def _record_of(talk: _Talk, group: _Group) -> GroupRecord:
    members = tuple(sorted(group.names))
    if group.fault is None:
        return GroupRecord(talk.request.attempt, members, group.survivors, disputes=group.disputes)
    blamed = group.fault.breach in CHEATING or not talk.broken.isdisjoint(members)
    return GroupRecord(talk.request.attempt, members, (), group.fault.breach.value, blamed, group.disputes)
