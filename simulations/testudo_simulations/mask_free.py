"""Secure aggregation without its masks, for simulations of very many clients: the same integers, and no secrecy.

Everything that changes a number stays: clipping, quantisation, the groups that the coin draws, sums modulo 2^32, the
checks of opened sums, and the noise where sums have it. What goes is what cancels: keys, shares and masks. A test holds
that both give the same bits. It cannot be switched on outside simulations: no plan, server or client of a real
federation has a word for it, and a real client's participant never sends a vector unmasked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from testudo_client.participant import Participant
from testudo_common.errors import ProtocolError
from testudo_common.plan import FederationPlan
from testudo_common.roster import Roster
from testudo_common.secagg.bindings import commitments_digest
from testudo_common.secagg.graph import graph_of
from testudo_common.secagg.groups import commitment_to, draw_coin, partition
from testudo_common.secagg.masking import Words
from testudo_common.secagg.messages import MESSAGES, CommitmentEntry, MaskedInput
from testudo_common.secagg.noise import SumNoise
from testudo_common.secagg.primitives import random_secret
from testudo_common.secagg.quantize import decode
from testudo_common.secagg.terms import Terms
from testudo_common.secure_terms import attempt_of, terms_of
from testudo_common.wire import Refusal, RefusalReason, SecureMessage, TrainReply, TrainRequest
from testudo_common.wire import encode as encode_message
from testudo_server.exchange import (
    NO_LOG,
    NO_REPLY,
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
from testudo_server.secure_exchange import means_for


class MaskFreeParticipant(Participant):
    """A simulated client that answers training with its quantised vector in clear."""

    def _secure_side(self, _membership: object) -> None:
        """It has no side of its own in a protocol that is left out."""

    def _trained(self, request: TrainRequest) -> TrainReply | SecureMessage | Refusal:
        """What would be masked."""
        update = self._update_for(request)
        if isinstance(update, RefusalReason):
            return self._refuse(request, update)
        terms = terms_of(self.plan, NO_ROSTER, attempt_of(request), len(update))
        counts = self._counts_for(request)
        self._gate.charge_sum(request.round, request.attempt)
        _, vector = self._encoded(terms, _smallest_group(self.plan), counts)
        body = MESSAGES.encode(MaskedInput())
        return self._with_statement(SecureMessage(self.plan_digest, request.round, request.attempt, body, vector))


NO_ROSTER = Roster("simulation", {})
"""Of a federation in which nobody signs anything: without masks and a log there is no use for keys."""


def _smallest_group(plan: FederationPlan) -> int:
    """Members of the smallest group of a full cohort. A client that does not know its group adds noise for this one."""
    cohort = plan.rounds.cohort_size
    return cohort // max(1, cohort // plan.secure_aggregation.group_size)


def draw_groups(
    terms: Terms, nonces: Mapping[str, bytes], present: set[str]
) -> tuple[bytes, tuple[tuple[str, ...], ...]]:
    """The coin, and the groups that it draws, when all in ``nonces`` commit and those in ``present`` reveal theirs."""
    entries = tuple(
        CommitmentEntry(client, commitment_to(nonces[client], terms.round_context, client)) for client in sorted(nonces)
    )
    revealed = [(client, nonces[client]) for client in sorted(present)]
    coin = draw_coin(terms.round_context, commitments_digest(entries), revealed)
    return coin, partition(coin, [client for client, _ in revealed], terms.parameters.group_size)


class MaskFreeExchange:
    """The secure exchange's group means from vectors in clear.

    The clients are asked group by group, and a group is opened as soon as all of it have answered: where replies come
    in the order of the requests, as in one process, one group's sum is held at a time.

    Args:
        transport: To clients that are :class:`MaskFreeParticipant`.
        plan: Complete.
        roster: Of all clients, where they have keys.
        nonce: Makes each client's nonce of the coin, 32 bytes.
        sum_only: See :class:`testudo_server.secure_exchange.SecureExchange`.
    """

    def __init__(
        self,
        transport: Transport,
        plan: FederationPlan,
        roster: Roster = NO_ROSTER,
        nonce: Callable[[], bytes] = random_secret,
        *,
        sum_only: bool | None = None,
    ) -> None:
        self._transport = transport
        self._plan = plan
        self._roster = roster
        self._nonce = nonce
        self._sum_only = needs_sum_only(plan) if sum_only is None else sum_only
        self.max_attempts = plan.secure_aggregation.max_attempts

    def group_means(self, request: TrainRequest, cohort: tuple[str, ...], log: RoundLog = NO_LOG) -> Collected:
        """See :class:`testudo_server.exchange.Exchange`. Who does not answer has dropped out before masking."""
        terms = terms_of(self._plan, self._roster, attempt_of(request), len(request.model))
        coin, names = draw_groups(terms, {client: self._nonce() for client in cohort}, set(cohort))
        groups = [_Group(members, set(members)) for members in names]
        group_of = {client: group for group in groups for client in group.members}
        means = means_for(terms, len(groups), self._sum_only)
        share = terms.parameters.noise_share(_smallest_group(self._plan))
        silent = dict.fromkeys(cohort, NO_REPLY)
        bytes_up, cpu = 0, 0.0
        requests = dict.fromkeys(group_of, request)
        for client, reply in self._transport.deliver(requests, deadline_seconds=self._plan.rounds.deadline_seconds):
            group = group_of[client]
            masked: Words | None = None
            if not isinstance(reply, SecureMessage) or reply.masked is None:
                silent[client] = f"{REFUSED}: {reply.reason.value}" if isinstance(reply, Refusal) else str(reply)
            else:
                bytes_up += encode_message(reply).size_bytes
                if unsigned := log.received(client, reply.statement):
                    silent[client] = unsigned
                else:
                    del silent[client]
                    masked = reply.masked
            started = time.process_time()
            group.take(client, masked)
            if not group.awaited:
                group.open(terms, share, means)
            cpu += time.process_time() - started
        log.groups_drawn(coin, names)  # after the replies, since nobody here waits for its group to mask
        log.all_received()
        started = time.process_time()
        for group in groups:
            if group.awaited:
                group.open(terms, share, means)
        cost = ExchangeCost(
            len(cohort) * encode_message(request).size_bytes, bytes_up, cpu + time.process_time() - started
        )
        summed = {client for mean in means.groups for client in mean.members}
        return Collected(
            groups=means.groups,
            excluded=tuple((client, silent.get(client, NOT_OPENED)) for client in cohort if client not in summed),
            records=tuple(group.record for group in groups if group.record is not None),
            counts=sum(
                (group.counts for group in groups if group.counts is not None),
                np.zeros(len(terms.parameters.layout.count_bounds), np.int64),
            ),
            cost=cost,
            bad=sum(group.record.blamed for group in groups if group.record is not None),
            mean=means.mean,
        )


@dataclass(slots=True)
class _Group:
    """A group on its way.

    Attributes:
        members: In the order that the coin gave them.
        awaited: Who has not answered yet.
        survivors: Whose vectors are in the total.
        total: Of the vectors so far; None before the first, and once it was opened.
        counts: ``int64[k]``, of an opened sum.
        record: What became of it, once it was opened, or could not be.
    """

    members: tuple[str, ...]
    awaited: set[str]
    survivors: set[str] = field(default_factory=set)
    total: Words | None = None
    counts: npt.NDArray[np.int64] | None = None
    record: GroupRecord | None = None

    def take(self, client: str, vector: Words | None) -> None:
        """A member's answer; None: it is of no use."""
        self.awaited.discard(client)
        if vector is None:
            return
        self.survivors.add(client)
        if self.total is None:
            self.total = vector.copy()
        else:
            np.add(self.total, vector, out=self.total)

    def open(self, terms: Terms, share: SumNoise | None, means: GroupMeans) -> None:
        """Decode the sum, hand its mean on, and let go of both."""
        members, survivors = tuple(sorted(self.members)), tuple(sorted(self.survivors))
        total, self.total = self.total, None
        if total is None or not _can_be_opened(terms, self.members, self.survivors):
            self.record = GroupRecord(terms.attempt, members, (), "too_few")
            return
        try:
            opened = decode(terms.parameters.layout, total, len(survivors), share)
        except ProtocolError as error:
            self.record = GroupRecord(terms.attempt, members, (), error.breach.value, blamed=True)
            return
        means.take(GroupMean(survivors, opened.mean, opened.weight))
        self.counts, self.record = opened.counts, GroupRecord(terms.attempt, members, survivors)


def _can_be_opened(terms: Terms, group: tuple[str, ...], survivors: set[str]) -> bool:
    """Whether the real protocol could: there are ``min_group`` survivors, and enough hold shares of each secret."""
    graph = graph_of(len(group), terms.parameters.corruption, terms.parameters.dropout)
    there = [name in survivors for name in group]
    return sum(there) >= terms.parameters.least_survivors(len(group)) and all(
        sum(there[holder] for holder in graph.holders(place)) >= graph.threshold for place in range(len(group))
    )
