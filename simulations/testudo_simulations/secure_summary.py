"""What a run's rounds say about secure aggregation: groups, losses, cost. From the server's records only."""

from __future__ import annotations

from collections.abc import Sequence

from testudo_common.plan import FederationPlan
from testudo_server.store import RoundRecord
from testudo_simulations.results import SecureSummary

_FLOAT32_BYTES = 4


def secure_summary(
    plan: FederationPlan,
    records: Sequence[RoundRecord],
    parameters: int,
    client_cpu_seconds: float | None,
    *,
    masks: bool,
) -> SecureSummary:
    """The summary of a run.

    Args:
        plan: Complete.
        records: Of all its rounds.
        parameters: d.
        client_cpu_seconds: Of secure aggregation at all clients over all rounds, where it was measured.
        masks: Whether vectors were masked.
    """
    asked = sum(len(record.cohort) for record in records)
    plain_bytes = asked * parameters * _FLOAT32_BYTES
    groups = [group for record in records for group in record.groups]
    survivors = [len(group.survivors) for group in groups if group.survivors]
    # An attempt that ended before there were groups left no record; the last one, which closed the round, has one.
    attempts = sum(1 + max((group.attempt for group in record.groups), default=0) for record in records)
    return SecureSummary(
        mode=("secure" if masks else "mask-free") if plan.secure else "plain",
        groups_opened=len(survivors),
        groups_lost=len(groups) - len(survivors),
        smallest_sum=min(survivors, default=1),
        attempts=attempts if plan.secure else len(records),
        barred=sorted(records[-1].barred) if records else [],
        client_cpu_seconds=client_cpu_seconds / asked if client_cpu_seconds is not None and asked else None,
        server_cpu_seconds=(
            sum(record.secure_cpu_seconds for record in records) / len(records) if plan.secure and records else None
        ),
        plain_bytes_up=plain_bytes,
        plain_bytes_down=plain_bytes,
    )
