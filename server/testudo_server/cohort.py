"""Who is asked in a round: those asked least so far, ties broken by a seeded draw. Pure.

Even turns, not independent sampling: every client spends the same, and no privacy amplification is claimed from it.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Mapping


def draw_cohort(
    participations: Mapping[str, int], size: int, *, limit: int | None, seed: int, round_number: int
) -> tuple[str, ...]:
    """Up to ``size`` client ids, sorted.

    Args:
        participations: Client id -> rounds it was asked in so far.
        size: Clients wanted, 1 or more.
        limit: A client asked this often is not asked again; None for no limit.
        seed: Of the plan.
        round_number: 1 and up.
    """

    eligible = {client: count for client, count in participations.items() if limit is None or count < limit}
    if len(eligible) <= size:
        return tuple(sorted(eligible))
    room, last = size, 0
    for count, clients in sorted(Counter(eligible.values()).items()):
        last = count
        if clients >= room:
            break  # of those asked so often some are left out; of those asked less often, nobody
        room -= clients

    def ticket(client: str) -> bytes:
        return hashlib.sha256(f"{seed}|{round_number}|{client}".encode()).digest()

    before = [client for client, count in eligible.items() if count < last]
    tied = (client for client, count in eligible.items() if count == last)
    return tuple(sorted(before + heapq.nsmallest(room, tied, key=ticket)))
