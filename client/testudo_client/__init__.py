"""One data owner: its data, its local training under differential privacy, its Flower ClientApp."""

import testudo_common  # noqa: F401  # before Flower: it switches telemetry off
