"""A data owner's privacy ledger: what was spent on its data, written down before it is spent, and never taken back.

entries.py says what can stand in it, chain.py holds it together, book.py is its file, anchor.py notices an older copy,
account.py adds it up, ledger.py puts these in order. Reserve, then train, then commit: a reservation counts from the
moment it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from testudo_client.ledger.account import Ceiling
from testudo_client.ledger.entries import (
    Adopted,
    Approved,
    Committed,
    Content,
    Entry,
    NewData,
    Occasion,
    Opened,
    Purpose,
    Reserved,
    Withdrawn,
)
from testudo_client.ledger.ledger import Ledger, utc_now

LEDGER_FILE: Final = "state/ledger.db"
ANCHOR_FILE: Final = "ledger.anchor"
FINGERPRINT_KEY_FILE: Final = "state/fingerprint.key"


def open_ledger(folder: Path, anchors: Sequence[Path] = ()) -> Ledger:
    """The ledger of the owner whose folder this is; nothing is read before it is used.

    Args:
        folder: The owner's.
        anchors: Further places for anchors, beside the one in the folder.
    """
    return Ledger(folder / LEDGER_FILE, anchors=[folder / ANCHOR_FILE, *anchors])


__all__ = [
    "ANCHOR_FILE",
    "FINGERPRINT_KEY_FILE",
    "LEDGER_FILE",
    "Adopted",
    "Approved",
    "Ceiling",
    "Committed",
    "Content",
    "Entry",
    "Ledger",
    "NewData",
    "Occasion",
    "Opened",
    "Purpose",
    "Reserved",
    "Withdrawn",
    "open_ledger",
    "utc_now",
]
