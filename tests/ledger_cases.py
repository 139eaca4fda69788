"""Small ledgers for tests, and what a test says of a reservation."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testudo_client.ledger import Ledger, Occasion, Purpose, open_ledger
from testudo_client.ledger.account import Ceiling
from testudo_common.privacy.events import SampledGaussian, Spending, Unit

PLAN = "ab" * 32
OTHER_PLAN = "cd" * 32
DATA = "11" * 32
OTHER_DATA = "22" * 32
STEP = Spending(example=(SampledGaussian(1.1, 0.05, 20),))
SUM = Spending(client=(SampledGaussian(2.0, 1.0, 1),))
DELTA = 1e-5


def noon() -> datetime:
    return datetime(2026, 3, 1, 12, tzinfo=UTC)


def in_memory() -> Ledger:
    return Ledger(None, now=noon)


def in_folder(folder: Path, *further: Path) -> Ledger:
    return open_ledger(folder, further)


def reserve(ledger: Ledger, round_number: int = 1, **changes: Any) -> int:
    """A reservation of one round of training, as changed."""
    occasion = Occasion(
        changes.pop("plan", PLAN), round_number, changes.pop("attempt", 0), changes.pop("purpose", Purpose.TRAINING)
    )
    told = {"plan_name": "small", "fingerprint": DATA, "spending": STEP, **changes}
    return ledger.reserve(occasion, **told)


def ceiling(epsilon: float, unit: Unit = Unit.EXAMPLE, **changes: Any) -> Ceiling:
    told = {"where": "privacy.epsilon", "delta": DELTA, "accountant": "rdp", **changes}
    return Ceiling(unit=unit, epsilon=epsilon, **told)
