"""The coin and the partition: everybody once, by nobody's choice, and the same for whoever looks."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from testudo_common.secagg.groups import commitment_to, draw_coin, largest_group, partition

digests = st.binary(min_size=32, max_size=32)
cohorts = st.lists(st.text(max_size=6), max_size=40, unique=True)


def coin_of(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(4, "big")).digest()


@given(digests, cohorts, st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_everybody_is_in_one_group(coin: bytes, clients: list[str], group_size: int) -> None:
    groups = partition(coin, clients, group_size)
    assert sorted(client for group in groups for client in group) == sorted(clients)
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= largest_group(len(clients), group_size)
    if len(clients) >= group_size:
        assert group_size <= min(sizes) <= max(sizes) <= 2 * group_size - 1
    else:
        assert len(groups) == 1


@given(digests, cohorts, st.integers(1, 12), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_of_the_clients_changes_nothing(coin: bytes, clients: list[str], group_size: int, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(clients)
    random.shuffle(shuffled)
    assert partition(coin, shuffled, group_size) == partition(coin, iter(clients), group_size)


@pytest.mark.parametrize(
    ("clients", "group_size", "sizes"),
    [
        (0, 4, [0]),
        (3, 4, [3]),
        (4, 4, [4]),
        (7, 4, [7]),
        (8, 4, [4, 4]),
        (11, 4, [5, 6]),
        (12, 4, [4, 4, 4]),
        (14, 4, [4, 5, 5]),
    ],
)
def test_known_sizes(clients: int, group_size: int, sizes: list[int]) -> None:
    groups = partition(coin_of(0), map(str, range(clients)), group_size)
    assert sorted(len(group) for group in groups) == sizes
    assert max(sizes) <= largest_group(clients, group_size)


def test_known_answer() -> None:
    """By the definition, from hashlib alone: by the digest of label, coin and name, each behind its length."""

    def place(coin: bytes, client: str) -> bytes:
        hashed = b"testudo-secagg-1"
        for part in (b"place", coin, client.encode()):
            hashed += len(part).to_bytes(8, "big") + part
        return hashlib.sha256(hashed).digest()

    clients, coin = ["ada", "bob", "cyd", "dan", "eve", "fay"], coin_of(1)
    order = sorted(clients, key=lambda client: place(coin, client))
    assert partition(coin, clients, 3) == (tuple(order[:3]), tuple(order[3:]))


def test_another_coin_gives_other_groups() -> None:
    clients = [str(number) for number in range(20)]
    assert len({partition(coin_of(number), clients, 5) for number in range(50)}) == 50


def test_every_client_is_equally_likely_in_every_place() -> None:
    """Chi-square over places of all clients with 3000 fixed coins; and so over groups and positions in them."""
    clients = [f"client {number}" for number in range(12)]
    found: Counter[tuple[str, int]] = Counter()
    coins = 3000
    for number in range(coins):
        groups = partition(coin_of(number), clients, 4)
        found.update((client, place) for place, client in enumerate(sum(groups, ())))
    expected = coins / 12
    statistic = sum((found[client, place] - expected) ** 2 / expected for client in clients for place in range(12))
    assert statistic < chi2.isf(1e-4, 11 * 11)


def test_every_two_clients_are_equally_likely_together() -> None:
    clients = [str(number) for number in range(8)]
    coins = 3000
    together: Counter[frozenset[str]] = Counter()
    for number in range(coins):
        for group in partition(coin_of(number), clients, 4):
            together.update(frozenset((one, other)) for one in group for other in group if one < other)
    assert len(together) == 28
    expected = coins * 3 / 7
    assert all(abs(count - expected) < 5 * (coins * 3 / 7 * 4 / 7) ** 0.5 for count in together.values())


def test_a_commitment_depends_on_each_part() -> None:
    parts = (bytes(32), bytes(32), "ada")
    found = {
        commitment_to(*parts),
        commitment_to(b"n" * 32, *parts[1:]),
        commitment_to(parts[0], b"c" * 32, parts[2]),
        commitment_to(*parts[:2], "eve"),
        commitment_to(*parts[:2], ""),
    }
    assert len(found) == 5
    assert {len(commitment) for commitment in found} == {32}


def test_a_coin_depends_on_each_part() -> None:
    context, listed = bytes(32), b"l" * 32
    nonces = [("ada", b"1" * 32), ("bob", b"2" * 32)]
    found = {
        draw_coin(context, listed, nonces),
        draw_coin(listed, context, nonces),
        draw_coin(b"c" * 32, listed, nonces),
        draw_coin(context, b"m" * 32, nonces),
        draw_coin(context, listed, nonces[:1]),
        draw_coin(context, listed, nonces[1:]),
        draw_coin(context, listed, nonces[::-1]),
        draw_coin(context, listed, [("adb", b"1" * 32), nonces[1]]),
        draw_coin(context, listed, [nonces[0], ("bob", b"3" * 32)]),
        draw_coin(context, listed, [("ada", b"2" * 32), ("bob", b"1" * 32)]),
        draw_coin(context, listed, []),
    }
    assert len(found) == 11
    assert draw_coin(context, listed, iter(nonces)) in found


@given(digests, digests, digests)
@settings(max_examples=25, deadline=None)
def test_coin_and_commitment_are_never_each_other(nonce: bytes, context: bytes, listed: bytes) -> None:
    assert commitment_to(nonce, context, "ada") != draw_coin(context, listed, [("ada", nonce)])


def test_the_largest_group() -> None:
    assert [largest_group(cohort, 4) for cohort in (1, 4, 7, 8, 100)] == [1, 4, 7, 7, 7]
    assert largest_group(100, 1) == 1
