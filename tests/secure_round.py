"""Clients and server of secure aggregation joined by a fake link: each step by hand, every message in reach.

A test drives a :class:`SecureRound` from step to step, and may change what is in ``sent`` (what clients said) or
in ``given`` (what each client is told) before the next step reads it. No tests in here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from testudo_common.errors import ProtocolError
from testudo_common.secagg import client, server
from testudo_common.secagg.client import CLIENT_STATES, ClientState, Identity
from testudo_common.secagg.masking import Words
from testudo_common.secagg.messages import MESSAGES, Reply
from testudo_common.secagg.primitives import verification_key
from testudo_common.secagg.quantize import Layout
from testudo_common.secagg.server import Sum
from testudo_common.secagg.terms import Parameters, Terms

Integers = npt.NDArray[np.uint32]


def identity_of(name: str) -> Identity:
    """A client whose key is made from its name."""
    return Identity(name, hashlib.sha256(name.encode()).digest())


def names_of(count: int) -> list[str]:
    """``count`` client ids."""
    return [f"owner-{number:03d}" for number in range(count)]


def terms_of(
    clients: Collection[str],
    *,
    size: int = 8,
    group_size: int | None = None,
    min_group: int = 3,
    min_cohort: int | None = None,
    corruption: float = 0.05,
    dropout: float = 0.05,
    max_left_out: float = 0.5,
    layout: Layout | None = None,
    **changed: Any,
) -> Terms:
    """Terms of a first round among ``clients``; one group unless ``group_size`` says otherwise."""
    parameters = Parameters(
        group_size=group_size or max(len(clients), min_group),
        min_cohort=min_cohort or min_group,
        min_group=min_group,
        corruption=corruption,
        dropout=dropout,
        max_left_out=max_left_out,
        layout=layout or Layout(size, 1.0, 16),
    )
    base: dict[str, Any] = {
        "federation": "test",
        "roster_digest": b"r" * 32,
        "roster": {name: verification_key(identity_of(name).signing_key) for name in clients},
        "plan_digest": b"p" * 32,
        "round_number": 1,
        "attempt": 0,
        "model_digest": b"m" * 32,
        "parameters": parameters,
    }
    return Terms(**{**base, **changed})


class SecureRound:
    """One attempt at one round, step by step.

    Args:
        terms: The server's, and every client's unless ``terms_seen_by`` says otherwise.
        vectors: Client id -> ``uint32[size]``; kept as it is, copies are masked.
        terms_seen_by: Client id -> what that client takes the terms to be.
        saved: Encode and decode every state and message on the way, as between processes.

    Attributes:
        states: Client id -> its state; a client that refused stays at the state before.
        refused: Client id -> why.
        sent: Client id -> the reply to the last step.
        given: Client id -> the message for the next step.
        groups: The server's state of each group, or the error that ended it.
        sums: The open sums.
    """

    def __init__(
        self,
        terms: Terms,
        vectors: Mapping[str, Integers],
        *,
        terms_seen_by: Mapping[str, Terms] | None = None,
        saved: bool = False,
    ) -> None:
        self.terms = terms
        self.vectors = dict(vectors)
        self.clients = sorted(vectors)
        self.saved = saved
        self._seen = dict(terms_seen_by or {})
        self.states: dict[str, ClientState] = {}
        self.refused: dict[str, ProtocolError] = {}
        self.sent: dict[str, Reply] = {}
        self.given: dict[str, Any] = {}
        self.cohort: Any = None
        self.groups: list[Any] = []
        self.sums: list[Sum | ProtocolError] = []
        self.faults: list[ProtocolError] = []

    def terms_of(self, name: str) -> Terms:
        return self._seen.get(name, self.terms)

    def commit(self, without: Collection[str] = ()) -> None:
        """Step 0 at the clients, and the list of commitments."""
        for name in self.clients:
            if name not in without:
                self.states[name], self.sent[name] = client.commit(self.terms_of(name), identity_of(name))
        self.cohort, listed = server.begin(self.terms, self._messages())
        self.given = dict.fromkeys(self.sent, listed)

    def advertise(self, without: Collection[str] = ()) -> None:
        """Step 1 at the clients, and the directory."""
        self._clients_step(without)
        self.groups, directory, faults = server.gather(self.terms, self.cohort, self._messages())  # type: ignore[assignment]
        self.groups = list(self.groups)
        self.faults += faults
        entries = {entry.client_id for entry in directory.entries}
        self.given = {name: directory for name in self.sent if name in entries}

    def share_keys(self, without: Collection[str] = ()) -> None:
        """Step 2 at the clients, and the deliveries."""
        self._clients_step(without)
        given: dict[str, Any] = {}

        def step(state: Any) -> Any:
            following, deliveries, faults = server.share(self.terms, state, self._messages())
            given.update(deliveries)
            self.faults += faults
            return following

        self._groups_step(step)
        self.given = given

    def mask(self, without: Collection[str] = ()) -> None:
        """Step 3 at the clients, and the survivor sets."""
        self._clients_step(without)
        given: dict[str, Any] = {}

        def step(state: Any) -> Any:
            for member in state.members:
                if (reply := self.sent.get(member.client_id)) is not None:
                    assert reply.vector is not None
                    state = server.accept(state, member.client_id, reply.vector)
            following, survivors = server.close_masking(self.terms, state)
            given.update({state.members[p].client_id: survivors for p in survivors.survivors})
            return following

        self._groups_step(step)
        self.given = given

    def confirm(self, without: Collection[str] = ()) -> None:
        """Step 4 at the clients, and the confirmations."""
        self._clients_step(without)
        given: dict[str, Any] = {}

        def step(state: Any) -> Any:
            following, confirmations = server.confirm(self.terms, state, self._messages())
            given.update(confirmations)
            return following

        self._groups_step(step)
        self.given = given

    def unmask(self, without: Collection[str] = ()) -> list[Sum | ProtocolError]:
        """Step 5 at the clients, and the sums."""
        self._clients_step(without)
        self._groups_step(lambda state: server.open_sum(self.terms, state, self._messages()))
        self.sums = self.groups
        return self.sums

    def run(self, dropouts: Mapping[str, Collection[str]] | None = None) -> list[Sum | ProtocolError]:
        """All steps; ``dropouts`` names who does not answer from the step of that name on."""
        gone: set[str] = set()
        for name in ("commit", "advertise", "share_keys", "mask", "confirm", "unmask"):
            gone |= set((dropouts or {}).get(name, ()))
            getattr(self, name)(gone)
        return self.sums

    def plain_sum(self, names: Collection[str]) -> Integers:
        """The sum that the survivors' vectors have without any protocol."""
        total = np.zeros(self.terms.parameters.layout.size, dtype=np.uint32)
        for name in names:
            total += self.vectors[name]
        return total

    def _messages(self) -> dict[str, Any]:
        return {name: self._carried(reply.message) for name, reply in self.sent.items()}

    def _carried(self, message: Any) -> Any:
        return MESSAGES.decode(MESSAGES.encode(message)) if self.saved else message

    def _clients_step(self, without: Collection[str]) -> None:
        self.sent = {}
        for name, message in self.given.items():
            if name in without:
                continue
            state = self.states[name]
            if self.saved:
                state = CLIENT_STATES.decode(CLIENT_STATES.encode(state))
            vector: Words | None = self.vectors[name].copy() if isinstance(state, client.Shared) else None
            try:
                self.states[name], self.sent[name] = client.step(
                    self.terms_of(name), identity_of(name), state, self._carried(message), vector
                )
            except ProtocolError as error:
                self.refused[name] = error

    def _groups_step(self, step: Callable[[Any], Any]) -> None:
        following: list[Any] = []
        for state in self.groups:
            if isinstance(state, ProtocolError):
                following.append(state)
                continue
            try:
                saved = server.SERVER_STATES.decode(server.SERVER_STATES.encode(state)) if self.saved else state
                following.append(step(saved))
            except ProtocolError as error:
                following.append(error)
        self.groups = following


def random_vectors(names: Collection[str], size: int = 8, seed: int = 0) -> dict[str, Integers]:
    """A vector of any words for each client."""
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 1 << 32, size, dtype=np.uint32) for name in names}


def other_terms(terms: Terms, **changed: Any) -> Terms:
    """The same terms but for some of them."""
    return replace(terms, **changed)
