"""Many clients on one machine: federations, evaluation on unseen clients, reports and benchmarks."""

import testudo_common  # noqa: F401  # before Flower: it switches telemetry off
