"""Rules that make one update of several: pure functions of ``float32[n, d]``."""

from testudo_server.aggregate.rules import mean

__all__ = ["mean"]
