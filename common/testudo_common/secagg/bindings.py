"""What each digest, signature, key and tag of the protocol is bound to: the one place where both sides read it.

Everything names its round or its group, and its direction where it has one. Nothing here decides anything.
"""

from __future__ import annotations

from testudo_common.secagg.messages import Advertisement, CommitmentEntry
from testudo_common.secagg.primitives import derive, digest, number, sign, tag, verify


def seed_digest_of(seed: bytes) -> bytes:
    """H(b): what a recovered seed is compared with."""
    return digest("seed", seed)


def commitments_digest(entries: tuple[CommitmentEntry, ...]) -> bytes:
    """32 bytes that name a list of commitments."""
    return digest("commitments", *(part for entry in entries for part in (entry.client_id.encode(), entry.commitment)))


def sign_advertisement(
    signing_key: bytes,
    round_context: bytes,
    listed: bytes,
    *,
    channel_key: bytes,
    mask_key: bytes,
    seed_digest: bytes,
    nonce: bytes,
) -> Advertisement:
    """An advertisement, signed for the round and for the list of commitments that ``listed`` names."""
    fields = (channel_key, mask_key, seed_digest, nonce)
    return Advertisement(*fields, sign(signing_key, "advertisement", round_context, listed, *fields))


def verify_advertisement(key: bytes, round_context: bytes, listed: bytes, shown: Advertisement) -> None:
    """Check an advertisement against its client's roster key.

    Raises:
        ProtocolError: It was not signed with that key, for that round and list.
    """
    fields = (shown.channel_key, shown.mask_key, shown.seed_digest, shown.nonce)
    verify(key, shown.signature, "advertisement", round_context, listed, *fields)


def sealing_context(context: bytes, sender: int, receiver: int) -> bytes:
    """What a sealed share is bound to besides its key."""
    return digest("shares", context, number(sender), number(receiver))


def own_mask_key(seed: bytes, context: bytes) -> bytes:
    """The key of a member's own mask."""
    return derive(seed, "own mask", context)


def pair_mask_key(shared: bytes, context: bytes, one: int, other: int) -> bytes:
    """The key of the mask between two members; the one at the lower position adds it, the other subtracts it."""
    low, high = sorted((one, other))
    return derive(shared, "pair mask", context, number(low), number(high))


def survivors_digest(context: bytes, survivors: tuple[int, ...]) -> bytes:
    """32 bytes that name a group's survivor set."""
    return digest("survivors", context, *(number(position) for position in survivors))


def confirmation_tag(key: bytes, shown: bytes, sender: int, receiver: int) -> bytes:
    """What ``sender`` tells ``receiver``: that the survivor set it was shown is the one that ``shown`` names."""
    return tag(key, "confirmation", shown, number(sender), number(receiver))
