"""Witnesses of simulated data owners: as real ones are, with a clock, and in memory where they are many. No data.

A witness in memory has forgotten its mirror after a restart, and asks for the whole log again; what it signed itself it
takes from the log then. A real owner keeps both in its folder, so that it finds out what a server makes of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from testudo_client.ledger import Ledger
from testudo_client.membership import Membership
from testudo_client.own_record import OwnRecord, Signed
from testudo_client.own_voice import ConsentingVoice
from testudo_client.witness import Witness
from testudo_common.audit.entries import RoundOpened, UpdateReceived, decode_entry
from testudo_common.audit.log import AuditLog
from testudo_common.audit.statements import SALT_BYTES
from testudo_common.plan import FederationPlan
from testudo_common.wire import LogUpdate, TrainRequest, Witnessed

Recalled = Mapping[str, Mapping[tuple[int, int], Signed]]


class SimulatedWitness(Witness):
    """A witness that approves its plan and knows how long it took.

    Args:
        client_id: The owner's name.
        plan: Complete, with a log.
        membership: The owner's.
        ledger: The owner's.
        folder: The owner's, written without waiting for the disk; None: all is kept in memory.
        recalled: (round, attempt) -> what it signed before it forgot it.

    Attributes:
        cpu_seconds: Spent on the log so far, in this process. Witnesses of one process share what they have verified.
    """

    def __init__(
        self,
        client_id: str,
        plan: FederationPlan,
        membership: Membership,
        ledger: Ledger,
        folder: Path | None,
        recalled: Mapping[tuple[int, int], Signed] | None = None,
    ) -> None:
        super().__init__(client_id, plan, membership, ConsentingVoice(ledger), folder, durable=False)
        self.cpu_seconds = 0.0
        if recalled:
            self._record = OwnRecord(None)
            for (number, attempt), signed in recalled.items():
                self._record.keep_signed(number, attempt, signed, bytes(SALT_BYTES))

    def answer(self, update: LogUpdate) -> Witnessed:
        """See :class:`Witness`."""
        with self._timed():
            return super().answer(update)

    def check(self, request: TrainRequest, initial_model: Callable[[], str] | None = None) -> None:
        """See :class:`Witness`."""
        with self._timed():
            super().check(request, initial_model)

    def check_groups(self, round_number: int, attempt: int, coin: bytes, members: tuple[str, ...]) -> None:
        """See :class:`Witness`."""
        with self._timed():
            super().check_groups(round_number, attempt, coin, members)

    def statement(self, round_number: int, attempt: int, model_digest: str, update_digest: str) -> str:
        """See :class:`Witness`."""
        with self._timed():
            return super().statement(round_number, attempt, model_digest, update_digest)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.process_time()
        try:
            yield
        finally:
            self.cpu_seconds += time.process_time() - started


def recalled_from(path: Path) -> Recalled:
    """What every client signed, by the log in ``path``; nothing where there is none."""
    if not path.exists():
        return {}
    log = AuditLog(path, durable=False)
    found: dict[str, dict[tuple[int, int], Signed]] = {}
    model_digest = ""
    try:
        for data in log.entries():
            match decode_entry(data):
                case RoundOpened(model_digest=digest):
                    model_digest = digest
                case UpdateReceived(statement=statement):
                    place = statement.round, statement.attempt
                    signed = Signed(model_digest=model_digest, statements=(statement,))
                    found.setdefault(statement.client, {})[place] = signed
    finally:
        log.close()
    return found
