"""Who is whose neighbour in a group, and how many shares give a secret back. Pure arithmetic; draws nothing.

Up to 64 members everybody is everybody's neighbour (Bonawitz et al. 2017). Above, each has k: the Harary graph on
the group's random order (Bell et al. 2020, algorithm 2). Shares of a member's secrets are held by its k neighbours and
by itself. The threshold t of these k + 1 holders must hold

- against a server that shows the members different survivor sets to get both kinds of share of one victim, with c of
  the victim's neighbours on its side: ``2 t > k + 1 + c``, but with probability 2^-40;
- against losing a group although no more than the stated share of members drops out: ``t <= k - dropped``, but with
  probability 2^-20. (The member that dropped out is missing among the holders of its own secrets.)

How many corrupt or dropped members are among k random neighbours is hypergeometric; the bounds add over members. Of
all even degrees the smallest is taken at which the largest threshold that loses no group keeps the secrets too, and
at which the members who stay hold together; where there is none, everybody is everybody's neighbour again.

A group of up to 64 is too small for such tails: a random one holds more corrupt members than their share often enough.
So its threshold is not the least that withstands that share, but the largest that lets the stated share, and at least
one member, drop out. Up to ``2 t - members - 1`` corrupt members then learn nothing (``Graph.colluders``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from testudo_common.errors import Breach, ProtocolError

COMPLETE_UP_TO = 64
LOG2_PRIVACY = -40.0
LOG2_ABORT = -20.0
_ROUNDING = 1e-9  # 0.1 * 30 is a little more than 3


@dataclass(frozen=True, slots=True)
class Graph:
    """A group's graph.

    Attributes:
        members: m, at least 2; positions are 0..m-1.
        degree: k, neighbours of each member.
        threshold: t, shares that give a secret back, 1..k + 1.
    """

    members: int
    degree: int
    threshold: int

    def neighbours(self, position: int) -> tuple[int, ...]:
        """The neighbours' positions, rising."""
        if self.degree == self.members - 1:
            return tuple(other for other in range(self.members) if other != position)
        half = self.degree // 2
        return tuple(sorted((position + step) % self.members for step in range(-half, half + 1) if step))

    @property
    def colluders(self) -> int:
        """Members of a complete graph that may be on the server's side: with one more, a member can be isolated."""
        return 2 * self.threshold - self.degree - 2

    def holders(self, position: int) -> tuple[int, ...]:
        """Who holds shares of a member's secrets: its neighbours and itself, rising."""
        return tuple(sorted((*self.neighbours(position), position)))


@lru_cache(maxsize=256)
def graph_of(members: int, corruption: float, dropout: float) -> Graph:
    """The graph of a group.

    Args:
        members: 2 or more.
        corruption: Share of the members that may be on the server's side, in [0, 1).
        dropout: Share of the members that may drop out, in [0, 1).

    Raises:
        ProtocolError: No threshold withstands both.
    """
    corrupt, dropped = share_of(members, corruption), share_of(members, dropout)
    corrupt = max(1, corrupt)  # one member is taken to be corrupt in any case
    if members <= COMPLETE_UP_TO:
        spared = math.floor(members * dropout + _ROUNDING)
        threshold = max(members - max(1, spared), _complete_threshold(members, corrupt))
        if threshold > members - spared:
            raise _no_threshold(members, corrupt, spared)
        return Graph(members, members - 1, threshold)
    if corrupt + 2 * dropped < members:  # otherwise no degree is enough, however large
        for degree in range(2, members - 1, 2):
            if found := _threshold(members, degree, corrupt, dropped):
                return Graph(members, degree, found)
    threshold = _complete_threshold(members, corrupt)
    if threshold > members - dropped:
        raise _no_threshold(members, corrupt, dropped)
    return Graph(members, members - 1, threshold)


def _no_threshold(members: int, corrupt: int, dropped: int) -> ProtocolError:
    return ProtocolError(
        Breach.TOO_FEW,
        f"no threshold for {members} members withstands {corrupt} corrupt and {dropped} dropped ones",
        remedy="Lower secure_aggregation.corruption or secure_aggregation.dropout",
    )


def _complete_threshold(members: int, corrupt: int) -> int:
    """The least t with 2 t > members + corrupt."""
    return (members + corrupt) // 2 + 1


def share_of(members: int, share: float) -> int:
    """How many members a share of them is, rounded up."""
    return math.ceil(members * share - _ROUNDING)


def _threshold(members: int, degree: int, corrupt: int, dropped: int) -> int | None:
    """The largest threshold that loses no group, if it keeps the members' secrets too."""
    if _log2_disconnected(members, degree, corrupt + dropped) > LOG2_PRIVACY:
        return None
    per_member = math.log2(members)
    gone = per_member + log2_tails(members - 1, dropped, degree)
    lost = int(np.argmax(gone <= LOG2_ABORT)) - 1  # so many of its neighbours a member may lose
    threshold = degree - lost
    at_work = 2 * threshold - degree - 1  # so many corrupt neighbours would be enough
    hostile = per_member + log2_tails(members - 1, corrupt, degree)
    if at_work <= 0 or (at_work < len(hostile) and hostile[at_work] > LOG2_PRIVACY):
        return None
    return threshold


@lru_cache(maxsize=8)
def _log2_factorials(largest: int) -> npt.NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.log2(np.arange(1, largest + 1)))])


def log2_tails(population: int, marked: int, drawn: int) -> npt.NDArray[np.float64]:
    """log2 of the probability that ``drawn`` of ``population`` hold i or more of the ``marked``, for i = 0, 1, ...

    The last entry is minus infinity: so many they cannot hold.
    """
    factorials = _log2_factorials(population)
    fewest, most = max(0, drawn - (population - marked)), min(marked, drawn)
    hits = np.arange(fewest, most + 1)

    def choose(n: int, k: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        ways: npt.NDArray[np.float64] = factorials[n] - factorials[k] - factorials[n - k]
        return ways

    probabilities = choose(marked, hits) + choose(population - marked, drawn - hits)
    probabilities -= choose(population, np.array([drawn]))
    tails = np.logaddexp2.accumulate(probabilities[::-1])[::-1]
    return np.concatenate([np.zeros(fewest), np.minimum(tails, 0.0), [-math.inf]])


def _log2_disconnected(members: int, degree: int, gone: int) -> float:
    """log2 of a bound on the probability that the members who stay fall apart.

    The Harary graph falls apart only where half its degree of consecutive members are gone in two places.
    """
    both = 2 * (degree // 2)
    if both > gone:
        return -math.inf
    if gone >= members:
        return 0.0
    f = _log2_factorials(members)
    placed = f[members - both] - f[gone - both] + f[gone] - f[members]  # C(m - both, gone - both) / C(m, gone)
    return float(2 * math.log2(members) - 1 + placed)
