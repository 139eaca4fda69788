"""Privacy against robustness: what each size of group hides, and how many poisoned clients it lets a rule outvote.

``breakdown`` is the rule of thumb beside it, for infinitely many clients: half of the groups are bad where
(1 - corruption)^m = 1/2. With few groups the exact figure is well under it, as chance may put a poisoned client into
each; see tails.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from testudo_common.robustness.survivors import colluders_of, fewest_in_a_sum
from testudo_common.robustness.tails import groups_of
from testudo_common.robustness.withstand import most_poisoned


@dataclass(frozen=True, slots=True)
class Point:
    """One group size.

    Attributes:
        group_size: m; 1 is plain aggregation, where the server sees each update.
        groups: Rows of a full cohort.
        survivors: Fewest clients that an opened sum is over, by the group's threshold at the stated dropouts.
        honest_survivors: How many of them are honest on average, as an honest client among them counts (itself
            included), where ``poisoned`` clients of the federation are not.
        poisoned: The most poisoned clients of the federation that a round still outvotes.
        corruption: ``poisoned`` as a share of the clients.
        breakdown: 1 - 2^(-1/m): the same share, expected in an infinite population.
        colluders: Members of a group that may be on the server's side before one can be isolated; None for groups of
            more than 64, whose tails say it instead (``secagg.graph``).
    """

    group_size: int
    groups: int
    survivors: int
    honest_survivors: float
    poisoned: int
    corruption: float
    breakdown: float
    colluders: int | None


def frontier(
    clients: int,
    cohort: int,
    dropout: float,
    max_failure: float = 1e-3,
    group_sizes: Iterable[int] | None = None,
) -> list[Point]:
    """A point for every size of group, in the order given.

    Args:
        clients: N, of the federation.
        cohort: n, asked a round, 1..N.
        dropout: Share of a group that may drop out, in [0, .5).
        max_failure: Probability a round that half or more of the rows are bad, in (0, 1).
        group_sizes: Of them those from 1 to n; none: all of these. A size at which no threshold withstands the
            dropouts has no point.

    Raises:
        PlannerError: More are asked than there are.
    """
    wanted = range(1, cohort + 1) if group_sizes is None else [m for m in group_sizes if 1 <= m <= cohort]
    return [point for m in wanted if (point := _point(clients, cohort, dropout, max_failure, m))]


def breakdown(group_size: int) -> float:
    """The share of poisoned clients at which half of the groups are expected to be bad: 1 - 2^(-1/m).

    Args:
        group_size: m, 1 or more.
    """
    return float(1 - 2 ** (-1 / group_size))


def _point(clients: int, cohort: int, dropout: float, max_failure: float, group_size: int) -> Point | None:
    sizes = groups_of(cohort, group_size)
    in_sums = [fewest_in_a_sum(members, dropout) for members in set(sizes)]
    survivors = min((fewest for fewest in in_sums if fewest is not None), default=0)
    if None in in_sums:
        return None
    poisoned = most_poisoned(clients, cohort, group_size, max_failure)
    others_honest = (clients - 1 - poisoned) / max(1, clients - 1)
    colluders = [colluders_of(members, dropout) for members in set(sizes)]
    return Point(
        group_size=group_size,
        groups=len(sizes),
        survivors=survivors,
        honest_survivors=1 + (survivors - 1) * others_honest,
        poisoned=poisoned,
        corruption=poisoned / clients,
        breakdown=breakdown(group_size),
        colluders=min((few for few in colluders if few is not None), default=None),
    )
