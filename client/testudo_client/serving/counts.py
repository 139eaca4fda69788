"""What a server counts of itself, as Prometheus metrics. Holds no row, no key and no name of a field."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.5)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096)


class Counts:
    """The metrics of one server; each server has a registry of its own.

    Attributes:
        requests: By face, method and outcome (``answered``, or the reason of a refusal).
        seconds: From a request that was read to its answer, by face; of answered predictions.
        batch_rows: Rows that the model answered at once.
        rows: Answered rows.
        waiting: Rows not answered yet.
        version: In use.
        swaps: By outcome: ``exchanged``, or ``refused`` where the one before stays.
        unrecorded: Rows that were answered but not kept for watching.
        outcomes: Of feedback: ``told`` or ``unknown``.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        name = "testudo_serve"
        self.requests = Counter(
            f"{name}_requests", "Requests, by what came of them.", ["face", "method", "outcome"], registry=registry
        )
        self.seconds = Histogram(
            f"{name}_predict_seconds", "From a request that was read to its answer.", ["face"], buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.batch_rows = Histogram(
            f"{name}_batch_rows", "Rows answered at once by the model.", buckets=_ROWS, registry=registry
        )
        self.rows = Counter(f"{name}_rows", "Rows that were answered.", registry=registry)
        self.waiting = Gauge(f"{name}_waiting_rows", "Rows that wait for their answer.", registry=registry)
        self.version = Gauge(f"{name}_version", "Number of the version in use.", registry=registry)
        self.swaps = Counter(f"{name}_swaps", "Versions put in use while serving.", ["outcome"], registry=registry)
        self.unrecorded = Counter(f"{name}_unrecorded_rows", "Rows not kept for watching.", registry=registry)
        self.outcomes = Counter(f"{name}_outcomes", "Outcomes told by feedback.", ["outcome"], registry=registry)

    def exposed(self) -> bytes:
        """All of them as text."""
        return generate_latest(self._registry)
