"""The ledger as its owner uses it: one verified copy of the entries, and one transaction for every new one.

Not the file (book.py), the chain (chain.py), the anchors (anchor.py) or the sums (account.py): it puts them in order.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock

from testudo_client.ledger.account import Account, Ceiling, check
from testudo_client.ledger.anchor import ADOPT, HeldAnchor, Mark, hold, read_mark, refuse_misfit
from testudo_client.ledger.book import Book, Page
from testudo_client.ledger.chain import GENESIS, follow, link
from testudo_client.ledger.entries import (
    Adopted,
    Approved,
    Committed,
    Content,
    Entry,
    NewData,
    Occasion,
    Opened,
    Reserved,
    Withdrawn,
    encode,
)
from testudo_common.errors import BudgetError, LedgerError
from testudo_common.privacy.events import Spending


def utc_now() -> datetime:
    """The time by this computer's clock."""
    return datetime.now(UTC)


class Ledger:
    """One data owner's ledger. Safe to share between threads, and its file between processes.

    Nothing is read or made before it is used; every use then first reads and verifies what is new. An entry is
    verified once. All methods raise LedgerError if the ledger is damaged, rolled back, copied, missing where an anchor
    remembers one, readable by others, or cannot be read or written; nothing is written then.

    Args:
        path: The file; None keeps it in memory, for simulations.
        anchors: Files that remember how far it had come. The more different the places, the better.
        durable: Whether to wait for the disk. A simulation need not survive a loss of power.
        now: The clock.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        anchors: Sequence[Path] = (),
        durable: bool = True,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._book, self._durable, self._now = Book(path, durable=durable), durable, now
        # Each once, or it would wait for its own lock; in one order, or two processes would wait for each other.
        self._anchors = sorted({anchor.resolve() for anchor in anchors})
        self._entries: list[Entry] = []
        self._account = Account()
        self._lock = RLock()

    def reserve(
        self,
        occasion: Occasion,
        *,
        plan_name: str,
        fingerprint: str,
        spending: Spending,
        ceilings: Sequence[Ceiling] = (),
        max_times: int | None = None,
        once: bool = False,
    ) -> int:
        """Spend ``spending``, if it fits. When this returns, no loss of power undoes it.

        Checked and written in one transaction, so that two processes never both take what only one may have. If this
        raises after the entry was written, because an anchor could not be, the entry counts as spent all the same.

        Args:
            occasion: What it is spent for.
            plan_name: The plan's name, for people.
            fingerprint: Of the data.
            spending: The price.
            ceilings: All have to hold afterwards.
            max_times: The most reservations of this plan and purpose; those of retries count too.
            once: Refuse if exactly this occasion was reserved before.

        Returns:
            The entry's index.

        Raises:
            BudgetError: It does not fit.
            LedgerError: ``once``, and it is not the first time.
        """

        def allowed() -> Content:
            if once and self._account.holds(occasion):
                raise LedgerError(
                    f"round {occasion.round}, attempt {occasion.attempt} was answered before ({occasion.purpose})",
                    where=self._book.place,
                    remedy="wait for the next attempt",
                )
            _refuse_too_often(self._account.answers(occasion.plan_digest, occasion.purpose), max_times)
            check(self._account, fingerprint, spending, ceilings)
            return Reserved(occasion, plan_name, fingerprint, spending)

        if ceilings:
            # The accountant can take seconds, and should not while other processes wait. What is spent only grows, so
            # a refusal stands, and what fits is computed anew, from the cache, where nothing can come in between.
            with self._lock:
                self._refresh()
                allowed()
        return self._append(allowed).index

    def commit(self, reservation: int, digest: str) -> None:
        """Note that what a reservation bought was made.

        Args:
            reservation: Its index.
            digest: SHA-256 of what was made, in hexadecimal.

        Raises:
            LedgerError: There is no such reservation.
        """

        def of_a_reservation() -> Content:
            entry = self._entries[reservation] if 0 <= reservation < len(self._entries) else None
            if entry is None or not isinstance(entry.content, Reserved):
                raise LedgerError(
                    f"entry {reservation} is no reservation", where=self._book.place, remedy="reserve first"
                )
            return Committed(reservation, digest)

        self._append(of_a_reservation)

    def append(self, content: Approved | Withdrawn | NewData) -> Entry:
        """Write down what the owner decided."""
        if not isinstance(content, Approved | Withdrawn | NewData):
            raise LedgerError("only approvals, withdrawals and new data are written like this", remedy="use reserve")
        return self._append(lambda: content)

    def entries(self) -> tuple[Entry, ...]:
        """All entries, verified."""
        with self._lock:
            self._refresh()
            return tuple(self._entries)

    def spent(self, fingerprint: str, plan_digest: str | None = None) -> Spending:
        """What was reserved on data that may share a record with ``fingerprint``'s, or under one plan.

        See :func:`testudo_client.ledger.account.spent_on`.
        """
        with self._lock:
            self._refresh()
            return self._account.spent(fingerprint, plan_digest)

    @property
    def head(self) -> bytes:
        """The last entry's hash, 32 bytes: it names all of the ledger."""
        with self._lock:
            self._refresh()
            return self._entries[-1].hash

    def __len__(self) -> int:
        with self._lock:
            self._refresh()
            return len(self._entries)

    def adopt(self, reason: str) -> None:
        """Accept the ledger's file as it is, against its anchors; with a new ledger if there is none.

        The chain has to hold all the same. What the anchors had seen is written down.

        Args:
            reason: In the owner's words.

        Raises:
            LedgerError: The chain is broken.
        """
        with self._lock:
            self._book.create()
            self._entries, self._account = [], Account()
            with self._book.writing() as page, self._hold() as held:
                if not page.blank:
                    self._read(page)
                seen = max((anchor.mark for anchor in held if anchor.mark), key=lambda mark: mark.count, default=None)
                adopted = Adopted(reason, seen.count if seen else 0, seen.head.hex() if seen else "")
                self._write(page, held, adopted)

    def _append(self, decide: Callable[[], Content]) -> Entry:
        """Add what ``decide`` returns, once all that is there is read; if it raises, nothing is written."""
        with self._lock:
            self._create_if_missing()
            with self._book.writing() as page, self._hold() as held:
                self._read(page)
                self._refuse_misfit((anchor.path, anchor.mark) for anchor in held)
                for anchor in held:
                    if anchor.mark is None:
                        # A process was killed between the first entry and its anchor. Next to a second entry a missing
                        # anchor is refused, so it has to be there before.
                        anchor.write(self._mark())
                return self._write(page, held, decide())

    def _write(self, page: Page, held: Sequence[HeldAnchor], content: Content) -> Entry:
        """Add an entry, and the first one before it if there is none; commit; then let the anchors remember it."""
        fresh: list[Entry] = []
        contents = [content] if self._entries or isinstance(content, Opened) else [_opened(), content]
        if page.blank:
            page.set_up()
        for each in contents:
            last = [*self._entries[-1:], *fresh][-1:]
            index, previous = (last[0].index + 1, last[0].hash) if last else (0, GENESIS)
            time = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            data = encode(time, each)
            fresh.append(Entry(index, time, each, link(previous, data)))
            page.insert((index, data, fresh[-1].hash))
        page.commit()
        for entry in fresh:
            self._take(entry)
        for anchor in held:
            anchor.write(self._mark())
        return fresh[-1]

    def _refresh(self) -> None:
        self._create_if_missing()
        with self._book.reading() as page:
            self._read(page)
            # Read after the rows: while the transaction is open, nobody commits what an anchor could be ahead with.
            self._refuse_misfit((path, read_mark(path)) for path in self._anchors)

    def _create_if_missing(self) -> None:
        if self._entries:
            return
        if not self._book.exists:
            if self._remembered() and not self._book.exists:  # still: another process may have made both
                raise LedgerError("the ledger is missing", where=self._book.place, remedy=ADOPT)
            self._book.create()
        with self._book.reading() as page:
            if not page.blank:
                return
        with self._book.writing() as page, self._hold() as held:
            if page.blank:  # still
                if self._remembered():
                    raise LedgerError("the ledger was emptied", where=self._book.place, remedy=ADOPT)
                self._write(page, held, _opened())

    def _read(self, page: Page) -> None:
        """Verify and take in what is new in the file."""
        known = len(self._entries)
        emptied = LedgerError("the ledger was emptied", where=self._book.place, remedy=ADOPT)
        if page.blank:
            raise emptied
        rows = page.rows_from(max(0, known - 1))
        if known:
            last = next(rows, None)
            if last is None or last[0] != known - 1 or last[2] != self._entries[-1].hash:
                raise LedgerError("the ledger was changed while it was in use", where=self._book.place, remedy=ADOPT)
        try:
            for entry in follow(rows, index=known, previous=self._entries[-1].hash if known else GENESIS):
                self._take(entry)
        except LedgerError as error:
            raise LedgerError(error.problem, where=self._book.place, remedy=error.remedy) from error
        if not self._entries:
            raise emptied

    def _take(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._account.add(entry)

    def _hold(self) -> AbstractContextManager[list[HeldAnchor]]:
        return hold(self._anchors, durable=self._durable)

    def _remembered(self) -> bool:
        return any(read_mark(path) is not None for path in self._anchors)

    def _refuse_misfit(self, marks: Iterable[tuple[Path, Mark | None]]) -> None:
        inode, ledger_id = self._book.inode(), self._mark().ledger_id
        for path, mark in marks:
            refuse_misfit(path, mark, ledger_id, self._entries, inode)

    def _mark(self) -> Mark:
        first = self._entries[0].content
        assert isinstance(first, Opened)
        return Mark(first.ledger_id, len(self._entries), self._entries[-1].hash, self._book.inode())


def _opened() -> Opened:
    return Opened(secrets.token_hex(16))


def _refuse_too_often(times: int, most: int | None) -> None:
    if most is not None and times >= most:
        raise BudgetError(
            f"this owner has answered {times} times under this plan, retries included, and the most is {most}",
            where="rounds.max_participations",
            remedy="ask for a plan with more rounds for each owner, or stay out",
            spent=times,
            asked=times + 1,
            ceiling=most,
            rounds_left=0,
        )
