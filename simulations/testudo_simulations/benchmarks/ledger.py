"""What the owner's ledger costs: to open a long one, one more entry, epsilon of many mechanisms; against our limits.

On this machine's disk: what a commit waits for is the disk's, so wall and CPU time stand beside each other.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from testudo_client.ledger import ANCHOR_FILE, LEDGER_FILE, Ceiling, Ledger, Occasion, Purpose, open_ledger
from testudo_common.privacy import accountant
from testudo_common.privacy.events import SampledGaussian, Spending, Unit
from testudo_simulations.benchmarks.measure import (
    Measurement,
    Seconds,
    compared,
    median_seconds,
    median_seconds_in_turn,
)

_ENTRIES: Final = 10_000
_MECHANISMS: Final = 100
_OPEN: Final = Seconds(1.0, 1.0)
_ONE_MORE: Final = Seconds(0.005, 0.005)
_ONE_ROUND: Final = Spending((SampledGaussian(1.1, 0.05, 20),), (SampledGaussian(8.0, 1.0, 1),))
_NEVER_REACHED: Final = 1e9
_CEILINGS: Final = (
    Ceiling("privacy.epsilon", Unit.EXAMPLE, _NEVER_REACHED, 1e-5, "prv", "a" * 64),
    Ceiling("client_privacy.epsilon", Unit.CLIENT, _NEVER_REACHED, 1e-5, "rdp", "a" * 64),
    Ceiling("example.epsilon_for_life", Unit.EXAMPLE, _NEVER_REACHED, 1e-5, "prv"),
    Ceiling("client.epsilon_for_life", Unit.CLIENT, _NEVER_REACHED, 1e-5, "rdp"),
)


def measure_ledger(repeats: int) -> list[Measurement]:
    """Opening 10,000 entries, one more with four ceilings, and epsilon of 100 distinct mechanisms by PRV and by RDP."""
    limit = "our own limit"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        filling = Ledger(home / LEDGER_FILE, anchors=[home / ANCHOR_FILE], durable=False)
        for number in range(_ENTRIES - len(filling)):
            _reserve(filling, number)
        found = compared(
            f"open {_ENTRIES} entries", median_seconds(lambda: len(open_ledger(home)), repeats), _OPEN, limit
        )
        ledger, numbers = open_ledger(home), itertools.count(_ENTRIES)
        one_more, bare = median_seconds_in_turn(
            [lambda: _reserve(ledger, next(numbers), _CEILINGS), _bare_commit(home)],
            max(repeats, 50),  # of many, since a disk is uneven
        )
        case = f"one more after {_ENTRIES}, with 4 ceilings"
        found += compared(case, one_more, _ONE_MORE, limit)
        found += compared(
            f"{case}, beside its disk writes", one_more, bare, "the same row in plain SQLite, and fdatasync"
        )
    names: tuple[accountant.AccountantName, ...] = ("prv", "rdp")
    for name in names:
        cold = median_seconds(_epsilon(name), repeats)
        found += compared(f"epsilon of {_MECHANISMS} mechanisms by {name.upper()}", cold, None, "none")
    return found


def _bare_commit(home: Path) -> Callable[[], None]:
    """What reaches the disk for one entry, and nothing else: a row with the ledger's settings, and an anchor's slot."""
    row, path = b"x" * 300, home / "bare.db"
    anchor = os.open(home / "bare.anchor", os.O_RDWR | os.O_CREAT, 0o600)

    def work() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE IF NOT EXISTS rows (place INTEGER PRIMARY KEY, content BLOB)")
            connection.execute("INSERT INTO rows (content) VALUES (?)", (row,))
            connection.execute("COMMIT")
        os.pwrite(anchor, row, 0)
        os.fdatasync(anchor)

    return work


def _reserve(ledger: Ledger, number: int, ceilings: tuple[Ceiling, ...] = ()) -> int:
    return ledger.reserve(
        Occasion("a" * 64, number, 0, Purpose.TRAINING),
        plan_name="benchmark",
        fingerprint="b" * 64,
        spending=_ONE_ROUND,
        ceilings=ceilings,
    )


def _epsilon(name: accountant.AccountantName) -> Callable[[], float]:
    events = tuple(SampledGaussian(1 + number / 50, 0.05, 5) for number in range(_MECHANISMS))

    def work() -> float:
        accountant._epsilon.cache_clear()  # of whole histories; what a single mechanism costs is kept, as in a ledger
        return accountant.epsilon_of(events, 1e-5, name)

    return work
