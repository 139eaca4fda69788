"""An honest round of secure aggregation, written down: what everybody knew, was told and said at each step.

For tests that take up a round in the middle. States of the server are kept as bytes, since its sums change in place.
No tests in here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from secure_round import Integers, SecureRound, names_of, random_vectors, terms_of
from testudo_common.secagg.client import ClientState
from testudo_common.secagg.messages import Reply
from testudo_common.secagg.server import SERVER_STATES
from testudo_common.secagg.terms import Member, Terms

STEPS = ("commit", "advertise", "share_keys", "mask", "confirm", "unmask")


@dataclass(frozen=True)
class Step:
    """One step, by client id; the server's state is the one in which it waits for the replies.

    Attributes:
        states: Before the step; empty for the first.
        told: The message that the step answers; empty for the first.
        replies: What the clients said.
    """

    states: dict[str, ClientState]
    told: dict[str, Any]
    replies: dict[str, Reply]
    server_state: bytes

    def server(self) -> Any:
        """The server's state, of its own."""
        return SERVER_STATES.decode(self.server_state)

    def messages(self) -> dict[str, Any]:
        """The replies without the vectors."""
        return {name: reply.message for name, reply in self.replies.items()}


@dataclass(frozen=True)
class Record:
    """A whole round among clients of one group."""

    terms: Terms
    vectors: dict[str, Integers]
    members: tuple[Member, ...]
    steps: dict[str, Step]
    last_states: dict[str, ClientState]
    round: SecureRound

    def name(self, position: int) -> str:
        """The client at a position of the group."""
        return self.members[position].client_id


class _Recorder(SecureRound):
    def _clients_step(self, without: Any) -> None:
        super()._clients_step(without)
        self.waiting = [self.cohort, *self.groups][-1]
        self.waiting_bytes = SERVER_STATES.encode(self.waiting)


@cache
def recorded(count: int, **changed: Any) -> Record:
    """The record of ``count`` clients in one group; ``changed`` goes to the terms."""
    names = names_of(count)
    terms, vectors = terms_of(names, **changed), random_vectors(names)
    secure_round = _Recorder(terms, vectors)
    steps = {}
    secure_round.commit()
    steps["commit"] = Step({}, {}, dict(secure_round.sent), b"")
    for name in STEPS[1:]:
        states, told = dict(secure_round.states), dict(secure_round.given)
        getattr(secure_round, name)()
        steps[name] = Step(states, told, dict(secure_round.sent), secure_round.waiting_bytes)
    members = steps["mask"].server().members
    return Record(terms, vectors, members, steps, dict(secure_round.states), secure_round)
