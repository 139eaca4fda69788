"""Shamir's sharing against an independent one in Python's whole numbers, limb by limb."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg import shamir
from testudo_common.secagg.shamir import (
    LIMBS,
    PRIME,
    SHARE_BYTES,
    evaluate,
    recover,
    share_from_bytes,
    share_to_bytes,
    split,
)

secrets32 = st.binary(min_size=32, max_size=32)
elements = st.integers(0, PRIME - 1)


def horner(coefficients: Sequence[int], at: int) -> int:
    """A polynomial's value; the constant term comes first."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * at + coefficient) % PRIME
    return value


def lagrange(points: Sequence[int], values: Sequence[int], at: int) -> int:
    """The value at ``at`` of the polynomial through points and values."""
    total = 0
    for i, (x, y) in enumerate(zip(points, values, strict=True)):
        over = under = 1
        for j, other in enumerate(points):
            if j != i:
                over, under = over * (at - other) % PRIME, under * (x - other) % PRIME
        total += y * over * pow(under, -1, PRIME)
    return total % PRIME


def limbs_of(secret: bytes) -> list[int]:
    return [int.from_bytes(secret[i : i + 2], "big") for i in range(0, 32, 2)]


def recover_one(points: Sequence[int], shares: Sequence[Sequence[int]]) -> bytes | None:
    [secret] = recover(np.array([points], dtype=np.int64), np.array([shares], dtype=np.int64))
    return secret


@st.composite
def sharings(draw: st.DrawFn) -> tuple[list[bytes], int, list[int]]:
    """Secrets, a threshold, and the holders' points."""
    points = draw(st.lists(st.integers(1, PRIME - 1), min_size=1, max_size=12, unique=True))
    return draw(st.lists(secrets32, min_size=1, max_size=3)), draw(st.integers(1, len(points))), points


@given(sharings(), st.data())
@settings(max_examples=50, deadline=None)
def test_any_t_of_n_give_it_back(sharing: tuple[list[bytes], int, list[int]], data: st.DataObject) -> None:
    secrets, threshold, points = sharing
    shares = split(tuple(secrets), threshold, points)
    assert shares.shape == (len(secrets), len(points), LIMBS)
    assert 0 <= shares.min() <= shares.max() < PRIME
    chosen = data.draw(st.permutations(range(len(points))))[:threshold]
    taken = np.array([[points[i] for i in chosen]] * len(secrets), dtype=np.int64)
    assert recover(taken, shares[:, chosen]) == secrets
    for secret, held in zip(secrets, shares, strict=True):
        slow = [lagrange(taken[0].tolist(), held[chosen, limb].tolist(), 0) for limb in range(LIMBS)]
        assert slow == limbs_of(secret)


@given(sharings())
@settings(max_examples=50, deadline=None)
def test_shares_lie_on_polynomials_of_degree_t_less_one(sharing: tuple[list[bytes], int, list[int]]) -> None:
    """The first t fix the polynomial; all the others, and its value elsewhere, are on it."""
    secrets, threshold, points = sharing
    shares = split(tuple(secrets), threshold, points)
    first = np.array([points[:threshold]] * len(secrets), dtype=np.int64)
    everywhere = [*points, 0, 1, PRIME - 1]
    found = evaluate(first, shares[:, :threshold], np.array([everywhere] * len(secrets), dtype=np.int64))
    np.testing.assert_array_equal(found[:, : len(points)], shares)
    for index in range(len(secrets)):
        slow = [lagrange(points[:threshold], shares[index, :threshold, 7].tolist(), at) for at in everywhere]
        assert found[index, :, 7].tolist() == slow


def test_known_answer() -> None:
    """f(x) = limb + 3 x + 65536 x^2 for each limb, in Python's whole numbers."""
    secret = bytes(range(32))
    points = [1, 2, 1000, 65536]
    shares = [[horner([limb, 3, 65536], point) for limb in limbs_of(secret)] for point in points]
    assert shares[0][:2] == [0x0001 + 2, 0x0203 + 2]
    for left_out in range(4):
        kept = [i for i in range(4) if i != left_out]
        assert recover_one([points[i] for i in kept], [shares[i] for i in kept]) == secret
    assert recover_one(points[:2], shares[:2]) != secret


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_one_share_less_is_consistent_with_every_secret(data: st.DataObject) -> None:
    """For any limb there is a polynomial through t - 1 shares: they exclude nothing, and it is the only one."""
    threshold = data.draw(st.integers(2, 6))
    points = list(range(1, threshold + 1))
    shares = split((data.draw(secrets32),), threshold, points)[0]
    known, other = points[:-1], points[-1]
    for limb in (0, 1, 40000, 65535, data.draw(st.integers(0, 65535))):
        pretended = [lagrange([0, *known], [limb, *shares[:-1, place].tolist()], other) for place in range(LIMBS)]
        again = recover_one(points, [*shares[:-1].tolist(), pretended])
        assert again == limb.to_bytes(2, "big") * LIMBS


def test_every_last_share_is_another_secret() -> None:
    """With t - 1 shares fixed, the secret runs through the whole field as the last one does: none is likelier."""
    last = np.arange(PRIME, dtype=np.int64)
    points = np.broadcast_to(np.array([3, 5, 9], dtype=np.int64), (PRIME, 3))
    shares = np.empty((PRIME, 3, LIMBS), dtype=np.int64)
    shares[:, 0], shares[:, 1], shares[:, 2] = 123, 45678, last[:, None]
    secrets = evaluate(points, shares, np.zeros((PRIME, 1), dtype=np.int64))[:, 0, 0]
    assert len(np.unique(secrets)) == PRIME


def test_extreme_coefficients_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """All coefficients -1 and the largest powers: the float64 product still rounds nowhere."""

    def largest(shape: tuple[int, int]) -> shamir.Field:
        return np.full(shape, PRIME - 1, dtype=np.int64)

    monkeypatch.setattr(shamir, "uniform", largest)
    threshold, points = 700, [*range(1, 700), PRIME - 1]
    shares = split((32 * b"\xff",), threshold, points)
    coefficients = [0xFFFF, *[PRIME - 1] * (threshold - 1)]
    assert shares[0, :, 0].tolist() == [horner(coefficients, point) for point in points]


def test_a_large_group() -> None:
    secrets = (bytes(range(32)), 32 * b"\xff")
    points = list(range(1, 302))
    shares = split(secrets, 201, points)
    taken = np.array([points[-201:]] * 2, dtype=np.int64)
    assert recover(taken, shares[:, -201:]) == list(secrets)


def test_shares_differ_from_time_to_time() -> None:
    secret = (bytes(32),)
    assert not np.array_equal(split(secret, 2, [1, 2]), split(secret, 2, [1, 2]))


def test_coefficients_are_uniform_words_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words that would make the low residues likelier are drawn again, as often as they come."""
    past = b"\xff\xff\xff\xff"
    answers = [past + (65536).to_bytes(4, "little") + past + (65538).to_bytes(4, "little"), past + b"\5\0\0\0"]
    answers += [(PRIME * 9 + 7).to_bytes(4, "little")]
    asked: list[int] = []

    def token_bytes(count: int) -> bytes:
        asked.append(count)
        return answers[len(asked) - 1]

    monkeypatch.setattr(shamir, "os_random", SimpleNamespace(token_bytes=token_bytes))
    assert shamir.uniform((2, 2)).tolist() == [[7, 65536], [5, 1]]
    assert asked == [16, 8, 4]


def test_the_last_word_but_one_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 65535 * PRIME == (1 << 32) - 1, "so the largest word is the only one past the last multiple"
    word = ((1 << 32) - 2).to_bytes(4, "little")
    monkeypatch.setattr(shamir, "os_random", SimpleNamespace(token_bytes={4: word}.get))
    assert shamir.uniform((1, 1)).tolist() == [[PRIME - 1]]


def test_coefficients_of_the_whole_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only 16 bits: the largest element comes up too."""
    words = np.arange(PRIME, dtype="<u4").tobytes()
    monkeypatch.setattr(shamir, "os_random", SimpleNamespace(token_bytes={len(words): words}.get))
    assert shamir.uniform((1, PRIME))[0].tolist() == list(range(PRIME))


def test_shares_that_give_no_bytes() -> None:
    """A limb of 65536 is no 16 bits: some share is wrong."""
    good = [[horner([limb, 5], point) for limb in (65535,) * LIMBS] for point in (1, 2)]
    assert recover_one([1, 2], good) == 32 * b"\xff"
    for limb in range(LIMBS):
        wrong = [list(share) for share in good]
        for point, share in zip((1, 2), wrong, strict=True):
            share[limb] = horner([65536, 5], point)
        assert recover_one([1, 2], wrong) is None


@given(st.lists(elements, min_size=LIMBS, max_size=LIMBS))
@settings(max_examples=25, deadline=None)
def test_shares_as_bytes(limbs: list[int]) -> None:
    data = share_to_bytes(np.array(limbs, dtype=np.int64))
    assert data == b"".join(limb.to_bytes(4, "big") for limb in limbs)
    assert len(data) == SHARE_BYTES
    assert share_from_bytes(data).tolist() == limbs


@pytest.mark.parametrize("limb", [PRIME, PRIME + 1, 2**32 - 1])
@pytest.mark.parametrize("place", [0, LIMBS - 1])
def test_a_limb_that_is_not_in_the_field(limb: int, place: int) -> None:
    limbs = [0] * LIMBS
    limbs[place] = limb
    with pytest.raises(ProtocolError, match="not in the field") as caught:
        share_from_bytes(b"".join(value.to_bytes(4, "big") for value in limbs))
    assert caught.value.breach is Breach.SHARE


@pytest.mark.parametrize("limbs", [1, LIMBS - 1, LIMBS + 1])
def test_a_share_of_the_wrong_length(limbs: int) -> None:
    with pytest.raises(ProtocolError, match="not in the field"):
        share_from_bytes(bytes(4 * limbs))


@pytest.mark.parametrize(
    ("threshold", "points"),
    [
        (0, [1, 2]),
        (3, [1, 2]),
        (2, [1, 1]),
        (2, [0, 1]),
        (2, [1, PRIME]),
        (1, []),
    ],
    ids=[
        "threshold 0",
        "more than there are holders",
        "a point twice",
        "at zero, which is the secret",
        "at the prime, which is zero",
        "nobody",
    ],
)
def test_a_sharing_that_makes_no_sense(threshold: int, points: list[int]) -> None:
    with pytest.raises(AssertionError):
        split((bytes(32),), threshold, points)
