"""Rows of robust rounds without any training: clients that send what a test says, and groups of made-up updates.

No tests in here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector
from testudo_common.wire import Message, TrainReply, TrainRequest
from testudo_server.aggregate.base import Rows
from testudo_server.exchange import NO_LOG, Collected, GroupMean, PlainExchange, RoundLog
from testudo_server.robust import aggregate, needs_sum_only
from testudo_server.store import RoundRecord

Send = Callable[[str, TrainRequest], "Message | str | None"]


class Senders:
    """A transport to clients that are functions of the request; None is no reply."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.asked: list[tuple[int, tuple[str, ...]]] = []

    def deliver(
        self, requests: Mapping[str, Message], *, deadline_seconds: float
    ) -> Iterator[tuple[str, Message | str]]:
        (request,) = {id(message): message for message in requests.values()}.values()
        assert isinstance(request, TrainRequest)
        self.asked.append((request.round, tuple(requests)))
        for client in requests:
            if (reply := self._send(client, request)) is not None:
                yield client, reply


def plain_exchange(plan: FederationPlan, send: Send) -> tuple[PlainExchange, Senders]:
    """As the server builds it from a plan."""
    senders = Senders(send)
    exchange = PlainExchange(
        senders, deadline_seconds=5.0, max_norm=plan.outer.max_update_norm, sum_only=needs_sum_only(plan)
    )
    return exchange, senders


def reply_to(request: TrainRequest, update: Vector) -> TrainReply:
    """A proper reply."""
    return TrainReply(request.plan_digest, request.round, request.attempt, request.model_digest, update)


class Brings:
    """An exchange that brings in what a test says of each (round, attempt).

    Args:
        brings: Given the request and the cohort.
        max_attempts: As of the secure exchange.
    """

    def __init__(self, brings: Callable[[TrainRequest, tuple[str, ...]], Collected], *, max_attempts: int = 1) -> None:
        self._brings = brings
        self.max_attempts = max_attempts
        self.asked: list[tuple[int, int, tuple[str, ...]]] = []

    def group_means(self, request: TrainRequest, cohort: tuple[str, ...], log: RoundLog = NO_LOG) -> Collected:
        self.asked.append((request.round, request.attempt, cohort))
        return self._brings(request, cohort)


def single(rows: Rows, names: tuple[str, ...]) -> tuple[GroupMean, ...]:
    """A group of one for each row."""
    return tuple(GroupMean((name,), row) for name, row in zip(names, rows, strict=True))


def updates(rng: np.random.Generator, n: int, d: int, signal: float = 0.25) -> Rows:
    """Honest ones of one round: of length about 1, almost orthogonal, around a mean of length ``signal``."""
    mean = rng.normal(size=d)
    mean *= signal / np.linalg.norm(mean)
    rows: Rows = (mean + rng.normal(size=(n, d)) / np.sqrt(d)).astype(np.float32)
    return rows


def grouped_rounds(
    plan: FederationPlan, seed: int, *, count: int, f: int, flips: int | None = None, d: int = 100
) -> list[RoundRecord]:
    """Records of rounds over groups drawn anew, with ``plan.robust_rule`` run on their means; nothing is trained.

    Args:
        plan: Secure; its cohort is the whole federation.
        seed: Of the updates and the groups.
        count: Rounds.
        f: Bad groups to reckon with.
        flips: The number of a client that makes its group's mean minus its own update and the honest share.
        d: Coordinates.
    """
    rng = np.random.default_rng(seed)
    n, size = plan.rounds.cohort_size, plan.secure_aggregation.group_size
    records = []
    for number in range(1, count + 1):
        own = updates(rng, n, d).astype(np.float64)
        if flips is not None:
            own[flips] *= -size
        drawn = rng.permutation(n).reshape(-1, size)
        groups = sorted(
            (
                GroupMean(
                    tuple(f"owner-{client:02d}" for client in sorted(group)),
                    own[group].mean(axis=0).astype(np.float32),
                    size,
                )
                for group in drawn
            ),
            key=lambda group: group.members,
        )
        found = aggregate(plan, Collected(tuple(groups), ()), f)
        influence = tuple((group.members, float(share)) for group, share in zip(groups, found.influence, strict=True))
        records.append(RoundRecord(number, "", (), (), 0.0, 0.0, 0, 0, withstood=found.f, influence=influence))
    return records
