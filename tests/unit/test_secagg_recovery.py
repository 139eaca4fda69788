"""Secrets out of shares some of which are wrong: the secret is right or there is none, and wrong shares are found."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from itertools import combinations
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg import decoding, recovery, shamir
from testudo_common.secagg.decoding import _solve, places_in_error
from testudo_common.secagg.recovery import Holding, _subsets, recover_secrets

NAMES = tuple(f"owner-{place}" for place in range(40))


def secret_of(owner: int) -> bytes:
    return hashlib.sha256(bytes((owner,))).digest()


def shares_of(owner: int, threshold: int, holders: Collection[int]) -> dict[int, bytes]:
    points = [place + 1 for place in holders]
    [shares] = shamir.split((secret_of(owner),), threshold, points)
    return {place: shamir.share_to_bytes(share) for place, share in zip(holders, shares, strict=True)}


def holding(owner: int, shares: dict[int, bytes]) -> Holding:
    def proves(secret: bytes) -> bool:
        return secret == secret_of(owner)

    return Holding(owner, shares, proves)


def shifted(share: bytes, by: int | shamir.Field) -> bytes:
    """Another share of the field."""
    return shamir.share_to_bytes((shamir.share_from_bytes(share) + by) % shamir.PRIME)


def spoil(shares: dict[int, bytes], liars: Collection[int]) -> dict[int, bytes]:
    """Each liar is off by a number of its own in each limb, so that no polynomial runs through several of them; with
    one number for all limbs, a subset of them in a few hundred thousand has the right secret all the same."""
    off = {
        place: np.frombuffer(hashlib.sha256(bytes((place,))).digest(), dtype=">u2").astype(np.int64) for place in liars
    }
    return {place: shifted(share, off[place]) if place in off else share for place, share in shares.items()}


def test_secrets_of_many_owners_at_once() -> None:
    holders = range(3, 10)
    holdings = [holding(owner, shares_of(owner, 4, holders)) for owner in range(6)]
    assert recover_secrets(holdings, 4, NAMES) == ({owner: secret_of(owner) for owner in range(6)}, set())


def test_owners_have_holders_of_their_own() -> None:
    holdings = [holding(owner, shares_of(owner, 3, range(owner, owner + 3 + owner))) for owner in range(5)]
    assert recover_secrets(holdings, 3, NAMES) == ({owner: secret_of(owner) for owner in range(5)}, set())


def test_no_secrets() -> None:
    assert recover_secrets([], 4, NAMES) == ({}, set())


@given(st.integers(2, 6), st.data())
@settings(max_examples=50, deadline=None)
def test_wrong_shares_are_found_while_t_are_right(threshold: int, data: st.DataObject) -> None:
    holders = sorted(data.draw(st.sets(st.integers(0, 39), min_size=threshold, max_size=threshold + 5)))
    liars = data.draw(st.sets(st.sampled_from(holders), max_size=len(holders) - threshold))
    shares = spoil(shares_of(0, threshold, holders), liars)
    secrets, disputes = recover_secrets([holding(0, shares)], threshold, NAMES)
    assert secrets == {0: secret_of(0)}
    in_the_way = liars & set(holders[:threshold])  # nobody looks at shares to spare while the first t prove right
    assert disputes == ({(0, liar) for liar in liars} if in_the_way else set())


def test_wrong_shares_of_different_secrets_are_all_found() -> None:
    """The search for one leads to those of the others, needed or not."""
    shares = [shares_of(owner, 3, range(6)) for owner in range(4)]
    holdings = [
        holding(0, shares[0]),
        holding(1, spoil(shares[1], [0])),
        holding(2, spoil(shares[2], [1, 5])),
        holding(3, spoil(shares[3], [4])),
    ]
    secrets, disputes = recover_secrets(holdings, 3, NAMES)
    assert secrets == {owner: secret_of(owner) for owner in range(4)}
    assert disputes == {(1, 0), (2, 1), (2, 5), (3, 4)}


def test_owners_with_different_numbers_of_holders() -> None:
    shares = [spoil(shares_of(owner, 3, range(4 + 2 * owner)), [1]) for owner in range(3)]
    secrets, disputes = recover_secrets([holding(owner, shares[owner]) for owner in range(3)], 3, NAMES)
    assert secrets == {owner: secret_of(owner) for owner in range(3)}
    assert disputes == {(0, 1), (1, 1), (2, 1)}


def test_who_lied_once_comes_last_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A liar costs one search, not one for each secret."""
    searched = []

    def decode(wrong: Holding, *rest: Any) -> Any:
        searched.append(wrong.owner)
        return found_by(wrong, *rest)

    found_by = recovery._decode
    monkeypatch.setattr(recovery, "_decode", decode)
    holdings = [holding(owner, spoil(shares_of(owner, 10, range(20)), [0, 3])) for owner in range(20)]
    secrets, disputes = recover_secrets(holdings, 10, NAMES)
    assert secrets == {owner: secret_of(owner) for owner in range(20)}
    assert disputes == {(owner, liar) for owner in range(20) for liar in (0, 3)}
    assert searched == [0]


OUT_OF_FIELD = shamir.PRIME.to_bytes(4, "big") * shamir.LIMBS
ALL_ONES = b"\xff" * shamir.SHARE_BYTES


@pytest.mark.parametrize("wrong", [OUT_OF_FIELD, ALL_ONES, bytes(shamir.SHARE_BYTES)], ids=["p", "2^32 - 1", "zero"])
@pytest.mark.parametrize("holders", [4, 6], ids=["no share to spare", "shares to spare"])
def test_a_share_that_is_no_share_is_wrong(wrong: bytes, holders: int) -> None:
    shares = {**shares_of(0, 3, range(holders)), 1: wrong}
    assert recover_secrets([holding(0, shares)], 3, NAMES) == ({0: secret_of(0)}, {(0, 1)})


def test_a_limb_that_gives_no_bytes_is_looked_into() -> None:
    """The wrong share moves a limb to 65536, which is no 16 bits: not an error, but a wrong share to be found."""
    secret = bytes(32)
    shares = np.array([[(3 * point) % shamir.PRIME] * shamir.LIMBS for point in (1, 2, 3)])  # f(x) = 0 + 3 x
    shares[0] = shares[0] - pow(2, -1, shamir.PRIME)  # f(0) = 2 f(1) - f(2) becomes -1
    data = {place: shamir.share_to_bytes(share % shamir.PRIME) for place, share in enumerate(shares)}

    def proves(found: bytes) -> bool:
        return found == secret

    assert recover_secrets([Holding(7, data, proves)], 2, NAMES) == ({7: secret}, {(7, 0)})


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_too_few_shares(kept: int) -> None:
    shares = dict(list(shares_of(5, 3, range(4)).items())[:kept])
    with pytest.raises(ProtocolError, match=f"{kept} shares of a secret of 'owner-5', and 3 are needed") as caught:
        recover_secrets([holding(4, shares_of(4, 3, range(4))), holding(5, shares)], 3, NAMES)
    assert caught.value.breach is Breach.TOO_FEW


def test_too_few_that_tell_the_truth() -> None:
    shares = spoil(shares_of(0, 3, range(5)), [0, 2, 4])
    with pytest.raises(ProtocolError, match="'owner-0' do not give it back") as caught:
        recover_secrets([holding(0, shares)], 3, NAMES)
    assert caught.value.breach is Breach.SHARE


def test_too_few_that_are_shares() -> None:
    shares = {**shares_of(0, 3, range(4)), 1: OUT_OF_FIELD, 2: ALL_ONES}
    with pytest.raises(ProtocolError, match="do not give it back") as caught:
        recover_secrets([holding(0, shares)], 3, NAMES)
    assert caught.value.breach is Breach.SHARE


def test_an_owner_who_dealt_shares_of_something_else() -> None:
    shares = shares_of(1, 3, range(5))
    with pytest.raises(ProtocolError, match="the owner dealt wrong shares") as caught:
        recover_secrets([holding(0, shares)], 3, NAMES)
    assert caught.value.breach is Breach.SHARE
    assert not any(share.hex() in str(caught.value) for share in shares.values())


@pytest.mark.parametrize("place", [0, 1])
def test_a_share_written_another_way_is_wrong(place: int) -> None:
    """A limb and the limb plus p are the same element of the field: only one of them is a share."""
    shares = shares_of(0, 3, range(5))
    limb = int.from_bytes(shares[place][:4], "big") + shamir.PRIME
    shares[place] = limb.to_bytes(4, "big") + shares[place][4:]
    assert recover_secrets([holding(0, shares)], 3, NAMES) == ({0: secret_of(0)}, {(0, place)})


def test_two_that_collude_can_bring_a_third_into_dispute() -> None:
    """Why a dispute is no proof. Nine of ten are needed.

    Holders 0 and 1 add x (x - 4) ... (x - 10) to what they hold of every secret.

    That is nothing at zero and at the points of holders 3 to 9, so these nine give the right secret by a wrong
    polynomial, and it is holder 2 that is not on it.
    """

    def added(x: int) -> int:
        return x * math.prod(x - other for other in range(4, 11)) % shamir.PRIME

    holdings = []
    for owner in range(10):
        shares = shares_of(owner, 9, range(10))
        wrong = {place: shifted(shares[place], added(place + 1)) for place in (0, 1)}
        holdings.append(holding(owner, {**shares, **wrong}))
    secrets, disputes = recover_secrets(holdings, 9, NAMES)
    assert secrets == {owner: secret_of(owner) for owner in range(10)}
    assert {holder for _, holder in disputes} == {2}


def test_the_search_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five right ones of ten, at the end: 252 sets to try. With fewer tries allowed it is a typed error."""
    shares = spoil(shares_of(0, 5, range(10)), range(5))
    assert recover_secrets([holding(0, shares)], 5, NAMES) == ({0: secret_of(0)}, {(0, liar) for liar in range(5)})
    tried = 0

    def proves(secret: bytes) -> bool:
        nonlocal tried
        tried += 1
        return secret == secret_of(0)

    monkeypatch.setattr(recovery, "MAX_TRIES", 100)
    with pytest.raises(ProtocolError, match="do not give it back") as caught:
        recover_secrets([Holding(0, shares, proves)], 5, NAMES)
    assert caught.value.breach is Breach.SHARE
    assert tried <= 101


def test_the_bound_itself() -> None:
    """Of 24 holders, half are wrong: far more than 4096 sets."""
    shares = spoil(shares_of(0, 12, range(24)), range(12))
    with pytest.raises(ProtocolError, match="do not give it back"):
        recover_secrets([holding(0, shares)], 12, NAMES)


@pytest.mark.parametrize(("count", "threshold"), [(1, 1), (4, 1), (4, 4), (5, 3), (8, 4)])
def test_after_what_decoding_says_every_set_of_holders_is_tried_once(count: int, threshold: int) -> None:
    places = list(range(10, 10 + count))
    rng = np.random.default_rng(0)
    first, *tried = _subsets({place: rng.integers(shamir.PRIME, size=shamir.LIMBS) for place in places}, threshold)
    assert set(first) <= set(places)
    assert len(tried) == len(set(tried))
    assert {frozenset(subset) for subset in tried} == {frozenset(subset) for subset in combinations(places, threshold)}
    reach = [max(subset) for subset in tried]
    assert reach == sorted(reach), "one holder more at a time"


# Decoding.


def weights(shape: tuple[int, int]) -> shamir.Field:
    """None of them is zero, so that an error of one limb is an error of the combination."""
    return np.arange(1, 1 + math.prod(shape), dtype=np.int64).reshape(shape)


@given(st.integers(1, 8), st.integers(0, 8), st.data())
@settings(max_examples=100, deadline=None)
def test_up_to_half_of_the_spare_shares_may_be_wrong(threshold: int, spare: int, data: st.DataObject) -> None:
    """All wrong ones are left out; nobody else, when they are as many as can be."""
    holders = sorted(data.draw(st.sets(st.integers(0, 65535), min_size=threshold + spare, max_size=threshold + spare)))
    wrong = data.draw(st.sets(st.sampled_from(holders), max_size=spare // 2))
    points = np.array(holders, dtype=np.int64) + 1
    shares = shamir.split((secret_of(0),), threshold, points.tolist())[0].copy()
    for place in wrong:
        index = holders.index(place)
        limb, by = data.draw(st.integers(0, shamir.LIMBS - 1)), data.draw(st.integers(1, shamir.PRIME - 1))
        shares[index, limb] = (shares[index, limb] + by) % shamir.PRIME
    with patch.object(decoding, "uniform", weights):
        errors = places_in_error(points, shares, threshold)
    left_out = {place for place, error in zip(holders, errors, strict=True) if error}
    assert wrong <= left_out
    assert len(left_out) <= spare // 2
    if len(wrong) == spare // 2:
        assert left_out == wrong


def test_more_than_half_may_be_decoded_to_anything_but_not_too_many_are_left_out() -> None:
    for seed in range(20):
        shares = np.random.default_rng(seed).integers(shamir.PRIME, size=(9, shamir.LIMBS))
        assert places_in_error(np.arange(1, 10), shares, 4).sum() <= 2


def test_linear_systems() -> None:
    """Against products with what was chosen: full rank, free unknowns, too many equations; and no solution."""
    rng = np.random.default_rng(0)
    for rows, columns, rank in ((4, 4, 4), (4, 6, 4), (6, 4, 4), (6, 6, 3), (5, 5, 0)):
        left, right = rng.integers(shamir.PRIME, size=(rows, rank)), rng.integers(shamir.PRIME, size=(rank, columns))
        matrix = (left[:, :, None] * right[None] % shamir.PRIME).sum(axis=1) % shamir.PRIME
        chosen = rng.integers(shamir.PRIME, size=columns)
        product = (matrix * chosen % shamir.PRIME).sum(axis=1) % shamir.PRIME
        found = _solve(matrix, product)
        np.testing.assert_array_equal((matrix * found % shamir.PRIME).sum(axis=1) % shamir.PRIME, product)
    assert _solve(np.zeros((2, 3), dtype=np.int64), np.ones(2, dtype=np.int64)).tolist() == [0, 0, 0]


def test_shares_are_not_printed() -> None:
    shares = shares_of(0, 2, range(2))
    assert repr(holding(0, shares)) == "Holding(owner=0)"
