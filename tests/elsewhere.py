"""Runs ``python -m elsewhere MODULE ...`` in another network namespace, or by another clock. No tests.

``TESTUDO_NETNS`` names a namespace of ``ip netns``. ``TESTUDO_CLOCK_AHEAD`` is by how many seconds the process's wall
clock is ahead: ``time.time`` and ``datetime.now`` are replaced in all that was loaded of our packages and of Flower;
OpenSSL goes on by the real clock. What the process forks is there too.
"""

from __future__ import annotations

import ctypes
import datetime as datetime_module
import os
import runpy
import sys
import time
from types import ModuleType
from typing import Any

SHIFTED = frozenset({"testudo_common", "testudo_client", "flwr", "logging"})
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

    def shifted() -> float:
        return real_time() + ahead

    class Shifted(real):
        @classmethod
        def now(cls, tz: datetime_module.tzinfo | None = None) -> Any:
            return real.fromtimestamp(shifted(), tz)

    days, seconds = (ModuleType(module.__name__) for module in (datetime_module, time))
    vars(days).update(vars(datetime_module), datetime=Shifted)
    vars(seconds).update(vars(time), time=shifted)
    replaced = [(real_time, shifted), (real, Shifted), (datetime_module, days), (time, seconds)]
    for module in [each for name, each in sys.modules.items() if name.split(".")[0] in SHIFTED]:
        for name, value in list(vars(module).items()):
            for before, after in replaced:
                if value is before:
                    vars(module)[name] = after


def main() -> None:
    if name := os.environ.get(NETNS):
        enter_network(name)
    if ahead := os.environ.get(CLOCK_AHEAD):
        shift_clock(float(ahead))
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
