"""What travels between clients and server, and its bytes. Only these fields have a place to stand in.

By example, a ``SurvivorSet`` of the members at positions 0, 2 and 3 is::

    01 | 07 | 00 00 00 03 | 00 00 | 00 02 | 00 03

a byte of version, one of kind, and the fields as codec.py writes them. Positions are places in the group's order,
which every client computes for itself; client ids are ordered by their code points. A masked vector travels beside its
message, as ``uint32[size]``, little-endian.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from testudo_common.secagg.codec import U16, Catalogue, Digest, Fixed, Many, Record, Text
from testudo_common.secagg.masking import Words
from testudo_common.secagg.primitives import TAG_BYTES
from testudo_common.secagg.shamir import SHARE_BYTES

VERSION = 1
SEALED_BYTES = 2 * SHARE_BYTES + 16
ClientId = Annotated[str, Text(512)]
Position = Annotated[int, U16]
Positions = Annotated[tuple[int, ...], Many(U16, 1 << 16)]
Tag = Annotated[bytes, Fixed(TAG_BYTES)]


@dataclass(frozen=True, slots=True)
class Commitment:
    """Client to server, step 0: what it commits to its nonce with."""

    commitment: Digest


@dataclass(frozen=True, slots=True)
class CommitmentEntry:
    """One client's commitment, with its name."""

    client_id: ClientId
    commitment: Digest


@dataclass(frozen=True, slots=True)
class CommitmentList:
    """Server to client, before step 1: the cohort's commitments, by rising client id."""

    entries: Annotated[tuple[CommitmentEntry, ...], Many(Record(CommitmentEntry))]


@dataclass(frozen=True, slots=True)
class Advertisement:
    """Client to server, step 1.

    Attributes:
        channel_key: c, an X25519 key for what is sent to neighbours.
        mask_key: s, an X25519 key for pairwise masks.
        seed_digest: H(b), of the seed of its own mask.
        nonce: That it committed to.
        signature: Ed25519 with its roster key, over the round's context, the digest of the list of commitments, and
            these fields in order.
    """

    channel_key: Digest
    mask_key: Digest
    seed_digest: Digest
    nonce: Digest
    signature: Annotated[bytes, Fixed(64)]


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """One client's advertisement, with its name."""

    client_id: ClientId
    advertisement: Annotated[Advertisement, Record(Advertisement)]


@dataclass(frozen=True, slots=True)
class Directory:
    """Server to client, before step 2: who revealed its nonce, by rising client id. The groups follow from it."""

    entries: Annotated[tuple[DirectoryEntry, ...], Many(Record(DirectoryEntry))]


@dataclass(frozen=True, slots=True)
class Sealed:
    """A ciphertext to or from the member at ``position``: a share of the seed and one of the mask key."""

    position: Position
    ciphertext: Annotated[bytes, Fixed(SEALED_BYTES)]


@dataclass(frozen=True, slots=True)
class SharedKeys:
    """Client to server, step 2: a ciphertext for each neighbour, by rising position."""

    ciphertexts: Annotated[tuple[Sealed, ...], Many(Record(Sealed), 1 << 16)]


@dataclass(frozen=True, slots=True)
class Deliveries:
    """Server to client, before step 3.

    Attributes:
        sharers: Positions of the members whose ciphertexts arrived, rising.
        ciphertexts: Those addressed to this client, by rising position of their sender.
    """

    sharers: Positions
    ciphertexts: Annotated[tuple[Sealed, ...], Many(Record(Sealed), 1 << 16)]


@dataclass(frozen=True, slots=True)
class MaskedInput:
    """Client to server, step 3: says that the vector beside it is this client's, masked."""


@dataclass(frozen=True, slots=True)
class SurvivorSet:
    """Server to client, before step 4: positions of the members whose masked inputs arrived, rising."""

    survivors: Positions


@dataclass(frozen=True, slots=True)
class ConfirmationTag:
    """A tag for or from the member at ``position``, over the group's context and the survivor set."""

    position: Position
    tag: Tag


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Client to server, step 4: a tag for each neighbour that survives, by rising position."""

    tags: Annotated[tuple[ConfirmationTag, ...], Many(Record(ConfirmationTag), 1 << 16)]


@dataclass(frozen=True, slots=True)
class Confirmations:
    """Server to client, before step 5: the tags addressed to this client, by rising position of their sender."""

    tags: Annotated[tuple[ConfirmationTag, ...], Many(Record(ConfirmationTag), 1 << 16)]


@dataclass(frozen=True, slots=True)
class RevealedShare:
    """A share of one secret of the member at ``position``: of its seed if it survived, of its mask key if not."""

    position: Position
    share: Annotated[bytes, Fixed(SHARE_BYTES)] = field(repr=False)


@dataclass(frozen=True, slots=True)
class UnmaskingShares:
    """Client to server, step 5: exactly one share for each neighbour that shared its keys, and for itself, rising."""

    shares: Annotated[tuple[RevealedShare, ...], Many(Record(RevealedShare), 1 << 16)]


ToClient = CommitmentList | Directory | Deliveries | SurvivorSet | Confirmations
ToServer = Commitment | Advertisement | SharedKeys | MaskedInput | Confirmation | UnmaskingShares

MESSAGES = Catalogue(
    VERSION,
    {
        1: Commitment,
        2: CommitmentList,
        3: Advertisement,
        4: Directory,
        5: SharedKeys,
        6: Deliveries,
        7: SurvivorSet,
        8: MaskedInput,
        9: Confirmation,
        10: Confirmations,
        11: UnmaskingShares,
    },
)


@dataclass(frozen=True, slots=True)
class Reply:
    """A client's answer: a message and, for a masked input, the vector beside it."""

    message: ToServer
    vector: Words | None = field(default=None, repr=False, compare=False)
