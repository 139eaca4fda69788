"""Who is there when a round begins, and how long is waited for more. Asks nobody: it is told who is connected.

A run on real machines lasts for days, and owners come and go. Those who are not there are not asked, and whoever comes
is asked from the next round on. In a simulation everybody is always there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Protocol

from testudo_common.errors import RoundError

NOT_CONNECTED = "not connected"
_NAMED_IN_AN_ERROR = 5
_PAUSE_SECONDS = 0.5


class Attendance(Protocol):
    """Tells who is there."""

    def present(self, clients: Iterable[str]) -> frozenset[str]:
        """Those of ``clients`` that are connected now."""

    def wait(self, present: int, needed: int, waited_seconds: float) -> bool:
        """Wait a moment for more clients; False, at once, if so long is not waited."""


class _Everybody:
    """Of a simulation: who is there stays there."""

    def present(self, clients: Iterable[str]) -> frozenset[str]:
        """All of them."""
        return frozenset(clients)

    def wait(self, present: int, needed: int, waited_seconds: float) -> bool:
        """Nobody else will come."""
        del present, needed, waited_seconds
        return False


EVERYBODY: Attendance = _Everybody()

OnWaiting = Callable[[int, int], None]


def _say_nothing(_present: int, _needed: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class Registered:
    """Which node is whose, as the operator registered them, and how long is waited for their owners.

    A node can be nobody else: it proves that it holds the key that was admitted under this name.

    Attributes:
        nodes: Client id -> node id, of every member.
        wanted: Clients to wait for before the first round.
        least: With fewer there is no use in beginning.
        wait_seconds: How long is waited, before the first round and before any other; None: for ever.
        on_waiting: Told how many are there of how many, whenever it is looked.
    """

    nodes: Mapping[str, int]
    wanted: int
    least: int
    wait_seconds: float | None = None
    on_waiting: OnWaiting = _say_nothing


class NodeAttendance:
    """Attendance by the nodes that are online.

    Args:
        registered: See there.
        online: Gives the node ids that are connected now.
    """

    def __init__(self, registered: Registered, online: Callable[[], Collection[int]]) -> None:
        self._registered, self._online = registered, online

    def present(self, clients: Iterable[str]) -> frozenset[str]:
        """See :class:`Attendance`."""
        online = frozenset(self._online())
        return frozenset(client for client in clients if self._registered.nodes.get(client) in online)

    def wait(self, present: int, needed: int, waited_seconds: float) -> bool:
        """See :class:`Attendance`."""
        limit = self._registered.wait_seconds
        if limit is not None and waited_seconds >= limit:
            return False
        self._registered.on_waiting(present, needed)
        sleep(_PAUSE_SECONDS)
        return True

    def gather(self) -> frozenset[str]:
        """Wait until as many are there as are wanted; once the time is over, go on with fewer if they are enough.

        Raises:
            RoundError: They are not.
        """
        registered, began = self._registered, monotonic()
        while True:
            there = self.present(registered.nodes)
            if len(there) >= registered.wanted:
                break
            if not self.wait(len(there), registered.wanted, monotonic() - began):
                break
        registered.on_waiting(len(there), registered.wanted)
        if len(there) < registered.least:
            absent = sorted(registered.nodes.keys() - there)
            more = f" and {len(absent) - _NAMED_IN_AN_ERROR} more" if len(absent) > _NAMED_IN_AN_ERROR else ""
            raise RoundError(
                f"{len(there)} owners are connected and the plan needs {registered.least}; not there: "
                f"{', '.join(absent[:_NAMED_IN_AN_ERROR])}{more}",
                remedy="let them start testudo-client run, then start again",
            )
        return there
