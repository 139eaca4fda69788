"""What an attempt becomes in the audit log when it is over, from what the run keeps of it; and what a log lacks. Pure.

The run's own checkpoint is on the disk before the log says that a round is closed. So a kill in between leaves a log
that is one round behind its run, and what is missing is made here from the round's record, as if nothing had happened.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from testudo_common.audit.entries import (
    AnyEntry,
    Evaluation,
    GroupRejected,
    Reason,
    RoundClosed,
    RoundOpened,
    UpdatesRejected,
)
from testudo_common.audit.history import History
from testudo_common.errors import CheckpointError
from testudo_common.vectors import vector_digest
from testudo_server.exchange import (
    FAILED_ON_THE_WAY,
    NO_REPLY,
    NOT_ENROLLED,
    NOT_OPENED,
    NOT_SIGNED,
    REFUSED,
    GroupRecord,
)
from testudo_server.store import RoundRecord, RunState

_REASONS = {
    NO_REPLY: Reason.NO_REPLY,
    FAILED_ON_THE_WAY: Reason.NO_REPLY,
    NOT_SIGNED: Reason.NO_REPLY,
    REFUSED: Reason.REFUSED,
    NOT_ENROLLED: Reason.NOT_ENROLLED,
    NOT_OPENED: Reason.GROUP_NOT_OPENED,
}


def reason_of(sentence: str) -> Reason:
    """The coarse word for why an update is in no group."""
    return next((reason for begins, reason in _REASONS.items() if sentence.startswith(begins)), Reason.UNUSABLE)


def rejection(
    opened: RoundOpened, excluded: Iterable[tuple[str, str]], groups: Iterable[GroupRecord], time: str
) -> tuple[AnyEntry, ...]:
    """The entry about those whose updates an attempt goes without; none where there are none.

    Args:
        opened: The entry that opened the attempt.
        excluded: (client id, reason in words), of this attempt and earlier ones.
        groups: What became of each group, of this attempt and earlier ones.
        time: UTC.
    """
    asked = set(opened.cohort)
    clients = {client: reason_of(sentence) for client, sentence in excluded if client in asked}
    rejected = tuple(
        GroupRejected(members=group.members, reason=group.fault)
        for group in groups
        if group.attempt == opened.attempt and group.fault
    )
    if not clients and not rejected:
        return ()
    return (UpdatesRejected(time=time, round=opened.round, attempt=opened.attempt, clients=clients, groups=rejected),)


def closing(history: History, record: RoundRecord, evaluates: bool, time: str) -> tuple[AnyEntry, ...]:
    """The entries that close the open round.

    Args:
        history: Of the log so far.
        record: Of the finished round.
        evaluates: Whether the plan asks for scores in it.
        time: UTC.
    """
    assert history.opened is not None
    opened = history.opened[1]
    example, client = history.next_accounts()
    closed = RoundClosed(
        time=time,
        round=opened.round,
        attempt=opened.attempt,
        model_digest=record.model_digest,
        survivors=tuple(members for members, _ in record.influence),
        rule=record.rule,
        withstood=record.withstood,
        example=example,
        client=client,
    )
    metrics = _finite(record.metrics)
    scores: tuple[AnyEntry, ...] = ()
    if evaluates and metrics:
        scores = (Evaluation(time=time, round=opened.round, metrics=metrics, noise=_finite(record.metric_noise)),)
    return (*rejection(opened, record.excluded, record.groups, time), closed, *scores)


def lacking(
    history: History, state: RunState, records: Sequence[RoundRecord], evaluates: bool, time: str
) -> tuple[AnyEntry, ...]:
    """What the log lacks to be where the run stands; nothing where it is there already.

    Args:
        history: Of the log as it was found.
        state: The run's last checkpoint.
        records: Of its finished rounds.
        evaluates: Whether the plan asks for scores in the last of them.
        time: UTC.

    Raises:
        CheckpointError: Log and checkpoint are not of one moment: one of them is an older copy.
    """
    closed = history.closed[1].round if history.closed is not None else 0
    digest = vector_digest(state.model)
    if closed > state.round:
        raise _apart(closed, state.round, "the checkpoint is an older copy")
    if closed == state.round:
        known = history.model_digest or history.first_model
        if known not in (None, digest):
            raise CheckpointError(
                f"its model after round {closed} is not the one that the audit log names",
                where="checkpoint.safetensors",
                remedy="restore checkpoint and log from the same moment",
            )
        return ()
    opened = history.opened[1] if history.opened is not None else None
    if closed < state.round - 1 or opened is None or opened.round != state.round or not records:
        raise _apart(closed, state.round, "the log is an older copy, or of another run")
    return closing(history, records[-1], evaluates, time)


def _apart(logged: int, kept: int, why: str) -> CheckpointError:
    return CheckpointError(
        f"the audit log ends with round {logged} and the checkpoint with round {kept}: {why}",
        where="audit.db",
        remedy="restore both from the same moment; owners refuse a log that is shorter than what they saw",
    )


def _finite(found: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Without numbers that JSON has no form for."""
    return {
        when: {name: float(value) for name, value in values.items() if math.isfinite(value)}
        for when, values in found.items()
    }
