"""A run with a log over an exchange that draws groups and opens their sums, and trains nobody. No tests in here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audit_logs import SECURE, audited_plan
from testudo_common.audit.statements import encode_statement
from testudo_common.plan import FederationPlan
from testudo_common.secagg.groups import partition
from testudo_common.wire import TrainRequest
from testudo_server.exchange import NO_LOG, NO_REPLY, Collected, GroupMean, GroupRecord, RoundLog
from watched_run import Owners, WatchedRun

TEN = tuple(f"owner-{number:02d}" for number in range(10))
COIN = bytes(range(32))


class Grouped:
    """An exchange that draws groups and trains nobody; of each group, the first ``silent`` members send nothing.

    Args:
        owners: Sign their contributions.
        plan: With secure aggregation.
        silent: Members of each group, by attempt; the last one holds for all that follow.
    """

    max_attempts = 3

    def __init__(self, owners: Owners, plan: FederationPlan, silent: Sequence[int] = (0,)) -> None:
        self._owners, self._plan, self._silent = owners, plan, silent

    def group_means(self, request: TrainRequest, cohort: tuple[str, ...], log: RoundLog = NO_LOG) -> Collected:
        for client in cohort:
            self._owners.watchers[client].notes.append(request.body)
        groups = partition(COIN, cohort, self._plan.secure_aggregation.group_size)
        log.groups_drawn(COIN, groups)
        silent = self._silent[min(request.attempt, len(self._silent) - 1)]
        survivors = [tuple(sorted(group[silent:])) for group in groups]
        for client in sorted((name for group in survivors for name in group), reverse=True):
            statement = self._owners.watchers[client].contribution(request.round, request.attempt)
            assert log.received(client, encode_statement(statement)) is None
        log.all_received()
        least = self._plan.secure_aggregation.min_group
        opened = [group for group in survivors if len(group) >= least]
        missing = [client for client in cohort if not any(client in group for group in opened)]
        return Collected(
            groups=tuple(GroupMean(group, np.full(len(request.model), 0.1, dtype=np.float32)) for group in opened),
            excluded=tuple((client, NO_REPLY) for client in missing),
            records=tuple(
                GroupRecord(request.attempt, tuple(sorted(group)), left if len(left) >= least else (), fault)
                for group, left in zip(groups, survivors, strict=True)
                for fault in ["" if len(left) >= least else "too_few"]
            ),
            counts=np.zeros(0, dtype=np.int64),
        )


def secure_run(folder: Path, *settings: str, silent: Sequence[int] = (0,)) -> WatchedRun:
    """Two rounds of ten owners; see :class:`Grouped`."""
    plan = audited_plan("rounds.count=2", *settings, tables=SECURE)
    return WatchedRun(folder, plan, clients=TEN, exchange_of=lambda owners: Grouped(owners, plan, silent))
