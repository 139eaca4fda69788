"""A plan's robust rule over what one round brought in. Which rows are bad nobody knows; how many may be, the plan says.

Not the rules (aggregate/) and not how many bad rows to reckon with (testudo_common.robustness). Closed by default: a
round with fewer rows than the rule needs against so many bad ones is no round, and never becomes a plain mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from testudo_common.plan import FederationPlan
from testudo_common.plan.robust import bad_rows_of, rows_needed
from testudo_server.aggregate import Aggregated, Settings, Work, chain, mean
from testudo_server.aggregate.base import Rows
from testudo_server.exchange import Collected
from testudo_server.store import RoundRecord
from testudo_server.strikes import GroupOutcome, culprits

_WORK = Work(threads=2)  # the same bits as with one
_LITTLE = 0.5  # of an even share of the influence


@dataclass(frozen=True, slots=True)
class Reckoning:
    """How many bad rows a plan reckons with in a federation.

    Attributes:
        plan: Complete.
        clients: N, those that strikes have named among them.
        barred: How many strikes have named: they are taken to be poisoned, and are not asked.
    """

    plan: FederationPlan
    clients: int
    barred: int

    def bad_rows(self, found: Collected, asked: int) -> int:
        """f among the rows found when ``asked`` clients were; less those that were caught and set aside already."""
        robust, secure = self.plan.robust_aggregation, self.plan.secure_aggregation
        return max(0, bad_rows_of(robust, secure, clients=self.clients, cohort=asked, caught=self.barred) - found.bad)

    def rows_needed(self, f: int) -> int:
        """The fewest rows in which the plan's rule outvotes ``f`` bad ones; fewer are no round."""
        return rows_needed(self.plan.robust_aggregation, self.plan.robust_rule, f)


def needs_sum_only(plan: FederationPlan) -> bool:
    """Whether the plan's rule compares no group means, so that each can be added up and forgotten."""
    return plan.robust_rule == ("mean",)


def aggregate(plan: FederationPlan, collected: Collected, f: int) -> Aggregated:
    """One update of all groups'. Each group counts once; only the mean weighs them by the clients behind them.

    Args:
        plan: Complete.
        collected: Of one round, with a group at least; each mean is finite. Means that were added up as they came are
            for a rule that is the mean.
        f: Bad groups to reckon with among them.

    Raises:
        AggregationError: Too few rows for ``f``, or a search that took too long.
    """
    if needs_sum_only(plan):
        votes = [group.votes for group in collected.groups]
        update = mean(_rows_of(collected), votes) if collected.mean is None else collected.mean
        return Aggregated(update, np.array(votes, dtype=np.float64) / sum(votes), f, ())
    rows = _rows_of(collected)
    robust = plan.robust_aggregation
    settings = Settings(max_norm=robust.clip_norm, bucket_size=robust.bucket_size)
    return chain(plan.robust_rule, f=f, settings=settings)(rows, rng=_drawn_after(rows), work=_WORK)


def _rows_of(collected: Collected) -> Rows:
    """``float32[n, d]``, a row for each group."""
    means = [group.mean for group in collected.groups if group.mean is not None]
    assert len(means) == len(collected.groups), "a rule that compares group means was given their sum"
    return np.stack(means)


def outvoted(records: Iterable[RoundRecord]) -> tuple[str, ...]:
    """Clients whose rows the rule kept giving less than half of an even share, more often than chance would have it.

    A thing to look at, not a proof: a client whose data are unlike the others' is outvoted as well as a poisoned one,
    so nobody is barred for it. A row is a group, drawn anew each round, and the same test as for strikes singles out
    who brings its groups down; it holds against chance, not against framing. Nobody is listed under plain aggregation,
    where a row is a client: a searched attack takes weight from the honest there, and they would be listed.

    Args:
        records: Of all rounds of a run; those with groups of more than one client count.
    """
    outcomes = [
        GroupOutcome(record.round, members, opened=share >= _LITTLE / len(record.influence))
        for record in records
        if record.withstood > 0 and any(len(members) > 1 for members, _ in record.influence)
        for members, share in record.influence
    ]
    return culprits(outcomes, framers=0)


def _drawn_after(rows: Rows) -> np.random.Generator:
    """For bucketing: fixed by what arrived, so that anybody can repeat it and no sender could foresee its bucket."""
    digest = hashlib.sha256(b"testudo buckets|")
    for row in rows:
        digest.update(row.astype("<f4").tobytes())
    return np.random.default_rng(int.from_bytes(digest.digest()[:16], "big"))
