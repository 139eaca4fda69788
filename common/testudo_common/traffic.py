"""What travels between one client and the server in one attempt at a round, message by message, in bytes.

Measured on messages of the right shape that hold nothing, so it cannot drift from the wire. Payload only: Flower's and
TLS's own bytes are not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from testudo_common.log_traffic import LogShape, roster_of
from testudo_common.plan import FederationPlan
from testudo_common.roster import Roster
from testudo_common.secagg.graph import Graph, graph_of
from testudo_common.secagg.messages import (
    MESSAGES,
    SEALED_BYTES,
    Advertisement,
    Commitment,
    CommitmentEntry,
    CommitmentList,
    Confirmation,
    Confirmations,
    ConfirmationTag,
    Deliveries,
    Directory,
    DirectoryEntry,
    MaskedInput,
    RevealedShare,
    Sealed,
    SharedKeys,
    SurvivorSet,
    ToClient,
    ToServer,
    UnmaskingShares,
)
from testudo_common.secagg.primitives import TAG_BYTES
from testudo_common.secagg.shamir import SHARE_BYTES
from testudo_common.secure_terms import Attempt, terms_of
from testudo_common.wire import Message, SecureMessage, TrainReply, TrainRequest, encode

_DIGEST = bytes(32)
_HEX = "0" * 64
_LONGEST_NUMBER = 1.2345678901234567e-100
LOG_LEGS = frozenset({"LogUpdate", "Witnessed"})
"""Names of the audit log's own messages."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One message.

    Attributes:
        name: Of its kind.
        up: From the client to the server.
        holds: What is in it, for a person.
        size_bytes: Payload bytes.
    """

    name: str
    up: bool
    holds: str
    size_bytes: int


def legs_of(
    plan: FederationPlan,
    size: int,
    clients: Sequence[str],
    *,
    round_number: int,
    attempt: int = 0,
    roster: Roster | None = None,
) -> tuple[Leg, ...]:
    """The messages of one attempt in which nobody drops out, in order, as a member of a largest group has them.

    Where the plan has an audit log, the first two are its: they pass in every round, also one that a client does not
    train in, and are as long as log_traffic.py says. All others are exact, but for shorter names.

    Args:
        plan: Complete, where it asks for scores.
        size: d, shared parameters.
        clients: Ids of the cohort.
        round_number: 1 and up; rounds with scores are larger.
        attempt: 0 and up.
        roster: Of the federation, whose members cosign its log; None: the cohort is all there is.
    """
    if not plan.audited:
        return _legs_of(plan, size, clients, round_number, attempt, None)
    known = roster if roster is not None and roster.log else roster_of(clients)
    log = LogShape(plan, known, clients, round_number, attempt)
    seen = _leg("Witnessed", True, "that you have seen it: your cosignature", log.witnessed(max(clients, key=len)))
    opening = _leg("LogUpdate", False, "what the server did since, for you to check", log.opening())
    legs = list(_legs_of(plan, size, clients, round_number, attempt, log))
    if plan.secure:
        drawn = _leg("LogUpdate", False, "the groups, for you to check", log.groups())
        place = next(place for place, leg in enumerate(legs) if leg.name == "Directory")
        legs[place:place] = [drawn, seen]
    return (opening, seen, *legs)


def beginning_of_log(plan: FederationPlan, roster: Roster) -> int:
    """Bytes of what a plan's log begins with, once: plan, roster and everybody's approval.

    Args:
        plan: With a log.
        roster: Of the federation.
    """
    return encode(LogShape(plan, roster, (), 1, 0).beginning()).size_bytes


def _legs_of(
    plan: FederationPlan, size: int, clients: Sequence[str], round_number: int, attempt: int, log: LogShape | None
) -> tuple[Leg, ...]:
    """Those of training, with what they carry of the log."""
    statement, note = (None, b"") if log is None else (log.statement(), log.note())
    clip = _LONGEST_NUMBER if plan.adapts_clip else None
    request = TrainRequest(_HEX, round_number, attempt, _HEX, _zeros(size, np.float32), clip, note)
    model = _leg("TrainRequest", False, "the meta-model", request)
    if not plan.secure:
        reply = TrainReply(_HEX, round_number, attempt, _HEX, _zeros(size, np.float32), statement)
        return model, _leg("TrainReply", True, "your update, which the server sees", reply)
    named = Attempt(_HEX, round_number, attempt, _HEX)
    words = terms_of(plan, Roster("", {}), named, size).parameters.layout.size
    secure = plan.secure_aggregation
    members = -(-len(clients) // max(1, len(clients) // secure.group_size))
    legs = [model]
    for up, holds, body in _exchanges(clients, graph_of(members, secure.corruption, secure.dropout)):
        masked, said = (_zeros(words, np.uint32), statement) if isinstance(body, MaskedInput) else (None, None)
        message = SecureMessage(_HEX, round_number, attempt, MESSAGES.encode(body), masked, said)
        legs.append(_leg(type(body).__name__, up, holds, message))
    return tuple(legs)


def _exchanges(clients: Sequence[str], graph: Graph) -> tuple[tuple[bool, str, ToClient | ToServer], ...]:
    """(up, what is in it, message) of a group of that graph."""
    neighbours, everybody = range(graph.degree), tuple(range(graph.members))
    advertisement = Advertisement(_DIGEST, _DIGEST, _DIGEST, _DIGEST, bytes(64))
    sealed = tuple(Sealed(place, bytes(SEALED_BYTES)) for place in neighbours)
    tags = tuple(ConfirmationTag(place, bytes(TAG_BYTES)) for place in neighbours)
    shares = tuple(RevealedShare(place, bytes(SHARE_BYTES)) for place in range(graph.degree + 1))
    commitments = CommitmentList(tuple(CommitmentEntry(client, _DIGEST) for client in clients))
    directory = Directory(tuple(DirectoryEntry(client, advertisement) for client in clients))
    return (
        (True, "a commitment to a random number", Commitment(_DIGEST)),
        (False, "everybody's commitments", commitments),
        (True, "keys of this round, signed", advertisement),
        (False, "everybody's keys", directory),
        (True, "shares of your keys, sealed for your group", SharedKeys(sealed)),
        (False, "shares of the others' keys, sealed for you", Deliveries(everybody, sealed)),
        (True, "your update, and scores where they are asked for, under masks", MaskedInput()),
        (False, "who is still there", SurvivorSet(everybody)),
        (True, "that you saw the same list", Confirmation(tags)),
        (False, "that the others did", Confirmations(tags)),
        (True, "shares that open the sum of your group", UnmaskingShares(shares)),
    )


def _leg(name: str, up: bool, holds: str, message: Message) -> Leg:
    return Leg(name, up, holds, encode(message).size_bytes)


def _zeros(length: int, kind: type[np.generic]) -> np.ndarray[Any, Any]:
    """A vector of any length that takes no memory."""
    return np.broadcast_to(np.zeros(1, dtype=kind), (length,))
