"""How long a run goes on asking when too few owners cosigned the log. Nobody trains meanwhile, so it costs no privacy.

Other rounds that fail end the run: to try those again makes owners train again, which is a person's decision.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from testudo_common.errors import RoundError

WHERE = "audit.quorum"
_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 60.0
_TRIES = 20


class QuorumPatience:
    """Patience with owners that are away, or that Flower still takes for there.

    Args:
        wait_seconds: For how long at the most; None: for some twenty tries, a quarter of an hour.
        now: A clock in seconds.
    """

    def __init__(self, wait_seconds: float | None, now: Callable[[], float] = monotonic) -> None:
        self._limit, self._now = wait_seconds, now
        self._round = -1
        self._tries = 0
        self._began = 0.0

    def pause_after(self, error: RoundError, finished: int) -> float | None:
        """Seconds after which to ask again; None: it is over.

        Args:
            error: What ended the rounds.
            finished: Rounds finished so far; a further one makes patience anew.
        """
        if error.where != WHERE:
            return None
        if finished != self._round:
            self._round, self._tries, self._began = finished, 0, self._now()
        self._tries += 1
        waited = self._now() - self._began
        if self._tries > _TRIES or (self._limit is not None and waited >= self._limit):
            return None
        return min(_FIRST_PAUSE_SECONDS * 1.5 ** (self._tries - 1), _LONGEST_PAUSE_SECONDS)
