"""The public coin, and the partition of a cohort that it draws. Every client recomputes both; nobody chooses.

Each client commits to a nonce before it sees another one's, and reveals it afterwards; the coin is the hash of all
revealed nonces. As long as one of them is honest, nobody knew the groups when the cohort was fixed. A server can
still leave clients out after it has seen their nonces: how many is capped, and visible in the list of commitments.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from testudo_common.secagg.primitives import digest


def commitment_to(nonce: bytes, round_context: bytes, client_id: str) -> bytes:
    """What a client commits to its nonce with, 32 bytes."""
    return digest("nonce commitment", round_context, client_id.encode(), nonce)


def draw_coin(round_context: bytes, commitments_digest: bytes, nonces: Iterable[tuple[str, bytes]]) -> bytes:
    """The coin of a round, 32 bytes.

    Args:
        round_context: 32 bytes.
        commitments_digest: 32 bytes: of the list that everybody committed to.
        nonces: (client id, revealed nonce), in the order of the ids.
    """
    revealed = [part for client, nonce in nonces for part in (client.encode(), nonce)]
    return digest("public coin", round_context, commitments_digest, *revealed)


def partition(coin: bytes, clients: Iterable[str], group_size: int) -> tuple[tuple[str, ...], ...]:
    """Groups of at least ``group_size`` where there are so many clients; of nearly equal size, fewer than twice it.

    Args:
        coin: 32 bytes.
        clients: Distinct ids, in any order.
        group_size: 1 or more.

    Returns:
        The groups: g = max(1, n // group_size) of them, cut at n * i // g from the clients by rising
        ``digest("place", coin, id)``. The order within a group is random too, and gives its members their positions.
    """
    order = sorted(clients, key=lambda client: digest("place", coin, client.encode()))
    count = max(1, len(order) // group_size)
    bounds = [len(order) * group // count for group in range(count + 1)]
    return tuple(tuple(order[start:stop]) for start, stop in pairwise(bounds))


def largest_group(cohort_size: int, group_size: int) -> int:
    """The most members that a group of a cohort, or of a part of it, can have."""
    return min(cohort_size, 2 * group_size - 1)
