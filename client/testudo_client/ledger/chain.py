"""The hash chain: every entry's hash covers its bytes and, by the hash before it, everything before. No file, no sums.

    hash[i] = SHA-256("testudo-ledger-1" | hash[i-1] | bytes of entry i),   hash[-1] = 32 zero bytes

So a ledger is named by its length and its last hash: who remembers the two notices whatever was edited, reordered or
taken away before (Haber, Stornetta 1991). It is not signed: the anchors (anchor.py) are what remembers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Final

from testudo_client.ledger.entries import Entry, Opened, decode
from testudo_common.errors import LedgerError

GENESIS: Final = bytes(32)
_DOMAIN: Final = b"testudo-ledger-1"

Row = tuple[int, bytes, bytes]  # index, bytes of the entry, hash


def link(previous: bytes, data: bytes) -> bytes:
    """The hash of the entry ``data`` after the one whose hash is ``previous``; 32 bytes."""
    return sha256(_DOMAIN + previous + data).digest()


def follow(rows: Iterable[Row], *, index: int = 0, previous: bytes = GENESIS) -> Iterator[Entry]:
    """The entries in ``rows``, each verified against the one before.

    Args:
        rows: In order, the first of them at ``index``.
        index: How many entries come before.
        previous: The last hash before.

    Raises:
        LedgerError: An entry is missing, out of place, changed, or not of the agreed format; says which.
    """
    for found, data, digest in rows:
        if not (isinstance(data, bytes) and isinstance(digest, bytes)):
            raise _broken(index, "is damaged")  # a torn page can read as nothing
        if found != index:
            raise _broken(index, "is missing")
        if link(previous, data) != digest:
            raise _broken(index, "is not what it was, or not where it was")
        time, content = decode(data)
        if isinstance(content, Opened) != (index == 0):
            raise _broken(index, "is not what belongs there")
        yield Entry(index, time, content, digest)
        index, previous = index + 1, digest


def _broken(index: int, what: str) -> LedgerError:
    return LedgerError(
        f"the chain is broken: entry {index} {what}",
        remedy='restore the ledger from a copy, and run testudo-client ledger with --adopt "reason"',
    )
