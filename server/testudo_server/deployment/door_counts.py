"""What the door counts, and what it says aloud: numbers by reason, and log lines that cannot flood a disk."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic

from testudo_server.deployment.door_rules import Reason

SECONDS_BETWEEN_LINES = 60.0
SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_log = logging.getLogger("testudo.door")


@dataclass(slots=True)
class DoorCounts:
    """Counted since the door was opened.

    Attributes:
        answered: Requests that passed, by method of the Fleet API or name of a file, and by status of the answer.
        refused: Requests that were refused, by the word of their reason.
        bytes_in: Of bodies that passed.
        bytes_out: Of bodies that were answered.
        seconds: How many answers of the SuperLink took up to so long; the last, longer than all buckets.
        seconds_sum: Of all of them.
        connections: Open now.
        certificate_expires: When the server's certificate ends; None where it was not looked at.
    """

    answered: Counter[tuple[str, int]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: list[int] = field(default_factory=lambda: [0] * (len(SECONDS_BUCKETS) + 1))
    seconds_sum: float = 0.0
    connections: int = 0
    certificate_expires: datetime | None = None

    def took(self, seconds: float) -> None:
        """Count an answer of the SuperLink."""
        bucket = sum(seconds > limit for limit in SECONDS_BUCKETS)
        self.seconds[bucket] += 1
        self.seconds_sum += seconds


class RefusalLog:
    """A line a minute for each client and reason, with the number of those that were left out.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._said: dict[tuple[str, Reason], tuple[float, int]] = {}

    def refused(self, client: str, reason: Reason) -> None:
        """Say that a request was refused."""
        now, key = self._clock(), (client, reason)
        said, left_out = self._said.get(key, (-SECONDS_BETWEEN_LINES, 0))
        if now - said < SECONDS_BETWEEN_LINES:
            self._said[key] = (said, left_out + 1)
            return
        self._said[key] = (now, 0)
        more = f" ({left_out} more since the last line)" if left_out else ""
        _log.warning("refused %s: %s%s", repr(client) if client else "somebody", reason.word, more)
