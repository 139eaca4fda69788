"""What both sides of a federation must agree on: plans, vectors, messages, learning and privacy accounting."""

import os

# Flower reads these when it is imported, and every package of ours imports this one first. Nothing calls home.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
