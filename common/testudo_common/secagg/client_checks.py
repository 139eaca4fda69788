"""What a client checks before it says anything: one function a rule, each naming what it stops. Pure.

Each raises ProtocolError and reveals nothing. They stand apart from client.py so that a reader can go through them
one by one, and so that a test can take one away and see its attack succeed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from testudo_common.errors import Breach, PeerError, ProtocolError
from testudo_common.secagg.alike import once_for_all
from testudo_common.secagg.bindings import commitments_digest, verify_advertisement
from testudo_common.secagg.graph import Graph
from testudo_common.secagg.groups import commitment_to
from testudo_common.secagg.masking import Words
from testudo_common.secagg.messages import (
    Advertisement,
    CommitmentEntry,
    CommitmentList,
    Confirmations,
    Deliveries,
    Directory,
    SurvivorSet,
)
from testudo_common.secagg.primitives import tags_match
from testudo_common.secagg.terms import Member, Terms


def own_commitment_is_listed(terms: Terms, client_id: str, nonce: bytes, message: CommitmentList) -> None:
    """Stops a server that fixes the list without this client's nonce, and so could choose the coin."""
    own = _listed(terms, message).get(client_id)
    if own is None or own.commitment != commitment_to(nonce, terms.round_context, client_id):
        raise ProtocolError(Breach.COMMITMENT, "the list of commitments does not hold this client's own")


def cohort_is_large_enough(terms: Terms, clients: int) -> None:
    """Stops a cohort of the victim and the server's own friends."""
    if clients < terms.parameters.min_cohort:
        raise ProtocolError(Breach.TOO_FEW, f"a cohort of {clients}, and {terms.parameters.min_cohort} are needed")


@once_for_all
def all_are_on_the_roster(terms: Terms, message: CommitmentList) -> None:
    """Stops a cohort padded with names that the federation never admitted."""
    for entry in message.entries:
        if entry.client_id not in terms.roster:
            where = entry.client_id
            raise ProtocolError(Breach.NOT_ON_ROSTER, "a client of the cohort is not on the roster", where=where)


def directory_is_honest(
    terms: Terms,
    client_id: str,
    own: Advertisement,
    commitments: tuple[CommitmentEntry, ...],
    message: Directory,
) -> None:
    """All that must hold of a directory before groups are drawn from it."""
    own_advertisement_is_listed(terms, client_id, own, message)
    _holds_for_everybody(terms, commitments, message)


@once_for_all
def _holds_for_everybody(terms: Terms, commitments: tuple[CommitmentEntry, ...], message: Directory) -> None:
    nonces_open_their_commitments(terms, commitments, message)
    few_are_left_out(terms, commitments, message)
    cohort_is_large_enough(terms, len(message.entries))
    advertisements_are_signed(terms, commitments, message)
    keys_are_distinct(message)


def own_advertisement_is_listed(terms: Terms, client_id: str, own: Advertisement, message: Directory) -> None:
    """Stops a server that answers for this client with keys of its own."""
    listed = _listed(terms, message).get(client_id)
    if listed is None or listed.advertisement != own:
        raise ProtocolError(Breach.KEY, "the directory does not hold this client's own advertisement")


def nonces_open_their_commitments(terms: Terms, commitments: tuple[CommitmentEntry, ...], message: Directory) -> None:
    """Stops a coin that was chosen after nonces were seen."""
    listed = {entry.client_id: entry.commitment for entry in commitments}
    for entry in message.entries:
        commitment = commitment_to(entry.advertisement.nonce, terms.round_context, entry.client_id)
        if listed.get(entry.client_id) != commitment:
            raise PeerError(entry.client_id, Breach.COMMITMENT, "its nonce does not open its commitment")


def few_are_left_out(terms: Terms, commitments: tuple[CommitmentEntry, ...], message: Directory) -> None:
    """Stops a server that tries whom to leave out until the coin gives it the group it wants."""
    left_out = len(commitments) - len(message.entries)
    if left_out > terms.parameters.max_left_out * len(commitments):
        raise ProtocolError(
            Breach.LEFT_OUT, f"{left_out} of {len(commitments)} clients that had committed are left out"
        )


def advertisements_are_signed(terms: Terms, commitments: tuple[CommitmentEntry, ...], message: Directory) -> None:
    """Stops keys that were substituted, replayed from another round, or signed for another model, plan or list."""
    listed, context = commitments_digest(commitments), terms.round_context
    for entry in message.entries:
        key = terms.roster.get(entry.client_id)
        if key is None:
            raise PeerError(entry.client_id, Breach.NOT_ON_ROSTER, "it is not on the roster")
        try:
            verify_advertisement(key, context, listed, entry.advertisement)
        except ProtocolError as error:
            raise PeerError(entry.client_id, Breach.SIGNATURE, "its advertisement is not signed by it") from error


def keys_are_distinct(message: Directory) -> None:
    """Stops twins: clients whose generators were cloned know each other's secrets, and so does whoever has one."""
    seen: set[bytes] = set()
    for entry in message.entries:
        shown = entry.advertisement
        for value in (shown.channel_key, shown.mask_key, shown.seed_digest):
            if value in seen:
                raise PeerError(entry.client_id, Breach.KEY, "it advertises what stands there already")
            seen.add(value)


def group_can_hide_its_members(terms: Terms, members: tuple[Member, ...]) -> None:
    """Stops sums over fewer than ``min_group`` members."""
    if len(members) < terms.parameters.min_group:
        raise ProtocolError(Breach.TOO_FEW, f"a group of {len(members)}, and {terms.parameters.min_group} are needed")


def enough_shared_their_keys(terms: Terms, graph: Graph, position: int, message: Deliveries) -> None:
    """Stops a group thinned out before masking, and ciphertexts that come from nobody of the group."""
    _is_rising(message.sharers)
    sharers = set(message.sharers)
    if position not in sharers or max(sharers) >= graph.members:
        raise ProtocolError(Breach.MEMBERS, "those who shared their keys are not this client's group")
    present = [place for place in graph.neighbours(position) if place in sharers]
    if [item.position for item in message.ciphertexts] != present:
        raise ProtocolError(Breach.MEMBERS, "the ciphertexts are not those of the neighbours who shared their keys")
    if len(sharers) < terms.parameters.least_survivors(graph.members) or len(present) + 1 < graph.threshold:
        raise ProtocolError(Breach.TOO_FEW, f"{len(sharers)} members shared their keys, too few to go on")


def vector_has_the_agreed_shape(terms: Terms, vector: Words) -> None:
    """Stops a mistake of our own before anything is masked."""
    size = terms.parameters.layout.size
    if vector.dtype != np.uint32 or vector.shape != (size,) or not vector.flags.c_contiguous:
        raise ProtocolError(Breach.VALUES, f"what is to be masked is not uint32[{size}]")
    if not vector.flags.writeable:
        raise ProtocolError(Breach.VALUES, "what is to be masked cannot be written to")


def survivors_can_hide_each_other(
    terms: Terms, graph: Graph, position: int, sharers: tuple[int, ...], message: SurvivorSet
) -> None:
    """Stops a sum over one, over fewer than ``min_group`` or without enough noise, and survivors nobody masked with."""
    _is_rising(message.survivors)
    survivors = set(message.survivors)
    if position not in survivors or not survivors <= set(sharers):
        raise ProtocolError(Breach.SURVIVORS, "the survivors are not members that this client masked with")
    near = sum(place in survivors for place in graph.neighbours(position))
    if len(survivors) < terms.parameters.least_survivors(graph.members) or near + 1 < graph.threshold:
        raise ProtocolError(Breach.TOO_FEW, f"{len(survivors)} survivors, too few to open a sum")


def enough_saw_the_same_survivors(graph: Graph, expected: Mapping[int, bytes], message: Confirmations) -> None:
    """Stops a server that shows different survivor sets to different clients, to get both kinds of share of one."""
    _is_rising([item.position for item in message.tags])
    # This client itself is one of them.
    agreeing = 1 + sum(
        item.position in expected and tags_match(expected[item.position], item.tag) for item in message.tags
    )
    if agreeing < graph.threshold:
        raise ProtocolError(
            Breach.CONFIRMATION,
            f"{agreeing} members confirm the same survivors, and {graph.threshold} are needed",
        )


@once_for_all
def _listed(terms: Terms, message: CommitmentList | Directory) -> dict[str, Any]:
    """Client id -> its entry in a list that must be rising, so that each has one."""
    del terms
    _is_rising([entry.client_id for entry in message.entries])
    return {entry.client_id: entry for entry in message.entries}


def _is_rising(items: Iterable[str] | Iterable[int]) -> None:
    """Stops an item that stands twice, and an order that two clients could see differently."""
    listed: list[object] = list(items)
    if any(not before < after for before, after in pairwise(listed)):  # type: ignore[operator]
        raise ProtocolError(Breach.MALFORMED, "a list is not rising, or an item stands twice")
