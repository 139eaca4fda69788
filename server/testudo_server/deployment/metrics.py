"""A run and its door as Prometheus metrics (text exposition format 0.0.4). Values are read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from testudo_server.deployment.door_counts import SECONDS_BUCKETS, DoorCounts
from testudo_server.deployment.run_status import RunStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATES = ("starting", "waiting", "running", "finished", "failed", "stopped")


def exposed(status: RunStatus | None, counts: DoorCounts, members: tuple[int, int]) -> bytes:
    """All metrics as text.

    Args:
        status: Of the run; None where none was written.
        counts: Of the door.
        members: How many may come in, and how many were revoked.
    """
    registry = CollectorRegistry()
    registry.register(_Collected([*_of_door(counts, members), *([] if status is None else _of_run(status))]))
    return generate_latest(registry)


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"testudo_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"testudo_{name}", text, value=value)


def _of_run(status: RunStatus) -> Iterator[Metric]:
    about = GaugeMetricFamily(
        "testudo_run_info", "The run, by name; always 1.", labels=["federation", "plan", "plan_digest"]
    )
    about.add_metric([status.federation, status.plan, status.plan_digest], 1)
    yield about
    state = GaugeMetricFamily("testudo_run_state", "1 for the state that the run is in.", labels=["state"])
    for each in STATES:
        state.add_metric([each], float(each == status.state))
    yield state
    yield _gauge("run_started_timestamp_seconds", "When the run began, Unix time.", status.started.timestamp())
    yield _gauge(
        "run_updated_timestamp_seconds", "When the status was last written, Unix time.", status.updated.timestamp()
    )
    yield _gauge("round", "Rounds that are finished.", status.round)
    yield _gauge("rounds_planned", "Rounds that the plan has.", status.rounds)
    yield _gauge("owners_expected", "Data owners who take part.", status.expected)
    yield _gauge("owners_connected", "Data owners who are there.", status.connected)
    yield _gauge("round_owners_asked", "Owners asked in the last finished round.", status.asked)
    yield _gauge("round_owners_counted", "Owners whose updates count in the last finished round.", status.counted)
    yield _gauge("round_owners_left_out", "Owners whose updates do not count in it.", status.left_out)
    yield _gauge("round_attempts", "Attempts that it took.", status.attempts)
    last = status.round_seconds[-1] if status.round_seconds else 0.0
    yield _gauge("round_duration_seconds", "Time that the last finished round took.", last)
    payload = CounterMetricFamily("testudo_payload_bytes", "Payload of all rounds.", labels=["direction"])
    payload.add_metric(["down"], status.bytes_down)
    payload.add_metric(["up"], status.bytes_up)
    yield payload
    epsilon = GaugeMetricFamily(
        "testudo_privacy_epsilon", "The most that any owner can have spent under this plan.", labels=["unit"]
    )
    for unit, value in sorted(status.epsilon.items()):
        epsilon.add_metric([unit], value)
    yield epsilon
    yield _gauge("audit_log_entries", "Entries in the audit log.", status.log_size)
    yield _gauge("audit_log_cosigners", "Owners who signed the last checkpoint.", status.cosigned_by)
    yield _gauge("audit_log_quorum", "Owners who have to sign a checkpoint.", status.quorum)


def _of_door(counts: DoorCounts, members: tuple[int, int]) -> Iterator[Metric]:
    answered = CounterMetricFamily(
        "testudo_door_requests", "Requests that passed, by what was asked and by status.", labels=["asked", "status"]
    )
    for (name, status), count in sorted(counts.answered.items()):
        answered.add_metric([name, str(status)], count)
    yield answered
    refused = CounterMetricFamily("testudo_door_refused", "Requests that were refused, by reason.", labels=["reason"])
    for reason, count in sorted(counts.refused.items()):
        refused.add_metric([reason], count)
    yield refused
    yield _counter("door_received_bytes", "Bodies of requests that passed.", counts.bytes_in)
    yield _counter("door_sent_bytes", "Bodies of answers.", counts.bytes_out)
    took = HistogramMetricFamily("testudo_door_superlink_duration_seconds", "Until the SuperLink began to answer.")
    limits = [*map(str, SECONDS_BUCKETS), "+Inf"]
    took.add_metric([], list(zip(limits, accumulate(counts.seconds), strict=True)), counts.seconds_sum)
    yield took
    yield _gauge("door_connections", "Connections that are open from outside.", counts.connections)
    yield _gauge("members_admitted", "Members who may come in.", members[0])
    yield _gauge("members_revoked", "Members who may not any more.", members[1])
    if counts.certificate_expires is not None:
        yield _gauge(
            "certificate_expiry_timestamp_seconds",
            "When the server's certificate ends, Unix time.",
            counts.certificate_expires.timestamp(),
        )
