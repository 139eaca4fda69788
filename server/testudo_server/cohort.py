"""Who is asked in a round: those asked least so far, ties broken by a seeded draw. Pure.

Even turns, not independent sampling: every client spends the same, and no privacy amplification is claimed from it.
"""

from __future__ import annotations

import hashlib
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

    def turn(client: str) -> tuple[int, bytes]:
        ticket = hashlib.sha256(f"{seed}|{round_number}|{client}".encode()).digest()
        return participations[client], ticket

    eligible = (client for client, count in participations.items() if limit is None or count < limit)
    return tuple(sorted(sorted(eligible, key=turn)[:size]))
