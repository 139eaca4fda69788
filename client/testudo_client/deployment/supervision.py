"""Keeps one SuperNode going, and decides when that is of no use. Knows no Flower, no plan and no clock of its own.

A SuperNode that ended is started again after 4, 8, ... 60 s: the server lets a node in again once the session of one
that was killed has run out, after 60 to 90 s, or was ended by the next (session.py). One that runs without a connection
is looked at meanwhile. Only what its owner has to change ends it, and only when it was found twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from testudo_client.deployment.diagnosis import Diagnosis
from testudo_client.deployment.node import EXIT_REFUSED, NodeState
from testudo_common.commands import EXIT_FAILED

_LOG = logging.getLogger("testudo.client")

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 2.0, 60.0
PATIENCE_SECONDS = 15.0
"""A node that starts, or whose server does, is not asked what is wrong before."""
LOOK_AGAIN_SECONDS = 30.0
REMIND_SECONDS = 86400.0
_TICK_SECONDS = 0.5


class Node(Protocol):
    """A SuperNode's process, as :class:`testudo_client.deployment.node.NodeProcess` is one."""

    @property
    def state(self) -> NodeState:
        """What it told last."""

    def start(self) -> None:
        """Start one."""

    def stop(self) -> None:
        """End it."""

    def alive(self) -> bool:
        """Whether it runs."""

    def exit_code(self) -> int | None:
        """How the last one ended; None: it runs."""


class _End(Enum):
    TOLD_TO_STOP = auto()
    OF_NO_USE = auto()
    RENEWED = auto()
    ENDED = auto()
    ENDED_AFTER_CONNECTION = auto()


def _nothing() -> None:
    """Nobody is reminded."""


class Supervisor:
    """Watches one node.

    Args:
        node: To be kept running.
        look: Finds out why it is not connected, from the last status.
        healthy: Whether a message would be answered now.
        tell: Told that, whenever it may have changed.
        wait: Waits, at the most so long; True: it is time to stop.
        credentials: Something else whenever the owner's certificate is another one; the node is then started again.
        remind: Called once a day.
        now: Seconds that only grow.
    """

    def __init__(
        self, node: Node, look: Callable[[int], Diagnosis], healthy: Callable[[], bool],
        tell: Callable[[bool], None], wait: Callable[[float], bool], *,
        credentials: Callable[[], object] = _nothing, remind: Callable[[], None] = _nothing,
        now: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._node, self._look, self._healthy, self._tell = node, look, healthy, tell
        self._wait, self._credentials, self._remind, self._now = wait, credentials, remind, now
        self._last: Diagnosis | None = None
        self._was_connected = False
        self._reminded = now()

    def run(self) -> int:
        """Keep it running until it is time to stop, or until that is of no use; the process's status.

        The last SuperNode may still run when this returns: the executor goes first.
        """
        pause = FIRST_WAIT_SECONDS
        try:
            while True:
                match self._live_once():
                    case _End.TOLD_TO_STOP:
                        return 0
                    case _End.OF_NO_USE:
                        return EXIT_FAILED
                    case _End.RENEWED | _End.ENDED_AFTER_CONNECTION:
                        pause = FIRST_WAIT_SECONDS
                    case _End.ENDED:
                        pause = min(2 * pause, LONGEST_WAIT_SECONDS)
                _LOG.info("the node starts again in %.0f s", pause)
                if self._wait(pause):
                    return 0
        finally:
            self._tell(False)

    def _live_once(self) -> _End:
        credentials = self._credentials()
        try:
            self._node.start()
        except OSError as error:  # as where the disk is full
            _LOG.error("the node cannot be started: %s", error.strerror)
            return _End.ENDED
        looked = self._now() + PATIENCE_SECONDS - LOOK_AGAIN_SECONDS
        connected = False
        while self._node.alive():
            if self._wait(_TICK_SECONDS):
                return _End.TOLD_TO_STOP
            self._tell(self._healthy())
            if self._credentials() != credentials:
                _LOG.info("your certificate is another one now")
                self._node.stop()
                return _End.RENEWED
            self._remind_daily()
            if self._node.state.connected(self._now()):
                connected = True
                self._note_connected()
                looked = self._now() + PATIENCE_SECONDS - LOOK_AGAIN_SECONDS
            elif self._now() - looked >= LOOK_AGAIN_SECONDS:
                looked = self._now()
                if self._lasts(credentials):
                    return _End.OF_NO_USE
        self._tell(False)
        _LOG.warning("the node ended with status %s", self._node.exit_code())
        if self._lasts(credentials) or self._node.exit_code() == EXIT_REFUSED:
            return _End.OF_NO_USE
        return _End.ENDED_AFTER_CONNECTION if connected else _End.ENDED

    def _remind_daily(self) -> None:
        if self._now() - self._reminded >= REMIND_SECONDS:
            self._reminded = self._now()
            self._remind()

    def _note_connected(self) -> None:
        if not self._was_connected:
            _LOG.info("connected")
        self._was_connected, self._last = True, None

    def _lasts(self, credentials: object) -> bool:
        """Say why it is not connected, once; whether that lasts: found twice, with the credentials it started with."""
        self._was_connected = False
        before, found = self._last, self._look(self._node.state.last_status)
        self._last = found
        if before != found:
            _LOG.error("%s", found.sentence)
        if not found.lasts:
            return False
        if before is None or before.cause is not found.cause:
            # An answer of the server in the middle of a change must not end a node.
            if self._wait(FIRST_WAIT_SECONDS):
                return False
            self._last = self._look(self._node.state.last_status)
        return self._last.lasts and self._credentials() == credentials
