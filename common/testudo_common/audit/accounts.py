"""What a round must say was spent: recomputed from the charter's prices and the cohorts in the log. Knows no history.

A client that was asked has trained, whatever became of it, and anew for each attempt; but never more often than its own
ledger lets it, where the plan says how often that is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from testudo_common.audit.entries import Account, Charter, Price
from testudo_common.plan import FederationPlan
from testudo_common.privacy.events import SampledGaussian, Spending, compose

_TOLERANCE = 1e-9  # relative: of the same formula on another computer


def next_accounts(
    charter: Charter, plan: FederationPlan, trained: int, scored: int
) -> tuple[Account | None, Account | None]:
    """The accounts of the client that was asked most often, at the unit of an example and at that of a client.

    Args:
        charter: With the prices.
        plan: Of the charter.
        trained: Attempts at rounds that the client asked most often was asked in.
        scored: The same, of rounds that evaluate.

    Returns:
        None for a unit that the plan does not have.
    """
    if not plan.private and not plan.client_private:
        return None, None
    from testudo_common.privacy.planned import scored_participations  # numpy, which other plans can do without

    most = plan.rounds.max_participations
    capped = trained if most is None else min(trained, most)
    scored = min(scored, scored_participations(plan))
    sums = capped if plan.client_privacy.epsilon is not None else trained

    spent = (
        spending_of(charter.training).times(capped)
        + spending_of(charter.scores).times(scored)
        + spending_of(charter.sum).times(sums)
    )
    example = _account(spent.example, plan.privacy.delta) if plan.private else None
    client = _account(spent.client, plan.client_privacy.delta) if plan.client_private else None
    return example, client


def spending_of(price: Price) -> Spending:
    """A price of the charter, as what it costs."""
    return Spending(
        tuple(SampledGaussian(*event) for event in price.example),
        tuple(SampledGaussian(*event) for event in price.client),
    )


def same_account(one: Account | None, other: Account | None) -> bool:
    """Whether two accounts say the same, to the accuracy of another computer's arithmetic."""
    if one is None or other is None:
        return one is other
    return (
        one.delta == other.delta
        and _close(one.epsilon, other.epsilon)
        and len(one.events) == len(other.events)
        and all(
            mine[2] == its[2] and _close(mine[0], its[0]) and _close(mine[1], its[1])
            for mine, its in zip(one.events, other.events, strict=True)
        )
    )


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=_TOLERANCE)


def _account(events: Iterable[SampledGaussian], delta: float) -> Account:
    from testudo_common.privacy.accountant import epsilon_of

    composed = compose(events)
    epsilon = epsilon_of(composed, delta, "rdp")
    return Account(
        events=tuple((event.noise_multiplier, event.sample_rate, event.steps) for event in composed),
        delta=delta,
        epsilon=epsilon if math.isfinite(epsilon) else None,
    )
