"""Secure aggregation without its masks, for simulations of very many clients: the same integers, and no secrecy.

Everything that changes a number stays: clipping, quantisation, the groups that the coin draws, sums modulo 2^32, the
checks of opened sums, and the noise where sums have it. What goes is what cancels: keys, shares and masks. A test holds
that both give the same bits. It cannot be switched on outside simulations: no plan, server or client of a real
federation has a word for it, and a real client's participant never sends a vector unmasked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

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
    GroupRecord,
    RoundLog,
    Transport,
)


class MaskFreeParticipant(Participant):
    """A simulated client that answers training with its quantised vector in clear."""

    def _secure_side(self, _membership: object) -> None:
        """It has no side of its own in a protocol that is left out."""

    def _trained(self, request: TrainRequest) -> TrainReply | SecureMessage | Refusal:
        """What would be masked."""
        update = self._update_for(request)
        if isinstance(update, RefusalReason):
            return self._refuse(request, update)
        terms = terms_of(self.plan, _NO_ROSTER, attempt_of(request), len(update))
        counts = self._counts_for(request)
        self._gate.charge_sum(request.round, request.attempt)
        _, vector = self._encoded(terms, _smallest_group(self.plan), counts)
        body = MESSAGES.encode(MaskedInput())
        return self._with_statement(SecureMessage(self.plan_digest, request.round, request.attempt, body, vector))


_NO_ROSTER = Roster("simulation", {})


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

    Args:
        transport: To clients that are :class:`MaskFreeParticipant`.
        plan: Complete.
        roster: Of all clients.
        nonce: Makes each client's nonce of the coin, 32 bytes.
    """

    def __init__(
        self, transport: Transport, plan: FederationPlan, roster: Roster, nonce: Callable[[], bytes] = random_secret
    ) -> None:
        self._transport = transport
        self._plan = plan
        self._roster = roster
        self._nonce = nonce
        self.max_attempts = plan.secure_aggregation.max_attempts

    def group_means(self, request: TrainRequest, cohort: tuple[str, ...], log: RoundLog = NO_LOG) -> Collected:
        """See :class:`testudo_server.exchange.Exchange`. Who does not answer has dropped out before masking."""
        terms = terms_of(self._plan, self._roster, attempt_of(request), len(request.model))
        coin, groups = draw_groups(terms, {client: self._nonce() for client in cohort}, set(cohort))
        group_of = {client: index for index, group in enumerate(groups) for client in group}
        totals: dict[int, Words] = {}
        survivors: dict[int, list[str]] = {index: [] for index in range(len(groups))}
        silent = dict.fromkeys(cohort, NO_REPLY)
        bytes_up, cpu = 0, 0.0
        requests = dict.fromkeys(cohort, request)
        for client, reply in self._transport.deliver(requests, deadline_seconds=self._plan.rounds.deadline_seconds):
            if not isinstance(reply, SecureMessage) or reply.masked is None:
                silent[client] = f"{REFUSED}: {reply.reason.value}" if isinstance(reply, Refusal) else str(reply)
                continue
            bytes_up += encode_message(reply).size_bytes
            if unsigned := log.received(client, reply.statement):
                silent[client] = unsigned
                continue
            started = time.process_time()
            group = group_of[client]
            if group in totals:
                np.add(totals[group], reply.masked, out=totals[group])
            else:
                totals[group] = reply.masked.copy()
            survivors[group].append(client)
            del silent[client]
            cpu += time.process_time() - started
        log.groups_drawn(coin, groups)  # after the replies, since nobody here waits for its group to mask
        log.all_received()
        started = time.process_time()
        share = terms.parameters.noise_share(_smallest_group(self._plan))
        found = [_open(terms, share, group, totals.get(i), sorted(survivors[i])) for i, group in enumerate(groups)]
        cost = ExchangeCost(
            len(cohort) * encode_message(request).size_bytes, bytes_up, cpu + time.process_time() - started
        )
        opened = [(mean, counts) for mean, counts, _ in found if mean is not None]
        summed = {client for mean, _ in opened for client in mean.members}
        return Collected(
            groups=tuple(sorted((mean for mean, _ in opened), key=lambda mean: mean.members)),
            excluded=tuple((client, silent.get(client, NOT_OPENED)) for client in cohort if client not in summed),
            records=tuple(record for _, _, record in found),
            counts=sum((counts for _, counts in opened), np.zeros(len(terms.parameters.layout.count_bounds), np.int64)),
            cost=cost,
            bad=sum(record.blamed for _, _, record in found),
        )


def _open(
    terms: Terms, share: SumNoise | None, group: tuple[str, ...], total: Words | None, survivors: list[str]
) -> tuple[GroupMean | None, np.ndarray[tuple[int], np.dtype[np.int64]], GroupRecord]:
    members, nothing = tuple(sorted(group)), np.empty(0, dtype=np.int64)
    if total is None or not _can_be_opened(terms, group, set(survivors)):
        return None, nothing, GroupRecord(terms.attempt, members, (), "too_few")
    try:
        opened = decode(terms.parameters.layout, total, len(survivors), share)
    except ProtocolError as error:
        return None, nothing, GroupRecord(terms.attempt, members, (), error.breach.value, blamed=True)
    return (
        GroupMean(tuple(survivors), opened.mean, opened.weight),
        opened.counts,
        GroupRecord(terms.attempt, members, tuple(survivors)),
    )


def _can_be_opened(terms: Terms, group: tuple[str, ...], survivors: set[str]) -> bool:
    """Whether the real protocol could: there are ``min_group`` survivors, and enough hold shares of each secret."""
    graph = graph_of(len(group), terms.parameters.corruption, terms.parameters.dropout)
    there = [name in survivors for name in group]
    return sum(there) >= terms.parameters.least_survivors(len(group)) and all(
        sum(there[holder] for holder in graph.holders(place)) >= graph.threshold for place in range(len(group))
    )
