"""Which clients never train, and which of their examples they adapt on: fixed by names and order, not luck.

A split that depends on a seed can be chosen after seeing the results; this one is fixed before the first run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from testudo_common.errors import DataError
from testudo_common.learning.tasks import Examples
from testudo_simulations.federations.base import UnseenClient

MIN_CLIENTS = 3  # two that train, so that there is something to average, and one that never does


def split_unseen(ids: Iterable[str], share: float) -> frozenset[str]:
    """The clients kept for evaluation: the first ``round(share * n)`` by SHA-256 of ``testudo-unseen|id``.

    Args:
        ids: Client ids, in any order; one given twice counts once.
        share: In (0, 1). At least one client is unseen, and at least one trains.

    Raises:
        DataError: Fewer than three clients.
    """
    ranked = sorted(set(ids), key=_rank)
    if len(ranked) < MIN_CLIENTS:
        raise DataError(
            f"{len(ranked)} clients, and a federation needs {MIN_CLIENTS}",
            remedy="Bring data of more clients",
        )
    return frozenset(ranked[: min(max(1, round(share * len(ranked))), len(ranked) - 1)])


def first_ids(ids: Iterable[str], count: int) -> tuple[str, ...]:
    """``count`` of them, the last by SHA-256 of ``testudo-unseen|id``: those farthest from being unseen."""
    return tuple(sorted(set(ids), key=_rank)[-count:])


def _rank(client: str) -> bytes:
    return hashlib.sha256(b"testudo-unseen|" + client.encode()).digest()


def split_each_class(examples: Examples, most: int | None = None) -> UnseenClient:
    """The first half of every class (rounded up) as support, the rest as query; both in their order.

    A later example never helps to predict an earlier one, and no class of two or more lacks a query.

    Args:
        examples: Of one client, in time order; integer targets.
        most: At most this many support examples a class.
    """
    is_support = np.zeros(len(examples), dtype=np.bool_)
    for label in np.unique(examples.targets):
        rows = np.flatnonzero(examples.targets == label)
        half = (len(rows) + 1) // 2
        is_support[rows[: half if most is None else min(half, most)]] = True
    return UnseenClient(examples.take(np.flatnonzero(is_support)), examples.take(np.flatnonzero(~is_support)))
