"""Flower's Grid over Ray, watched: when a worker is lost, the run ends, and says so.

Flower's pool keeps a worker that died and gives it the next message, and the next: each comes back at once as an error,
so that one dead worker takes most of a round's messages from the living (flwr 1.41, ``BasicActorPool``). To go on would
be to exclude honest clients.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from testudo_common.errors import RoundError

_OF_RAY = "<class 'ray.exceptions."
"""How Flower tells of an error that is not the client's."""


class WatchedGrid(Grid):
    """The grid of a simulation on Ray.

    Args:
        grid: Flower's.
        machines_of: Names the machines that an error of Ray's is about.
        ended: Set when nobody answers messages any more.
    """

    def __init__(self, grid: Grid, machines_of: Callable[[str], str], ended: threading.Event) -> None:
        self._grid, self._machines_of, self._ended = grid, machines_of, ended

    def set_run(self, run: Run) -> None:
        """See :class:`Grid`."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """See :class:`Grid`."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """See :class:`Grid`."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See :class:`Grid`."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See :class:`Grid`.

        Raises:
            RoundError: A worker was lost, or all of them.
        """
        if self._ended.is_set():
            raise RoundError("Flower's simulation runtime has ended")
        replies = list(self._grid.pull_messages(message_ids))
        for reply in replies:
            if fault := _fault_of_ray(reply):
                kind, _, _ = fault.partition("'")
                raise RoundError(
                    f"a worker of the Ray cluster was lost ({kind})",
                    where=self._machines_of(fault),
                    remedy="finished rounds are kept: the same command with --resume and --out goes on",
                )
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """See :class:`Grid`."""
        return self._grid.send_and_receive(messages, timeout=timeout)


def _fault_of_ray(reply: Message) -> str:
    """Its class and text; empty: it is none."""
    if not reply.has_error() or reply.error.code != ErrorCode.UNKNOWN:
        return ""
    before, mark, after = (reply.error.reason or "").partition(_OF_RAY)
    return after if mark and not before else ""
