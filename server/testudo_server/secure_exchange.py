"""The secure exchange: group means of which the server has seen nothing but each group's sum.

Carries the steps of testudo_common.secagg to the clients and back, with a deadline for each. Up to the drawing of
groups the cohort goes through a step together; then as many groups do as there is memory for the sums of, mostly all
of them, and the others after them. Whoever does not answer, or breaks a rule, is set aside as a dropout; a group that
cannot be opened, or whose opened sum is not what honest clients can have sent, is left out, and the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from testudo_common.errors import Breach, PeerError, ProtocolError
from testudo_common.plan import FederationPlan
from testudo_common.roster import Roster
from testudo_common.secagg import server as protocol
from testudo_common.secagg.messages import (
    Advertisement,
    Confirmation,
    Confirmations,
    Deliveries,
    Directory,
    MaskedInput,
    SharedKeys,
    SurvivorSet,
    UnmaskingShares,
)
from testudo_common.secagg.quantize import RING_BITS, decode
from testudo_common.secagg.terms import Terms
from testudo_common.secure_terms import attempt_of, terms_of
from testudo_common.wire import TrainRequest
from testudo_server.exchange import (
    NO_LOG,
    NOT_ENROLLED,
    NOT_OPENED,
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
from testudo_server.secure_talk import Talk

MOST_SUM_BYTES = 1 << 26
"""Of the sums that are held at once."""
LEAST_AT_ONCE = 16
"""Groups that go together in any case: whoever has models so large has the memory, and nobody should wait for long."""
CHEATING = frozenset({Breach.RANGE, Breach.NORM, Breach.SHARE})
"""What only a member's fault brings about; anything else may be bad luck."""


@dataclass(slots=True)
class _Group:
    """One group on its way: the protocol's state of it, while there is one, and what became of it."""

    names: tuple[str, ...]
    state: Any
    fault: ProtocolError | None = None
    counts: npt.NDArray[np.int64] | None = None
    survivors: tuple[str, ...] = ()
    disputes: tuple[tuple[str, str], ...] = ()


class SecureExchange:
    """Groups of clients whose sums alone are opened.

    Args:
        transport: To the clients.
        plan: Complete.
        roster: Whose signatures count.
        sum_only: Whether group means are added up as they are opened and not kept; None: where the plan's rule compares
            none.
        at_once: Groups whose sums are held at a time; None: as many as fit, see :data:`MOST_SUM_BYTES`.

    Raises:
        ProtocolError: The plan's numbers do not fit together.
    """

    def __init__(
        self,
        transport: Transport,
        plan: FederationPlan,
        roster: Roster,
        *,
        sum_only: bool | None = None,
        at_once: int | None = None,
    ) -> None:
        self._at_once = at_once
        self._transport = transport
        self._plan = plan
        self._roster = roster
        self._sum_only = needs_sum_only(plan) if sum_only is None else sum_only
        self._cpu_seconds = 0.0
        self.max_attempts = plan.secure_aggregation.max_attempts

    def group_means(self, request: TrainRequest, cohort: tuple[str, ...], log: RoundLog = NO_LOG) -> Collected:
        """See :class:`testudo_server.exchange.Exchange`."""
        self._cpu_seconds = 0.0
        talk = Talk(self._transport, request, log, self._plan.secure_aggregation.step_deadline_seconds)
        terms = terms_of(self._plan, self._roster, attempt_of(request), len(request.model))
        try:
            groups, directory = self._draw_groups(talk, terms, cohort)
        except ProtocolError as error:  # of the cohort as a whole
            return self._collected(talk, cohort, [], GroupMeans(None), error)
        means = means_for(terms, len(groups), self._sum_only)
        at_once = self._at_once or max(LEAST_AT_ONCE, MOST_SUM_BYTES // (4 * terms.parameters.layout.size))
        for first in range(0, len(groups), at_once):
            wave = groups[first : first + at_once]
            shared = talk.step({name: directory for group in wave for name in group.names}, SharedKeys)
            survivors = self._mask(talk, terms, wave, shared)
            self._unmask(talk, terms, wave, survivors, means)
        return self._collected(talk, cohort, groups, means)

    def _draw_groups(self, talk: Talk, terms: Terms, cohort: tuple[str, ...]) -> tuple[list[_Group], Directory]:
        """Steps 0 and 1: who takes part, in which groups, and what they are told of each other.

        Raises:
            ProtocolError: Too few are there, or too many left once the groups could be known.
        """
        members = self._roster.members
        known = tuple(client for client in cohort if client in members)
        talk.silent.update({client: NOT_ENROLLED for client in cohort if client not in members})
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
        groups = [_Group(tuple(member.client_id for member in sharing.members), sharing) for sharing in drawn]
        talk.log.groups_drawn(protocol.coin_of(terms, state, directory), tuple(group.names for group in groups))
        return groups, directory

    def _mask(
        self, talk: Talk, terms: Terms, groups: list[_Group], shared: Mapping[str, SharedKeys]
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
        talk: Talk,
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
            share = terms.parameters.noise_share(len(group.names))
            opened = decode(terms.parameters.layout, found.total, len(found.survivors), share)
            means.take(GroupMean(found.survivors, opened.mean, opened.weight))
            group.survivors, group.counts = found.survivors, opened.counts

        self._advance(groups, confirm)
        shares = talk.step(confirmations, UnmaskingShares)
        self._advance(groups, open_sum)
        for group in groups:
            group.state = None  # and with it the sum

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
        talk: Talk,
        cohort: tuple[str, ...],
        groups: list[_Group],
        means: GroupMeans,
        trouble: ProtocolError | None = None,
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


def _record_of(talk: Talk, group: _Group) -> GroupRecord:
    members = tuple(sorted(group.names))
    if group.fault is None:
        return GroupRecord(talk.request.attempt, members, group.survivors, disputes=group.disputes)
    blamed = group.fault.breach in CHEATING or not talk.broken.isdisjoint(members)
    return GroupRecord(talk.request.attempt, members, (), group.fault.breach.value, blamed, group.disputes)
