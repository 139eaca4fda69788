"""The size of the groups, f and the rule: from what the data owners accept, or a refusal that says what to move.

Smaller groups are more rows to outvote a bad one with; larger ones hide a client among more. So the smallest groups
are taken whose sums stay over ``min_group`` clients at the stated dropouts, and at which fewer than half of the groups
are bad, but with the stated probability. Past that, robust rules do worse than the mean, and the wish is refused
(remedy.py). A full cohort is planned for: where fewer clients come, the number of groups and f are counted anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from testudo_common.errors import PlannerError
from testudo_common.robustness.shares import count_of_share
from testudo_common.robustness.survivors import fewest_in_a_sum, keeps
from testudo_common.robustness.tails import chance_of_more, groups_of, quantile
from testudo_common.robustness.withstand import most_a_rule_withstands, outvoted, rows
from testudo_common.secagg.groups import largest_group
from testudo_common.secagg.terms import LEAST_MIN_GROUP


@dataclass(frozen=True, slots=True)
class Wish:
    """What a federation wants of one round.

    Attributes:
        clients: N, of the federation, 1 or more.
        cohort: n, clients asked a round, 1..N.
        corruption: Share of the clients that may be poisoned, in [0, .5); floor(corruption * N) of them are.
        dropout: Share of a group that may drop out between grouping and opening, in [0, .5).
        min_group: Fewest clients in an opened sum that their owners accept, 3 or more; 1 is plain aggregation, where
            the server may see single updates.
        max_failure: Probability a round that more rows are bad than the rule withstands, in (0, 1).
        collusion: Share of a group that may be on the server's side (``secure_aggregation.corruption``), in [0, .5).

    Raises:
        PlannerError: A number is out of its range.
    """

    clients: int
    cohort: int
    corruption: float
    dropout: float
    min_group: int
    max_failure: float = 1e-3
    collusion: float = 0.0

    def __post_init__(self) -> None:
        ranges = [
            ("clients", self.clients >= 1, "1 or more"),
            ("cohort", 1 <= self.cohort <= self.clients, f"from 1 to the {self.clients} clients"),
            ("corruption", 0 <= self.corruption < 0.5, "from 0 to under 0.5: no rule outvotes half of the rows"),
            ("dropout", 0 <= self.dropout < 0.5, "from 0 to under 0.5"),
            (
                "min_group",
                self.min_group == 1 or self.min_group >= LEAST_MIN_GROUP,
                "3 or more, or 1 for plain aggregation: a sum of two tells each the other's",
            ),
            ("max_failure", 0 < self.max_failure < 1, "between 0 and 1"),
            ("collusion", 0 <= self.collusion < 0.5, "from 0 to under 0.5"),
        ]
        for name, fits, allowed in ranges:
            if not fits:
                raise PlannerError(f"{getattr(self, name)} cannot be", where=name, remedy=f"Write a number {allowed}")

    @property
    def poisoned(self) -> int:
        """How many clients of the federation are taken to be poisoned."""
        return count_of_share(self.corruption, self.clients)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a wish comes to.

    Attributes:
        group_size: m, for ``secure_aggregation.group_size``; 1 is plain aggregation.
        groups: Rows of a full cohort.
        largest_group: Members of its largest group.
        f: Rows that may be bad.
        rule: Names for ``aggregate.chain``.
        failure: Probability a round that more than f rows are bad.
        half_bad: Probability a round that half or more are: what no rule survives.
        poisoned: Clients of the federation that are taken to be poisoned.
        survivors: Fewest clients that a sum is over at the stated dropouts.
        spare_groups: Rows, none of them bad, that may be lost (to dropouts, or a failed check) with 2 f still under
            half of those that are left.
        largest_group_size: The largest m at which fewer than half of the rows are bad, but with ``max_failure``.
    """

    group_size: int
    groups: int
    largest_group: int
    f: int
    rule: tuple[str, ...]
    failure: float
    half_bad: float
    poisoned: int
    survivors: int
    spare_groups: int
    largest_group_size: int


RECOMMENDED = ("caf",)
"""The chain for rows of which some may be bad: single updates or means of groups, with noise or without.

Of all that were measured on two federations it alone stays with the clean run under every attack that is no backdoor,
searched ones among them, with a fifth of the clients poisoned (docs/robust-aggregation.md). And noise of differential
privacy costs it the top eigenvalue of the noise's covariance, where it costs a norm-based rule the trace (Allouah et
al. 2025).
"""


def choose(wish: Wish) -> Choice:
    """The smallest groups that privacy and robustness both allow.

    Args:
        wish: What is wanted.

    Raises:
        PlannerError: There are none; ``nearest`` holds what each number alone would have to be.
    """
    sizes = robust_sizes(wish)
    group_size = next((m for m in sizes if hides(wish, m)), None)
    if group_size is None:
        from testudo_common.robustness.remedy import refusal  # it asks this file about other wishes

        raise refusal(wish)
    members = groups_of(wish.cohort, group_size)
    distribution = rows(wish.clients, wish.poisoned, wish.cohort, group_size)
    f = quantile(distribution, wish.max_failure)
    in_sums = [fewest_in_a_sum(size, wish.dropout, wish.collusion) or 0 for size in set(members)]
    return Choice(
        group_size=group_size,
        groups=len(members),
        largest_group=max(members),
        f=f,
        rule=RECOMMENDED if f else ("mean",),
        failure=chance_of_more(distribution, f),
        half_bad=chance_of_more(distribution, most_a_rule_withstands(len(members))),
        poisoned=wish.poisoned,
        survivors=min(in_sums),
        spare_groups=len(members) - (2 * f + 1),
        largest_group_size=max(sizes),
    )


def is_possible(wish: Wish) -> bool:
    """Whether :func:`choose` finds groups."""
    return any(hides(wish, m) for m in robust_sizes(wish))


def robust_sizes(wish: Wish) -> list[int]:
    """The group sizes, rising, at which fewer than half of the rows are bad, but with ``max_failure``."""
    bad, sizes = wish.poisoned, range(1, wish.cohort + 1)
    return [m for m in sizes if outvoted(wish.clients, bad, wish.cohort, m, wish.max_failure)]


def hides(wish: Wish, group_size: int) -> bool:
    """Whether every group that can be made at that size keeps ``min_group`` clients, and the protocol allows it."""
    if group_size == 1 or wish.min_group == 1:
        return group_size == wish.min_group
    largest = largest_group(wish.cohort, group_size)
    return all(
        keeps(members, wish.min_group, wish.dropout, wish.collusion)
        for members in sorted({group_size, *groups_of(wish.cohort, group_size)})
    ) and (fewest_in_a_sum(largest, wish.dropout, wish.collusion) is not None)
