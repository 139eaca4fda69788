"""Processes that use a ledger and are killed on the way, or race each other; for integration/test_ledger_kill.py.

``kill FOLDER``: for K = 1, 2, ... a child opens a ledger in FOLDER/K, reserves two rounds and commits one, and writes
to FOLDER/K.said what was acknowledged. At the K-th point where something reaches the disk it is killed, before (odd K)
or after (even K) it. Ends after the first child that survives, and says its K.
``race``: for every line FOLDER EPSILON that comes in, reserves until it is refused.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

from killed_at import kill_at_every_point, say
from ledger_cases import ceiling, in_folder, reserve
from testudo_client.ledger import Ledger
from testudo_common.errors import BudgetError


def work(home: Path) -> None:
    ledger = in_folder(home, home / "far" / "anchor")
    say("opened", len(ledger))
    first = reserve(ledger, 1)
    say("reserved", first)
    ledger.commit(first, "ee" * 32)
    say("committed", first)
    say("reserved", reserve(ledger, 2))


def kill(folder: str) -> None:
    kill_at_every_point(folder, work)


def race() -> None:
    reserve(Ledger(None), ceilings=[ceiling(99)])  # the accountant is loaded before the start
    say("ready")
    for line in sys.stdin:
        folder, epsilon = line.split()
        ledger, limit = in_folder(Path(folder)), ceiling(float(epsilon))
        try:
            for number in itertools.count(1):
                say("reserved", reserve(ledger, number, attempt=os.getpid(), ceilings=[limit]))
        except BudgetError:
            say("refused")


if __name__ == "__main__":
    {"kill": kill, "race": race}[sys.argv[1]](*sys.argv[2:])
