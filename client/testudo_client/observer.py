"""How an owner answers the messages of the log: one at a time, with refusals in its own log. Never imports Flower.

An owner answers them whatever its policy says, and none of its data is read for it: who never approved a plan, or has
withdrawn, watches on.
"""

from __future__ import annotations

from collections.abc import Callable

from testudo_client.gate import REFUSED, reason_of, write_refusal
from testudo_client.owner_log import OwnerLog
from testudo_client.store import ClientStore
from testudo_client.witness import Witness
from testudo_common.wire import LogUpdate, Refusal, RefusalReason, TrainRequest, Witnessed

Refused = Callable[[LogUpdate, RefusalReason, str], None]


def observed(witness: Witness, update: LogUpdate, refused: Refused) -> Witnessed | Refusal:
    """The answer to what is new in the log.

    Args:
        witness: The owner's.
        update: Of its plan.
        refused: Told the word and the sentence of a refusal.
    """
    try:
        return witness.answer(update)
    except REFUSED as error:
        refused(update, reason_of(error), str(error))
        return Refusal(update.plan_digest, update.round, update.attempt, reason_of(error))


class Observer:
    """Answers for an owner whose data is not read.

    Args:
        plan_digest: Of the plan installed here, hex.
        witness: The owner's; None: the plan has no log.
        store: Keeps two processes from answering at once.
        log: The owner's own.
    """

    def __init__(self, plan_digest: str, witness: Witness | None, store: ClientStore, log: OwnerLog) -> None:
        self.plan_digest, self.witness = plan_digest, witness
        self._store, self._log = store, log

    def answer(self, update: LogUpdate) -> Witnessed | Refusal:
        """The answer to what is new in the log."""
        if self.witness is None or update.plan_digest != self.plan_digest:
            reason = RefusalReason.OTHER_PLAN
            self._refused(update, reason, "the server sent the log of another plan")
            return Refusal(update.plan_digest, update.round, update.attempt, reason)
        with self._store.exclusive():
            return observed(self.witness, update, self._refused)

    def refusal_of(self, request: TrainRequest) -> Refusal | None:
        """Why ``request`` is refused before anything else is asked; None: the log holds it, or the plan has none."""
        if self.witness is None or request.plan_digest != self.plan_digest:
            return None
        with self._store.exclusive():
            try:
                self.witness.check(request)
            except REFUSED as error:
                self._refused(request, reason_of(error), str(error))
                return Refusal(request.plan_digest, request.round, request.attempt, reason_of(error))
        return None

    def _refused(self, message: LogUpdate | TrainRequest, reason: RefusalReason, sentence: str) -> None:
        write_refusal(self._log, message, reason, sentence)
