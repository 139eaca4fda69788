"""How many poisoned clients a cohort holds, and how many of its groups hold one: exact distributions, by counting.

Who is asked and who is grouped with whom is taken to be drawn uniformly, whatever the poisoned clients do: the cohort
by the server's seed, which they do not choose, and the groups by the public coin. That is a round by itself; rounds
of one run depend on each other, since clients take turns. Not a bound and not an expectation: for the infinite
population, 1 - (1 - corruption)^members, see frontier.py.

Poisoned clients are put on places one after another. The next one falls into a group that held none with probability
(places of such groups) / (free places), so the number of groups hit is a pure birth process: sums of products of
quotients of whole numbers, all positive. Nothing cancels; the relative error is under ``4e-16 * (bad + 4 * n)``, but
for what is under 1e-300.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from testudo_common.errors import PlannerError

Floats = npt.NDArray[np.float64]


def groups_of(cohort: int, group_size: int) -> tuple[int, ...]:
    """The sizes of the groups that ``secagg.groups.partition`` makes, in its order.

    Args:
        cohort: n, 1 or more.
        group_size: m, 1 or more; 1 where every client is a row by itself.

    Returns:
        g = max(1, n // m) sizes, cut at n * i // g.
    """
    count = max(1, cohort // group_size)
    return tuple(stop - start for start, stop in pairwise(cohort * group // count for group in range(count + 1)))


def bad_in_cohort(clients: int, bad: int, cohort: int) -> Floats:
    """How many poisoned clients a cohort holds that is drawn without replacement: the hypergeometric distribution.

    Args:
        clients: N, of the federation.
        bad: Poisoned ones among them, 0..N.
        cohort: n, 0..N.

    Returns:
        ``float64[n + 1]``, the probability of 0, 1, ..., n.

    Raises:
        PlannerError: More are poisoned or asked than there are.
    """
    _check(clients, bad, cohort)
    fewest, most = max(0, cohort - (clients - bad)), min(bad, cohort)
    held = np.arange(fewest, most, dtype=np.float64)
    up = ((bad - held) * (cohort - held)) / ((held + 1) * (clients - bad - cohort + held + 1))  # P(k + 1) / P(k)
    mode = min(max((bad + 1) * (cohort + 1) // (clients + 2), fewest), most) - fewest
    below, above = np.cumprod(1 / up[:mode][::-1])[::-1], np.cumprod(up[mode:])
    weights = np.concatenate([below, [1.0], above])
    probabilities = np.zeros(cohort + 1)
    probabilities[fewest : most + 1] = weights / weights.sum()
    return probabilities


def bad_groups(sizes: Sequence[int], bad: int, clients: int | None = None) -> Floats:
    """How many groups hold at least one poisoned client.

    Args:
        sizes: Members of each of the g groups, 1 or more; n in all. A round's groups have two sizes at most; with k
            different ones the work grows as the product of how many groups have each.
        bad: Poisoned clients among ``clients``.
        clients: N, of whom the n members are drawn; none: the members are all there are.

    Returns:
        ``float64[g + 1]``, the probability of 0, 1, ..., g such groups.

    Raises:
        PlannerError: More are poisoned or asked than there are.
    """
    cohort = sum(sizes)
    clients = cohort if clients is None else clients
    _check(clients, bad, cohort)
    if max(sizes) == 1:
        return bad_in_cohort(clients, bad, cohort)
    if bad <= cohort:
        return next(distribution for placed, distribution in enumerate(hits(sizes, clients)) if placed == bad)
    total = np.zeros(len(sizes) + 1)
    for weight, distribution in zip(bad_in_cohort(clients, bad, cohort), hits(sizes), strict=True):
        total += weight * distribution
    return total


def hits(sizes: Sequence[int], clients: int | None = None) -> Iterator[Floats]:
    """The distributions of :func:`bad_groups` for 0, 1, 2, ... poisoned clients, until all of them are.

    Args:
        sizes: As there.
        clients: As there.
    """
    classes = sorted(Counter(sizes).items())
    grid = np.ogrid[tuple(slice(0, count + 1) for _, count in classes)]
    untouched = [(count - hit) * float(size) for (size, count), hit in zip(classes, grid, strict=True)]
    free_in_untouched = np.sum(np.broadcast_arrays(*untouched), axis=0)
    touched = np.sum(np.broadcast_arrays(*grid), axis=0)
    state = np.zeros(touched.shape)  # state[k_1, k_2, ...]: k_i groups of class i are hit
    state.flat[0] = 1.0
    for free in range(sum(sizes) if clients is None else clients, -1, -1):
        distribution: Floats = np.bincount(touched.ravel(), weights=state.ravel()).astype(np.float64, copy=False)
        yield distribution
        if free == 0:
            return
        moves = [state * places / free for places in untouched]
        state *= (free - free_in_untouched) / free
        for axis, move in enumerate(moves):
            before = tuple(slice(0, -1) if other == axis else slice(None) for other in range(len(classes)))
            after = tuple(slice(1, None) if other == axis else slice(None) for other in range(len(classes)))
            state[after] += move[before]


def chance_of_a_bad_group(clients: int, bad: int, members: int) -> float:
    """The probability that one group holds a poisoned client.

    Args:
        clients: N.
        bad: Poisoned ones among them.
        members: Of the group, up to N.
    """
    drawn = np.arange(members)
    return 1.0 - float(np.prod(np.maximum(clients - bad - drawn, 0) / (clients - drawn)))


def quantile(probabilities: Floats, max_failure: float) -> int:
    """The least k that is exceeded with probability at most ``max_failure``.

    Args:
        probabilities: ``float64[k]``, of 0, 1, 2, ...
        max_failure: 0 to 1.
    """
    return int(np.count_nonzero(_tails(probabilities) > max_failure))


def chance_of_more(probabilities: Floats, k: int) -> float:
    """The probability of more than k.

    Args:
        probabilities: ``float64[k]``, of 0, 1, 2, ...
        k: 0 or more.
    """
    return min(1.0, float(_tails(probabilities)[k])) if k < len(probabilities) else 0.0


def _tails(probabilities: Floats) -> Floats:
    """P(more than k), k = 0, 1, ...; the smallest are added first."""
    return np.append(np.cumsum(probabilities[::-1])[::-1][1:], 0.0)


def _check(clients: int, bad: int, cohort: int) -> None:
    if not 0 <= bad <= clients or not 0 <= cohort <= clients:
        raise PlannerError(
            f"of {clients} clients, {bad} cannot be poisoned and {cohort} asked",
            where="robustness",
            remedy="Count both among the clients of the federation",
        )
