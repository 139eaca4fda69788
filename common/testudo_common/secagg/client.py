"""The client's side: six steps, each from a state and a message to the next state and a reply.

The caller holds the state; a step that raises leaves it as it was. States are frozen, can be saved as bytes between
two messages (``CLIENT_STATES``), and never show a secret. A state that was answered from must not be used again:
whoever keeps it has to keep the next one before the reply leaves.

====================  ===================  ============================  =================
state                 message              reply                         next state
====================  ===================  ============================  =================
(none)                (the round begins)   Commitment                    Committed
Committed             CommitmentList       Advertisement                 Advertised
Advertised            Directory            SharedKeys                    Shared
Shared                Deliveries           MaskedInput                   Masked
Masked                SurvivorSet          Confirmation                  Confirmed
Confirmed             Confirmations        UnmaskingShares               Finished
====================  ===================  ============================  =================

Every check stands in a function of its own in client_checks.py, which names the attack that it stops.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from testudo_common.errors import Breach, PeerError, ProtocolError
from testudo_common.secagg import client_checks as checks
from testudo_common.secagg import shamir
from testudo_common.secagg.alike import once_for_all
from testudo_common.secagg.bindings import (
    commitments_digest,
    confirmation_tag,
    own_mask_key,
    pair_mask_key,
    sealing_context,
    seed_digest_of,
    sign_advertisement,
    survivors_digest,
)
from testudo_common.secagg.codec import Catalogue, Digest, Fixed, Many, Record
from testudo_common.secagg.graph import Graph, graph_of
from testudo_common.secagg.groups import commitment_to, draw_coin, partition
from testudo_common.secagg.masking import Words, apply_masks
from testudo_common.secagg.messages import (
    VERSION,
    Advertisement,
    ClientId,
    Commitment,
    CommitmentEntry,
    CommitmentList,
    Confirmation,
    Confirmations,
    ConfirmationTag,
    Deliveries,
    Directory,
    MaskedInput,
    Position,
    Positions,
    Reply,
    RevealedShare,
    Sealed,
    SharedKeys,
    SurvivorSet,
    ToClient,
    UnmaskingShares,
)
from testudo_common.secagg.primitives import Agreement, channel_keys, public_key, random_secret, seal, unseal
from testudo_common.secagg.terms import Member, Terms, group_context, members_of

Share = Annotated[bytes, Fixed(shamir.SHARE_BYTES)]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client is.

    Attributes:
        client_id: Its name on the roster.
        signing_key: Ed25519, 32 bytes.
    """

    client_id: str
    signing_key: bytes = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Committed:
    """Has committed to a nonce."""

    client_id: ClientId
    nonce: Digest = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Advertised:
    """Has revealed its nonce and its public keys."""

    client_id: ClientId
    commitments: Annotated[tuple[CommitmentEntry, ...], Many(Record(CommitmentEntry))]
    advertisement: Annotated[Advertisement, Record(Advertisement)]
    channel_secret: Digest = field(repr=False, compare=False)
    mask_secret: Digest = field(repr=False, compare=False)
    seed: Digest = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What is known with one neighbour: the key that opens what it sends, and the one that confirms."""

    position: Position
    receiving: Digest = field(repr=False, compare=False)
    confirming: Digest = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Shared:
    """Knows its group and has shared its secrets with its neighbours there."""

    context: Digest
    position: Position
    members: Annotated[tuple[Member, ...], Many(Record(Member), 1 << 16)]
    neighbours: Annotated[tuple[Neighbour, ...], Many(Record(Neighbour), 1 << 16)]
    own_seed_share: Share = field(repr=False, compare=False)
    mask_secret: Digest = field(repr=False, compare=False)
    seed: Digest = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Held:
    """The shares held of one neighbour's secrets. At most one of the two is ever revealed."""

    position: Position
    confirming: Digest = field(repr=False, compare=False)
    seed_share: Share = field(repr=False, compare=False)
    mask_key_share: Share = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Masked:
    """Has sent its masked input: its update is used up."""

    context: Digest
    position: Position
    size: Position
    sharers: Positions
    own_seed_share: Share = field(repr=False, compare=False)
    held: Annotated[tuple[Held, ...], Many(Record(Held), 1 << 16)] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Has told its neighbours which survivor set it was shown."""

    context: Digest
    position: Position
    size: Position
    survivors: Positions
    own_seed_share: Share = field(repr=False, compare=False)
    held: Annotated[tuple[Held, ...], Many(Record(Held), 1 << 16)] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Finished:
    """Has revealed one share of each neighbour; there is nothing left to reveal."""


ClientState = Committed | Advertised | Shared | Masked | Confirmed | Finished
CLIENT_STATES = Catalogue(VERSION, {1: Committed, 2: Advertised, 3: Shared, 4: Masked, 5: Confirmed, 6: Finished})


def step(
    terms: Terms, identity: Identity, state: ClientState, message: ToClient, vector: Words | None = None
) -> tuple[ClientState, Reply]:
    """The one door: the step that ``state`` waits for.

    Args:
        terms: Of this attempt, as this client sees it.
        identity: Whose keys sign.
        state: From the step before.
        message: From the server.
        vector: ``uint32[size]``, this client's values for the step from Shared; masked in place and used up.

    Raises:
        ProtocolError: The message is not the one awaited, or breaks a rule. Nothing was revealed.
    """
    match state, message:
        case Committed(), CommitmentList():
            return advertise(terms, identity, state, message)
        case Advertised(), Directory():
            return share_keys(terms, state, message)
        case Shared(), Deliveries():
            if vector is None:
                raise ProtocolError(Breach.OUT_OF_TURN, "there is nothing to mask")
            return mask(terms, state, message, vector)
        case Masked(), SurvivorSet():
            return confirm(terms, state, message)
        case Confirmed(), Confirmations():
            return unmask(terms, state, message)
        case _:
            raise ProtocolError(
                Breach.OUT_OF_TURN, f"{type(message).__name__} has no place after {type(state).__name__}"
            )


def commit(terms: Terms, identity: Identity) -> tuple[Committed, Reply]:
    """Step 0: a fresh nonce, committed to."""
    nonce = random_secret()
    commitment = commitment_to(nonce, terms.round_context, identity.client_id)
    return Committed(identity.client_id, nonce), Reply(Commitment(commitment))


def advertise(terms: Terms, identity: Identity, state: Committed, message: CommitmentList) -> tuple[Advertised, Reply]:
    """Step 1: reveal the nonce, now that nobody can choose another, and advertise fresh keys."""
    checks.own_commitment_is_listed(terms, state.client_id, state.nonce, message)
    checks.cohort_is_large_enough(terms, len(message.entries))
    checks.all_are_on_the_roster(terms, message)
    channel_secret, mask_secret, seed = random_secret(), random_secret(), random_secret()
    advertisement = sign_advertisement(
        identity.signing_key,
        terms.round_context,
        _digest_of(terms, message.entries),
        channel_key=public_key(channel_secret),
        mask_key=public_key(mask_secret),
        seed_digest=seed_digest_of(seed),
        nonce=state.nonce,
    )
    following = Advertised(state.client_id, message.entries, advertisement, channel_secret, mask_secret, seed)
    return following, Reply(advertisement)


def share_keys(terms: Terms, state: Advertised, message: Directory) -> tuple[Shared, Reply]:
    """Step 2: recompute the groups, and share both secrets with the neighbours in one's own."""
    checks.directory_is_honest(terms, state.client_id, state.advertisement, state.commitments, message)
    groups, group_of = _groups(terms, state.commitments, message)
    group = group_of[state.client_id]
    members = groups[group]
    checks.group_can_hide_its_members(terms, members)
    context = group_context(terms.round_context, group, members)
    return _share_in(_graph(terms, len(members)), context, members, state)


@once_for_all
def coin_of(terms: Terms, commitments: tuple[CommitmentEntry, ...], message: Directory) -> bytes:
    """The coin that an honest directory draws, 32 bytes."""
    nonces = ((entry.client_id, entry.advertisement.nonce) for entry in message.entries)
    return draw_coin(terms.round_context, _digest_of(terms, commitments), nonces)


@once_for_all
def _groups(
    terms: Terms, commitments: tuple[CommitmentEntry, ...], message: Directory
) -> tuple[list[tuple[Member, ...]], dict[str, int]]:
    """The members of each group, and client id -> number of its group."""
    entries = {entry.client_id: entry for entry in message.entries}
    drawn = partition(coin_of(terms, commitments, message), entries, terms.parameters.group_size)
    group_of = {client: number for number, group in enumerate(drawn) for client in group}
    return [members_of(entries, group) for group in drawn], group_of


@once_for_all
def _digest_of(terms: Terms, commitments: tuple[CommitmentEntry, ...]) -> bytes:
    del terms
    return commitments_digest(commitments)


def _graph(terms: Terms, members: int) -> Graph:
    return graph_of(members, terms.parameters.corruption, terms.parameters.dropout)


def _share_in(graph: Graph, context: bytes, members: tuple[Member, ...], state: Advertised) -> tuple[Shared, Reply]:
    position = next(index for index, member in enumerate(members) if member.client_id == state.client_id)
    holders = graph.holders(position)
    shares = shamir.split((state.seed, state.mask_secret), graph.threshold, [place + 1 for place in holders])
    agreement = Agreement(state.channel_secret)
    neighbours, ciphertexts = [], []
    for index, place in enumerate(holders):
        if place == position:
            continue
        keys = channel_keys(agreement.with_peer(members[place].channel_key), context, position, place)
        both = shamir.share_to_bytes(shares[0, index]) + shamir.share_to_bytes(shares[1, index])
        ciphertexts.append(Sealed(place, seal(keys.sending, both, sealing_context(context, position, place))))
        neighbours.append(Neighbour(place, keys.receiving, keys.confirming))
    own_seed_share = shamir.share_to_bytes(shares[0, holders.index(position)])
    shared = Shared(context, position, members, tuple(neighbours), own_seed_share, state.mask_secret, state.seed)
    return shared, Reply(SharedKeys(tuple(ciphertexts)))


def mask(terms: Terms, state: Shared, message: Deliveries, vector: Words) -> tuple[Masked, Reply]:
    """Step 3: open the shares addressed to one, and mask ``vector`` in place."""
    graph = _graph(terms, len(state.members))
    checks.enough_shared_their_keys(terms, graph, state.position, message)
    checks.vector_has_the_agreed_shape(terms, vector)
    sent = {item.position: item.ciphertext for item in message.ciphertexts}
    present = [neighbour for neighbour in state.neighbours if neighbour.position in sent]
    held = tuple(_opened(state, neighbour, sent[neighbour.position]) for neighbour in present)
    agreement = Agreement(state.mask_secret)
    added: list[bytes] = [own_mask_key(state.seed, state.context)]
    subtracted: list[bytes] = []
    for neighbour in present:
        place = neighbour.position
        shared = agreement.with_peer(state.members[place].mask_key)
        key = pair_mask_key(shared, state.context, state.position, place)
        (added if state.position < place else subtracted).append(key)
    apply_masks(vector, added, subtracted)
    following = Masked(state.context, state.position, len(state.members), message.sharers, state.own_seed_share, held)
    return following, Reply(MaskedInput(), vector)


def _opened(state: Shared, neighbour: Neighbour, ciphertext: bytes) -> Held:
    associated = sealing_context(state.context, neighbour.position, state.position)
    try:
        both = unseal(neighbour.receiving, ciphertext, associated)
    except ProtocolError as error:
        sender = state.members[neighbour.position].client_id
        raise PeerError(sender, error.breach, "its sealed shares cannot be opened") from error
    half = shamir.SHARE_BYTES
    return Held(neighbour.position, neighbour.confirming, both[:half], both[half:])


def confirm(terms: Terms, state: Masked, message: SurvivorSet) -> tuple[Confirmed, Reply]:
    """Step 4: check the survivor set, and tell each surviving neighbour which one it was."""
    graph = _graph(terms, state.size)
    checks.survivors_can_hide_each_other(terms, graph, state.position, state.sharers, message)
    survivors, shown = set(message.survivors), survivors_digest(state.context, message.survivors)
    tags = tuple(
        ConfirmationTag(held.position, confirmation_tag(held.confirming, shown, state.position, held.position))
        for held in state.held
        if held.position in survivors
    )
    following = Confirmed(
        state.context, state.position, state.size, message.survivors, state.own_seed_share, state.held
    )
    return following, Reply(Confirmation(tags))


def unmask(terms: Terms, state: Confirmed, message: Confirmations) -> tuple[Finished, Reply]:
    """Step 5: once enough saw the same survivors, reveal one share of each neighbour, and one of one's own seed."""
    survivors, shown = set(state.survivors), survivors_digest(state.context, state.survivors)
    expected = {
        held.position: confirmation_tag(held.confirming, shown, held.position, state.position)
        for held in state.held
        if held.position in survivors
    }
    checks.enough_saw_the_same_survivors(_graph(terms, state.size), expected, message)
    shares = [
        RevealedShare(held.position, held.seed_share if held.position in survivors else held.mask_key_share)
        for held in state.held
    ]
    if state.position in survivors:
        shares.append(RevealedShare(state.position, state.own_seed_share))
    shares.sort(key=lambda share: share.position)
    return Finished(), Reply(UnmaskingShares(tuple(shares)))
