"""The most memory that the processes of a federation on this machine have held, as the system tells it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

NAMES = {
    "testudo_server.cli": "server",
    "superlink_process": "superlink",
    "deployment.door": "door",
    "testudo_client.cli": "executor",
    "deployment.supernode": "supernode",
}
"""Part of a command line -> which process it is."""


def highest(pids: Iterable[int], before: dict[str, int]) -> dict[str, int]:
    """The most that any process of a kind has held so far, bytes (``VmHWM``); of owners, the one with the most.

    Args:
        pids: Processes; their children are looked at too.
        before: What was found before.
    """
    found = dict(before)
    for pid in _with_children(pids):
        with suppress(OSError, ValueError, StopIteration):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            name = next(name for part, name in NAMES.items() if part in command)
            lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            found[name] = max(found.get(name, 0), int(lines["VmHWM"].split()[0]) * 1024)
    return found


def _with_children(pids: Iterable[int]) -> Iterator[int]:
    for pid in pids:
        yield pid
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                yield from map(int, (task / "children").read_text().split())
