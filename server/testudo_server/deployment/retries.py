"""How often a call to the SuperLink is made again. A SuperLink that was killed is started again on the same port.

Not Flower's own: that one goes on for ever, and ends the process with SIGINT when a token is refused.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Final

import httpx
from flwr.supercore.retry import RetryInvoker

PATIENCE_SECONDS: Final = 90.0
"""Longer than a SuperLink needs to start; a task that it does not hear of for 60 s is over anyway."""
_FIRST_SECONDS, _LONGEST_SECONDS = 0.05, 2.0
_PASSING = frozenset({httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT})


def patient_retries(seconds: float = PATIENCE_SECONDS) -> RetryInvoker:
    """Calls again while the SuperLink is away; raises what it answered, and what it did not after so long."""
    return RetryInvoker(
        wait_gen_factory=_growing,
        recoverable_exceptions=(httpx.TransportError, httpx.HTTPStatusError),
        max_tries=None,
        max_time=seconds,
        jitter=None,
        should_giveup=_is_an_answer,
        wait_function=time.sleep,
    )


def _growing() -> Generator[float, None, None]:
    wait = _FIRST_SECONDS
    while True:
        yield wait
        wait = min(2 * wait, _LONGEST_SECONDS)


def _is_an_answer(error: Exception) -> bool:
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code not in _PASSING
