"""A round of secure aggregation played once, so that each side's part in it can be done again and timed or weighed.

Steps are functions of states and messages: nothing is delivered, and no state is saved between steps.
"""

from __future__ import annotations

import hashlib
import math
import os
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from unittest import mock

import numpy as np
import numpy.typing as npt

from testudo_common.secagg import client, client_checks, quantize, server
from testudo_common.secagg.client import ClientState, Identity, Shared
from testudo_common.secagg.graph import Graph, graph_of
from testudo_common.secagg.masking import Words
from testudo_common.secagg.messages import MESSAGES
from testudo_common.secagg.primitives import verification_key
from testudo_common.secagg.quantize import Contribution, Layout
from testudo_common.secagg.server import Sum
from testudo_common.secagg.terms import LEAST_MIN_GROUP, Parameters, Terms
from testudo_simulations.benchmarks.measure import Measurement

_VALUE_BITS = 16
_CORRUPTION = 0.05


class Clients(Protocol):
    """A cohort as the server meets it."""

    def answers(self, sent: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Client id -> its reply to what it was sent; an empty message opens the round."""

    def inputs(self) -> Iterator[tuple[str, Words]]:
        """Who sends a masked input, and that: ``uint32[size]``, one at a time."""


def serve(terms: Terms, clients: Clients) -> Sum:
    """All of the server's part in a round of one group, from bytes to bytes."""

    def ask(sent: Mapping[str, bytes]) -> dict[str, Any]:
        return {name: MESSAGES.decode(reply) for name, reply in clients.answers(sent).items()}

    # What is done with is let go: each name holds one step's only.
    state: Any
    told: Any
    replies = ask(dict.fromkeys(terms.roster, b""))
    state, told = server.begin(terms, replies)
    replies = ask(dict.fromkeys(replies, MESSAGES.encode(told)))
    (state,), told, _ = server.gather(terms, state, replies)
    replies = ask(dict.fromkeys(replies, MESSAGES.encode(told)))
    state, told, _ = server.share(terms, state, replies)
    replies = ask({name: MESSAGES.encode(message) for name, message in told.items()})
    told = None
    for name, vector in clients.inputs():
        state = server.accept(state, name, vector)
    state, told = server.close_masking(terms, state)
    replies = ask(dict.fromkeys(replies, MESSAGES.encode(told)))
    state, told = server.confirm(terms, state, replies)
    replies = ask({name: MESSAGES.encode(message) for name, message in told.items()})
    return server.open_sum(terms, state, replies)


@dataclass(slots=True)
class Played:
    """A round of one group as it was played, so that either side's part in it can be done again.

    Attributes:
        terms: Everybody's; the roster is the cohort, and its first client the one that is measured.
        update: ``float32[d]``, the measured client's.
        dropped: How many members shared their keys and sent no masked input.
        plain_sum: ``uint32[d]``, of the survivors' vectors.
        replies: What the clients answered, step by step: client id -> bytes.
        inputs: Client id -> how to come by its masked input.
        steps: The measured client's states, and what it was sent, step by step.
    """

    terms: Terms
    update: npt.NDArray[np.float32]
    dropped: int
    plain_sum: Words
    replies: list[dict[str, bytes]] = field(default_factory=list)
    inputs: dict[str, Callable[[], Words]] = field(default_factory=dict)
    steps: list[tuple[ClientState, bytes]] = field(default_factory=list)

    def case(self, side: str) -> str:
        """What one side's part is called."""
        lost = f", {self.dropped} dropped" if self.dropped else ""
        return f"{side}, {len(self.terms.roster)} members{lost}, {len(self.update):,} coordinates"

    def client_part(self) -> None:
        """All that a client does, from its update to its last reply."""
        me = _identity(next(iter(self.terms.roster)))
        vector = quantize.encode(self.terms.parameters.layout, Contribution(self.update), os.urandom(32))
        MESSAGES.encode(client.commit(self.terms, me)[1].message)
        for state, sent in self.steps:
            MESSAGES.encode(client.step(self.terms, me, state, MESSAGES.decode(sent), vector)[1].message)

    def server_part(self) -> Sum:
        """All that the server does, to the open sum."""
        return serve(self.terms, _Replay(self))

    def server_part_to_the_mean(self) -> None:
        """The same, to the mean of the updates, where Flower's part ends."""
        found = self.server_part()
        quantize.decode(self.terms.parameters.layout, found.total, len(found.survivors))

    def check(self, found: Sum) -> None:
        """A benchmark of a wrong sum would say nothing."""
        assert found.survivors == tuple(sorted(self.inputs)) and not found.disputes and not found.faults
        assert len(found.survivors) == len(self.terms.roster) - self.dropped
        assert np.array_equal(found.total, self.plain_sum)

    def bytes_on_the_wire(self) -> list[Measurement]:
        """Of one client in a round, its update and the model included, which alone travel without protection."""
        name = next(iter(self.terms.roster))
        plain = 4 * len(self.update)
        up = plain + sum(len(replies[name]) for replies in self.replies)
        down = plain + sum(len(sent) for _, sent in self.steps)
        return [
            Measurement(self.case("client"), "bytes_up", "B", up, plain, "plain float32 update"),
            Measurement(self.case("client"), "bytes_down", "B", down, plain, "plain float32 model"),
        ]

    def client_peak_bytes(self) -> int:
        """While a client quantises and masks its update."""
        me = _identity(next(iter(self.terms.roster)))
        state, message = next((s, MESSAGES.decode(sent)) for s, sent in self.steps if isinstance(s, Shared))
        tracemalloc.start()
        vector = quantize.encode(self.terms.parameters.layout, Contribution(self.update), os.urandom(32))
        client.step(self.terms, me, state, message, vector)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    def server_peak_bytes(self) -> int:
        """Of the server from the first masked input to the open sum; making and holding that input does not count."""
        replay = _Replay(self)
        tracemalloc.start()
        found = serve(self.terms, replay)
        peak = max(replay.peak_bytes, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        self.check(found)
        return peak


class _Replay:
    """The clients' replies again. While memory is traced, it keeps the server's peak while masked inputs arrive."""

    def __init__(self, played: Played) -> None:
        self._inputs, self._replies = played.inputs, iter(played.replies)
        self.peak_bytes = 0

    def answers(self, sent: Mapping[str, bytes]) -> Mapping[str, bytes]:
        replies = next(self._replies)
        assert replies.keys() <= sent.keys()
        return replies

    def inputs(self) -> Iterator[tuple[str, Words]]:
        for name, made in self._inputs.items():
            vector = made()
            tracemalloc.reset_peak()  # what it took to make it is not the server's
            yield name, vector
            self.peak_bytes = max(self.peak_bytes, tracemalloc.get_traced_memory()[1])


class _Live:
    """Clients that play a round and write it down.

    Args:
        played: Where to; there is nothing in it yet.
        keep_inputs: Keep masked inputs; else each is made anew when it is asked for, all in one place.
    """

    def __init__(self, played: Played, *, keep_inputs: bool) -> None:
        self._played = played
        self._place = None if keep_inputs else np.empty_like(played.plain_sum)
        self._states: dict[str, ClientState] = {}
        names = list(played.terms.roster)
        self._measured, self._gone = names[0], set(names[len(names) - played.dropped :])

    def answers(self, sent: Mapping[str, bytes]) -> Mapping[str, bytes]:
        decoded: dict[bytes, Any] = {b"": None}  # what all are sent is decoded once for all
        replies: dict[str, bytes] = {}
        for name, data in sent.items():
            if name in self._gone and isinstance(self._states.get(name), Shared):
                continue
            if data not in decoded:
                decoded[data] = MESSAGES.decode(data)
            if name == self._measured and data:
                self._played.steps.append((self._states[name], data))
            replies[name] = self._reply(name, decoded[data])
        self._played.replies.append(replies)
        return replies

    def inputs(self) -> Iterator[tuple[str, Words]]:
        for name, made in self._played.inputs.items():
            yield name, made()

    def _reply(self, name: str, message: Any) -> bytes:
        played, me, state, vector = self._played, _identity(name), self._states.get(name), None
        if isinstance(state, Shared):
            vector = _plain_vector(played, name)
            played.plain_sum += vector
            played.inputs[name] = (
                _kept(vector) if self._place is None else _anew(played, name, state, message, self._place)
            )
        if state is None:
            self._states[name], reply = client.commit(played.terms, me)
        else:
            self._states[name], reply = client.step(played.terms, me, state, message, vector)
        return MESSAGES.encode(reply.message)


def _plain_vector(played: Played, name: str) -> Words:
    """All have the same update; how it is rounded differs."""
    rounding_key = hashlib.sha256(name.encode()).digest()
    return quantize.encode(played.terms.parameters.layout, Contribution(played.update), rounding_key)


def _kept(vector: Words) -> Callable[[], Words]:
    def made() -> Words:
        return vector

    return made


def _anew(played: Played, name: str, state: Shared, message: Any, place: Words) -> Callable[[], Words]:
    def made() -> Words:
        place[:] = _plain_vector(played, name)
        client.step(played.terms, _identity(name), state, message, place)
        return place

    return made


def play(members: int, size: int, *, dropped: int = 0, keep_inputs: bool = True) -> Played:
    """A round of one group; the last ``dropped`` members share their keys and send no masked input.

    While it is played, clients do not verify each other's signatures, which would be the square of their number; when
    a client's part is done again, it does. The sum that the server's part gives when it is done again is checked.
    """
    update = np.random.default_rng(0).standard_normal(size, dtype=np.float32)
    played = Played(_terms(members, size, dropped), update, dropped, np.zeros(size, dtype=np.uint32))

    def trusted(*_: object) -> None:
        """Nothing is checked."""

    with mock.patch.object(client_checks, "advertisements_are_signed", trusted):
        serve(played.terms, _Live(played, keep_inputs=keep_inputs))
    played.check(played.server_part())
    return played


def _identity(name: str) -> Identity:
    return Identity(name, hashlib.sha256(name.encode()).digest())


def _terms(members: int, size: int, dropped: int) -> Terms:
    """A plan that expects as many to drop out as will."""
    names = [f"owner-{number:04d}" for number in range(members)]
    return Terms(
        federation="benchmark",
        roster_digest=bytes(32),
        roster={name: verification_key(_identity(name).signing_key) for name in names},
        plan_digest=bytes(32),
        round_number=1,
        attempt=0,
        model_digest=bytes(32),
        parameters=Parameters(
            group_size=members,
            min_cohort=members,
            min_group=LEAST_MIN_GROUP,
            corruption=_CORRUPTION,
            dropout=dropped / members,
            max_left_out=0.0,
            layout=Layout(size, math.sqrt(size), _VALUE_BITS),
        ),
    )


def graph_for(members: int, dropped: int) -> Graph:
    """Who shares with whom among ``members`` of whom ``dropped`` will drop out."""
    return graph_of(members, _CORRUPTION, dropped / members)
