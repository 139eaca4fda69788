"""What each digest, signature, key and tag is bound to: whatever of it changes, it is another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from itertools import combinations
from typing import Any

import pytest

from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg.bindings import (
    commitments_digest,
    confirmation_tag,
    own_mask_key,
    pair_mask_key,
    sealing_context,
    seed_digest_of,
    sign_advertisement,
    survivors_digest,
    verify_advertisement,
)
from testudo_common.secagg.messages import Advertisement, CommitmentEntry
from testudo_common.secagg.primitives import verification_key

A, B = b"a" * 32, b"b" * 32
ADA, BOB = CommitmentEntry("ada", A), CommitmentEntry("bob", B)

# name -> (function, arguments, each a change of one of them)
BOUND: dict[str, tuple[Callable[..., bytes], list[tuple[Any, ...]]]] = {
    "seed digest": (seed_digest_of, [(A,), (B,)]),
    "commitments": (
        commitments_digest,
        [
            ((ADA, BOB),),
            ((ADA,),),
            ((),),
            ((BOB, ADA),),
            ((ADA, replace(BOB, commitment=A)),),
            ((ADA, replace(BOB, client_id="bobby")),),
        ],
    ),
    "sealing": (sealing_context, [(A, 0, 1), (B, 0, 1), (A, 1, 0), (A, 0, 2), (A, 2, 1)]),
    "own mask": (own_mask_key, [(A, B), (B, B), (A, A)]),
    "pair mask": (pair_mask_key, [(A, B, 0, 1), (B, B, 0, 1), (A, A, 0, 1), (A, B, 0, 2), (A, B, 1, 2)]),
    "survivors": (survivors_digest, [(A, (0, 1)), (B, (0, 1)), (A, (0, 1, 2)), (A, (0,)), (A, (1, 0)), (A, (0, 2))]),
    "confirmation": (
        confirmation_tag,
        [(A, B, 0, 1), (B, B, 0, 1), (A, A, 0, 1), (A, B, 1, 0), (A, B, 0, 2), (A, B, 2, 1)],
    ),
}


@pytest.mark.parametrize(("bind", "cases"), BOUND.values(), ids=BOUND.keys())
def test_each_part_counts(bind: Callable[..., bytes], cases: list[tuple[Any, ...]]) -> None:
    found = [bind(*arguments) for arguments in cases]
    assert len(set(found)) == len(cases)
    assert [bind(*arguments) for arguments in cases] == found


def test_no_two_purposes_share_a_value() -> None:
    found = [set(map(bytes, (bind(*arguments) for arguments in cases))) for bind, cases in BOUND.values()]
    assert not any(one & other for one, other in combinations(found, 2))


def test_both_members_of_a_pair_have_one_mask() -> None:
    assert pair_mask_key(A, B, 3, 8) == pair_mask_key(A, B, 8, 3)


SIGNING = bytes(range(32))
KEYS = {"channel_key": b"1" * 32, "mask_key": b"2" * 32, "seed_digest": b"3" * 32, "nonce": b"4" * 32}
SHOWN = sign_advertisement(SIGNING, A, B, **KEYS)


def test_an_advertisement_that_holds() -> None:
    verify_advertisement(verification_key(SIGNING), A, B, SHOWN)
    assert {item.name: getattr(SHOWN, item.name) for item in fields(Advertisement)} == {
        **KEYS,
        "signature": SHOWN.signature,
    }


@pytest.mark.parametrize(
    ("context", "listed", "shown"),
    [
        (B, B, SHOWN),
        (A, A, SHOWN),
        (B, A, SHOWN),
        *((A, B, replace(SHOWN, **{name: b"5" * 32})) for name in KEYS),
        (A, B, replace(SHOWN, channel_key=SHOWN.mask_key, mask_key=SHOWN.channel_key)),
        (A, B, replace(SHOWN, signature=bytes(64))),
    ],
    ids=["another round", "another list", "round as list", *KEYS, "keys exchanged", "no signature"],
)
def test_an_advertisement_that_does_not_hold(context: bytes, listed: bytes, shown: Advertisement) -> None:
    with pytest.raises(ProtocolError) as caught:
        verify_advertisement(verification_key(SIGNING), context, listed, shown)
    assert caught.value.breach is Breach.SIGNATURE
