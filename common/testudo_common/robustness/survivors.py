"""What secure aggregation leaves of a group, at the stated dropouts: by the thresholds of ``secagg.graph``.

In a group of up to 64, dropouts are its stated share rounded down, and one at least: so many its threshold spares. In
a larger one the share is rounded up, and the threshold spares it but with probability 2^-20.
"""

from __future__ import annotations

from testudo_common.errors import ProtocolError
from testudo_common.robustness.shares import count_of_share
from testudo_common.secagg.graph import COMPLETE_UP_TO, Graph, graph_of, share_of


def dropouts_of(members: int, dropout: float) -> int:
    """How many members of a group drop out.

    Args:
        members: m, 2 or more.
        dropout: Share of them, in [0, 1); 0 gives 0.
    """
    if dropout == 0:
        return 0
    return max(1, count_of_share(dropout, members)) if members <= COMPLETE_UP_TO else share_of(members, dropout)


def fewest_in_a_sum(members: int, dropout: float, collusion: float = 0.0) -> int | None:
    """How many clients an opened sum is over, at the least.

    Args:
        members: m; 1 is a client by itself.
        dropout: Share of them, in [0, 1).
        collusion: Share of them that may be on the server's side; one at least is taken to be.

    Returns:
        The survivors of the stated dropouts, or the threshold where that is more: then so many dropouts lose the sum.
        None where no threshold withstands both shares.
    """
    if members == 1:
        return 1
    graph = _graph(members, dropout, collusion)
    if graph is None:
        return None
    left = members - dropouts_of(members, dropout)
    return max(left, graph.threshold) if graph.degree == members - 1 else left


def keeps(members: int, min_group: int, dropout: float, collusion: float = 0.0) -> bool:
    """Whether the stated dropouts lose no sum, and leave it over ``min_group`` clients or more.

    Args:
        members: m, 2 or more.
        min_group: Fewest clients in an opened sum.
        dropout: As in :func:`fewest_in_a_sum`.
        collusion: As there.
    """
    left = members - dropouts_of(members, dropout)
    return left >= min_group and fewest_in_a_sum(members, dropout, collusion) == left


def colluders_of(members: int, dropout: float, collusion: float = 0.0) -> int | None:
    """How many members may be on the server's side before one can be isolated; None above 64, and for no threshold.

    Args:
        members: m; alone (1) none has to be.
        dropout: As in :func:`fewest_in_a_sum`.
        collusion: As there.
    """
    if members == 1:
        return 0
    graph = _graph(members, dropout, collusion)
    return None if graph is None or graph.degree < members - 1 else graph.colluders


def _graph(members: int, dropout: float, collusion: float) -> Graph | None:
    try:
        return graph_of(members, collusion, dropout)
    except ProtocolError:
        return None
