"""The server's side: from a cohort's commitments to the open sum of each group. It never sees a single vector open.

As at the client, each step is a function of a state and messages, and the caller holds the state. The first two steps
are the cohort's, the others each group's own, so that one group's fault does not touch another.

====================  ============================  ==============================  ===================
state                 messages                      for the clients                 next state
====================  ============================  ==============================  ===================
(none)                Commitment of each            CommitmentList                  Advertising
Advertising           Advertisement of each         Directory                       a Sharing a group
Sharing               SharedKeys of each            Deliveries, to each its own     Masking
Masking               MaskedInput, as they arrive   SurvivorSet                     Confirming
Confirming            Confirmation of each          Confirmations, to each its own  Unmasking
Unmasking             UnmaskingShares of each       (the sum)                       Sum
====================  ============================  ==============================  ===================

A message that breaks a rule sets its sender aside, by name, as if it had dropped out; what is lost when too few are
left is one group, in a ProtocolError. A sum that is given back is the exact sum of the survivors' masked vectors
without their masks. It is not thereby honest: quantize.py checks ranges, and whoever aggregates looks at norms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np

from testudo_common.errors import Breach, PeerError, ProtocolError
from testudo_common.secagg.bindings import (
    commitments_digest,
    own_mask_key,
    pair_mask_key,
    seed_digest_of,
    verify_advertisement,
)
from testudo_common.secagg.codec import Buffer, Catalogue, Digest, Many, Record
from testudo_common.secagg.graph import Graph, graph_of
from testudo_common.secagg.groups import commitment_to, draw_coin, partition
from testudo_common.secagg.masking import Words, apply_masks
from testudo_common.secagg.messages import (
    VERSION,
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
    Positions,
    Sealed,
    SharedKeys,
    SurvivorSet,
    UnmaskingShares,
)
from testudo_common.secagg.primitives import Agreement, check_public_key, public_key
from testudo_common.secagg.recovery import Holding, recover_secrets
from testudo_common.secagg.terms import Member, Terms, group_context, members_of

MAX_VECTOR_BYTES = 1 << 32


@dataclass(frozen=True, slots=True)
class Advertising:
    """Waits for advertisements."""

    commitments: Annotated[tuple[CommitmentEntry, ...], Many(Record(CommitmentEntry))]


@dataclass(frozen=True, slots=True)
class Sharing:
    """A group whose members share their keys."""

    context: Digest
    members: Annotated[tuple[Member, ...], Many(Record(Member), 1 << 16)]


@dataclass(frozen=True, slots=True)
class Masking:
    """A group whose masked inputs are added up as they arrive.

    Attributes:
        total: The sum so far, ``uint32[size]`` as bytes; it moves on to the next state, which adds to it in place.
    """

    context: Digest
    members: Annotated[tuple[Member, ...], Many(Record(Member), 1 << 16)]
    sharers: Positions
    arrived: Positions
    total: Annotated[bytearray, Buffer(MAX_VECTOR_BYTES)] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Confirming:
    """A group whose survivors are fixed, and confirm that they saw the same ones."""

    context: Digest
    members: Annotated[tuple[Member, ...], Many(Record(Member), 1 << 16)]
    sharers: Positions
    survivors: Positions
    total: Annotated[bytearray, Buffer(MAX_VECTOR_BYTES)] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Unmasking:
    """A group that waits for shares of its masks' keys."""

    context: Digest
    members: Annotated[tuple[Member, ...], Many(Record(Member), 1 << 16)]
    sharers: Positions
    survivors: Positions
    total: Annotated[bytearray, Buffer(MAX_VECTOR_BYTES)] = field(repr=False, compare=False)


SERVER_STATES = Catalogue(VERSION, {1: Advertising, 2: Sharing, 3: Masking, 4: Confirming, 5: Unmasking})


@dataclass(frozen=True, slots=True)
class Sum:
    """A group's open sum.

    Attributes:
        total: ``uint32[size]``, the sum modulo 2^32 of the survivors' vectors.
        survivors: Their client ids, sorted.
        disputes: (owner, holder) of each share that proved wrong, where one stood in the way: the holder revealed a
            wrong one, or the owner had dealt it. One dispute does not tell which.
        liars: Holders in dispute with more than half of the owners whose shares they hold. Two holders that collude can
            bring others into dispute, so nothing should follow from it but a look.
        faults: Whose shares were not as asked for, and so were not used.
    """

    total: Words = field(repr=False, compare=False)
    survivors: tuple[str, ...]
    disputes: tuple[tuple[str, str], ...] = ()
    liars: tuple[str, ...] = ()
    faults: tuple[PeerError, ...] = ()


def begin(terms: Terms, commitments: Mapping[str, Commitment]) -> tuple[Advertising, CommitmentList]:
    """Before step 1: fix who takes part.

    Args:
        terms: Of this attempt.
        commitments: Client id -> its commitment; all of the roster.

    Raises:
        ProtocolError: There are too few for one group.
    """
    if len(commitments) < terms.parameters.min_cohort:
        raise ProtocolError(
            Breach.TOO_FEW, f"{len(commitments)} clients are there, and {terms.parameters.min_cohort} are needed"
        )
    entries = tuple(CommitmentEntry(client, commitments[client].commitment) for client in sorted(commitments))
    return Advertising(entries), CommitmentList(entries)


def gather(
    terms: Terms, state: Advertising, replies: Mapping[str, Advertisement]
) -> tuple[tuple[Sharing, ...], Directory, tuple[PeerError, ...]]:
    """Before step 2: check the advertisements, and draw the groups.

    Raises:
        ProtocolError: Too many that had committed are missing, or too few are left for one group.
    """
    listed = commitments_digest(state.commitments)
    entries: dict[str, DirectoryEntry] = {}
    faults: list[PeerError] = []
    taken: set[bytes] = set()
    for entry in state.commitments:
        shown = replies.get(entry.client_id)
        if shown is None:
            continue
        try:
            _check_advertisement(terms, entry, shown, listed, taken)
        except PeerError as fault:
            faults.append(fault)
            continue
        entries[entry.client_id] = DirectoryEntry(entry.client_id, shown)
    missing = len(state.commitments) - len(entries)
    if missing > terms.parameters.max_left_out * len(state.commitments):
        raise ProtocolError(
            Breach.LEFT_OUT,
            f"{missing} of {len(state.commitments)} clients did not advertise keys",
            peers=tuple(faults),
        )
    if len(entries) < terms.parameters.min_cohort:
        raise ProtocolError(
            Breach.TOO_FEW,
            f"{len(entries)} clients are left, and {terms.parameters.min_cohort} are needed",
            peers=tuple(faults),
        )
    directory = Directory(tuple(entries.values()))
    return _draw_groups(terms, coin_of(terms, state, directory), entries), directory, tuple(faults)


def _check_advertisement(
    terms: Terms, entry: CommitmentEntry, shown: Advertisement, listed: bytes, taken: set[bytes]
) -> None:
    client = entry.client_id
    if client not in terms.roster:
        raise PeerError(client, Breach.NOT_ON_ROSTER, "it is not on the roster")
    if commitment_to(shown.nonce, terms.round_context, client) != entry.commitment:
        raise PeerError(client, Breach.COMMITMENT, "its nonce does not open its commitment")
    try:
        verify_advertisement(terms.roster[client], terms.round_context, listed, shown)
    except ProtocolError as error:
        raise PeerError(client, Breach.SIGNATURE, "its advertisement is not signed by it") from error
    try:
        check_public_key(shown.channel_key)
        check_public_key(shown.mask_key)
    except ProtocolError as error:
        raise PeerError(client, Breach.KEY, "it advertises a key that agrees on nothing secret") from error
    keys = {shown.channel_key, shown.mask_key, shown.seed_digest}
    if keys & taken or len(keys) < 3:
        raise PeerError(client, Breach.KEY, "it advertises what another client advertises")
    taken |= keys


def coin_of(terms: Terms, state: Advertising, directory: Directory) -> bytes:
    """The coin that drew the groups, 32 bytes, as every client computes it from what it was sent."""
    nonces = ((entry.client_id, entry.advertisement.nonce) for entry in directory.entries)
    return draw_coin(terms.round_context, commitments_digest(state.commitments), nonces)


def _draw_groups(terms: Terms, coin: bytes, entries: Mapping[str, DirectoryEntry]) -> tuple[Sharing, ...]:
    groups = partition(coin, entries, terms.parameters.group_size)
    found = []
    for index, group in enumerate(groups):
        members = members_of(entries, group)
        found.append(Sharing(group_context(terms.round_context, index, members), members))
    return tuple(found)


def share(
    terms: Terms, state: Sharing, replies: Mapping[str, SharedKeys]
) -> tuple[Masking, dict[str, Deliveries], tuple[PeerError, ...]]:
    """Before step 3: pass the sealed shares on.

    Raises:
        ProtocolError: Too few of the group shared their keys.
    """
    graph = _graph(terms, state.members)
    sent: dict[int, dict[int, bytes]] = {}
    faults: list[PeerError] = []
    for position, member in enumerate(state.members):
        reply = replies.get(member.client_id)
        if reply is None:
            continue
        if tuple(item.position for item in reply.ciphertexts) != graph.neighbours(position):
            faults.append(PeerError(member.client_id, Breach.SHARE, "it did not share with exactly its neighbours"))
            continue
        sent[position] = {item.position: item.ciphertext for item in reply.ciphertexts}
    if len(sent) < terms.parameters.least_survivors(len(state.members)):
        raise ProtocolError(Breach.TOO_FEW, f"{len(sent)} of {len(state.members)} members shared their keys")
    sharers = tuple(sorted(sent))
    deliveries = {
        state.members[position].client_id: Deliveries(
            sharers,
            tuple(Sealed(place, sent[place][position]) for place in graph.neighbours(position) if place in sent),
        )
        for position in sharers
    }
    total = bytearray(4 * terms.parameters.layout.size)
    return Masking(state.context, state.members, sharers, (), total), deliveries, tuple(faults)


def accept(state: Masking, client_id: str, vector: Words | None) -> Masking:
    """Add one masked input to the group's sum, in place: ``state`` must not be used again.

    Raises:
        PeerError: The vector is not of the agreed shape, or its sender has no place here, or a second one. The sum is
            as it was.
    """
    position = next((p for p in state.sharers if state.members[p].client_id == client_id), None)
    if position is None or position in state.arrived:
        raise PeerError(client_id, Breach.OUT_OF_TURN, "no masked input of it is awaited")
    if not isinstance(vector, np.ndarray) or vector.dtype != np.uint32 or vector.shape != (len(state.total) // 4,):
        raise PeerError(client_id, Breach.VALUES, "its masked input is not of the agreed shape")
    total = np.frombuffer(state.total, dtype=np.uint32)
    np.add(total, vector, out=total)
    return replace(state, arrived=tuple(sorted((*state.arrived, position))))


def close_masking(terms: Terms, state: Masking) -> tuple[Confirming, SurvivorSet]:
    """Before step 4: fix the survivors.

    Raises:
        ProtocolError: They are too few to be opened.
    """
    least = terms.parameters.least_survivors(len(state.members))
    if len(state.arrived) < least:
        raise ProtocolError(Breach.TOO_FEW, f"{len(state.arrived)} survivors, and {least} are needed")
    following = Confirming(state.context, state.members, state.sharers, state.arrived, state.total)
    return following, SurvivorSet(state.arrived)


def confirm(
    terms: Terms, state: Confirming, replies: Mapping[str, Confirmation]
) -> tuple[Unmasking, dict[str, Confirmations]]:
    """Before step 5: pass the tags on. They are the clients' to check."""
    graph = _graph(terms, state.members)
    tags: dict[int, list[ConfirmationTag]] = {position: [] for position in state.survivors}
    confirmed = [p for p in state.survivors if state.members[p].client_id in replies]
    for position in confirmed:
        near = set(graph.neighbours(position))
        for item in replies[state.members[position].client_id].tags:
            if item.position in near and item.position in tags:
                tags[item.position].append(ConfirmationTag(position, item.tag))
    following = Unmasking(state.context, state.members, state.sharers, state.survivors, state.total)
    return following, {state.members[p].client_id: Confirmations(_once(tags[p])) for p in confirmed}


def _once(tags: list[ConfirmationTag]) -> tuple[ConfirmationTag, ...]:
    """One tag a sender: a client that sends two to one neighbour has sent none."""
    senders = [item.position for item in tags]
    return tuple(item for item in tags if senders.count(item.position) == 1)


def open_sum(terms: Terms, state: Unmasking, replies: Mapping[str, UnmaskingShares]) -> Sum:
    """Take the masks away, in place: ``state`` must not be used again unless this raises.

    Raises:
        ProtocolError: Too few shares, or too many wrong ones, of some member's secret.
    """
    graph = _graph(terms, state.members)
    survivors = set(state.survivors)
    revealed, faults = _revealed(graph, state, replies)
    needed = [p for p in state.sharers if p in survivors or survivors.intersection(graph.neighbours(p))]
    holdings = [
        Holding(
            place,
            {holder: shares[place] for holder, shares in revealed.items() if place in shares},
            _is_seed_of(state.members[place]) if place in survivors else _is_mask_key_of(state.members[place]),
        )
        for place in needed
    ]
    secrets, disputes = recover_secrets(holdings, graph.threshold, [member.client_id for member in state.members])
    total = np.frombuffer(state.total, dtype=np.uint32)
    # Keys of masks that lie on the sum, by their sign there.
    added: list[bytes] = []
    subtracted: list[bytes] = []
    for place, secret in secrets.items():
        if place in survivors:
            added.append(own_mask_key(secret, state.context))
            continue
        agreement = Agreement(secret)
        for near in survivors.intersection(graph.neighbours(place)):
            shared = agreement.with_peer(state.members[near].mask_key)
            key = pair_mask_key(shared, state.context, near, place)
            (added if near < place else subtracted).append(key)
    apply_masks(total, added=subtracted, subtracted=added)
    names = tuple(sorted(state.members[p].client_id for p in state.survivors))
    named = sorted((state.members[owner].client_id, state.members[holder].client_id) for owner, holder in disputes)
    against = Counter(holder for _, holder in named)
    held = Counter(state.members[holder].client_id for holding in holdings for holder in holding.shares)
    liars = sorted(holder for holder, owners in against.items() if 2 * owners > held[holder])
    return Sum(total, names, tuple(named), tuple(liars), faults)


def _revealed(
    graph: Graph, state: Unmasking, replies: Mapping[str, UnmaskingShares]
) -> tuple[dict[int, dict[int, bytes]], tuple[PeerError, ...]]:
    """Holder -> owner -> share. A reply that is not exactly one share of each is no reply, and its sender is named."""
    sharers, faults = set(state.sharers), []
    found: dict[int, dict[int, bytes]] = {}
    for position in state.survivors:
        client = state.members[position].client_id
        if (reply := replies.get(client)) is None:
            continue
        if [item.position for item in reply.shares] == [p for p in graph.holders(position) if p in sharers]:
            found[position] = {item.position: item.share for item in reply.shares}
        else:
            faults.append(PeerError(client, Breach.SHARE, "it did not reveal exactly one share of each"))
    return found, tuple(faults)


def _is_seed_of(member: Member) -> Callable[[bytes], bool]:
    def proves(secret: bytes) -> bool:
        return seed_digest_of(secret) == member.seed_digest

    return proves


def _is_mask_key_of(member: Member) -> Callable[[bytes], bool]:
    def proves(secret: bytes) -> bool:
        return public_key(secret) == member.mask_key

    return proves


def _graph(terms: Terms, members: tuple[Member, ...]) -> Graph:
    return graph_of(len(members), terms.parameters.corruption, terms.parameters.dropout)
