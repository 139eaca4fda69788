"""Runs a module of ours in another network namespace, or by another clock: ``python -m elsewhere MODULE ...``. No tests.

``TESTUDO_NETNS`` names a namespace of ``ip netns``. ``TESTUDO_CLOCK_AHEAD`` is by how many seconds the process's wall
clock is ahead: every loaded module's ``time.time`` and ``datetime`` is replaced; the clock of OpenSSL is not, and that
of pauses (``time.monotonic``) is no wall clock. What the process forks is there too.
"""

from __future__ import annotations

import ctypes
import datetime as datetime_module
import os
import runpy
import sys
import time
from typing import Any

NETNS, CLOCK_AHEAD = "TESTUDO_NETNS", "TESTUDO_CLOCK_AHEAD"
_NEW_NETWORK = 0x40000000


def enter_network(name: str) -> None:
    """Go over into a namespace; needs root."""
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), "setns", name)
    os.close(descriptor)


def shift_clock(ahead: float) -> None:
    """Let the wall clock of this process go ahead, or behind."""
    real_time, real = time.time, datetime_module.datetime

    class Meta(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, real)

    class Shifted(real, metaclass=Meta):
        @classmethod
        def now(cls, tz: datetime_module.tzinfo | None = None) -> Any:
            return real.fromtimestamp(shifted(), tz)

    def shifted() -> float:
        return real_time() + ahead

    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", {})
        for name, value in list(names.items()):
            if value is real_time:
                names[name] = shifted
            elif value is real:
                names[name] = Shifted


def main() -> None:
    if name := os.environ.get(NETNS):
        enter_network(name)
    if ahead := os.environ.get(CLOCK_AHEAD):
        shift_clock(float(ahead))
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
