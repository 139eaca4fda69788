"""The clipping norm S between rounds, where a plan adapts it. Pure; the noise on the counts is inside the sums.

Source: Andrew, Thakkar, McMahan, Ramaswamy 2021 (arXiv:1905.03871), algorithm 1: geometric steps towards a quantile of
the norms, from the share of updates that were not clipped.
"""

from __future__ import annotations

import math

from testudo_common.plan import FederationPlan
from testudo_common.secure_terms import unclipped_share
from testudo_server.exchange import Collected

_LEAST_SHARE = 1e-3  # of the plan's own norm: noise on the counts must not take S so far down that nothing moves


def first_clip(plan: FederationPlan) -> float | None:
    """S of the first round: the plan's own norm, which is its ceiling too; None where the plan does not adapt it."""
    return plan.outer.max_update_norm if plan.adapts_clip else None


def next_clip(plan: FederationPlan, clip: float | None, collected: Collected) -> float | None:
    """S after a round: larger where more updates were clipped than the plan wants.

    Args:
        plan: Complete.
        clip: S of the round; None where the plan does not adapt it.
        collected: What the round brought in.
    """
    clients = sum(len(group.members) for group in collected.groups)
    if clip is None or clients == 0:
        return clip
    share = unclipped_share(plan, int(collected.counts[-1]), clients)
    if share is None:
        return clip
    private, most = plan.client_privacy, plan.outer.max_update_norm
    moved = clip * math.exp(-private.clip_learning_rate * (share - private.quantile))
    return min(most, max(_LEAST_SHARE * most, moved))
