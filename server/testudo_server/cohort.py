"""Who is asked in a round: those asked least so far, ties broken by a seeded draw. Pure.

Even turns, not independent sampling: every client spends the same, and no privacy amplification is claimed from it.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Collection, Mapping

from testudo_common.plan import FederationPlan
from testudo_common.privacy.planned import held_back_of


def held_back(plan: FederationPlan, clients: Collection[str]) -> frozenset[str]:
    """The clients that do not train before the last round: the first by SHA-256 of plan and name; nobody in most plans.

    Args:
        plan: Complete.
        clients: All that are known.
    """

    def rank(client: str) -> bytes:
        return hashlib.sha256(f"{plan.digest}|held back|{client}".encode()).digest()

    return frozenset(heapq.nsmallest(held_back_of(plan, len(clients)), clients, key=rank))


def turn_of(plan: FederationPlan, round_number: int, finished: Mapping[str, int]) -> Collection[str]:
    """Who may be drawn in a round: everybody, but those held back only in the last one, and then nobody else.

    Where too few that never trained are left for the last round, it is everybody's: what they find out is then not
    about newcomers, and is not used.

    Args:
        plan: Complete.
        round_number: 1 and up.
        finished: Client id -> finished rounds that it was asked in.
    """
    if plan.calibration.held_back == 0:
        return finished.keys()
    everybody = frozenset(finished)
    if not plan.calibrates_in(round_number):
        return everybody - held_back(plan, everybody)
    strangers = frozenset(client for client, times in finished.items() if times == 0)
    return strangers if len(strangers) >= plan.fewest_asked else everybody


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
