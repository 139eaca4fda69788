"""The coordinator of a federation: cohorts, aggregation, the outer step, its Flower ServerApp."""

import testudo_common  # noqa: F401  # before Flower: it switches telemetry off
