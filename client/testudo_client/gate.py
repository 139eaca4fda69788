"""What stands between the server's requests and a data owner's data: consent, and the ledger that is charged first.

Knows when something must be charged and what it costs; the ledger knows what is left, and the consent what is allowed.
Every refusal ends in the owner's own log, with the reason for a person; the server gets one fixed word.
"""

from __future__ import annotations

import logging

from testudo_client.consent import Consent
from testudo_client.ledger import Ledger
from testudo_client.ledger.entries import Occasion, Purpose
from testudo_client.owner_log import OwnerLog
from testudo_common.errors import (
    ApprovalError,
    AuditError,
    AuditFault,
    BudgetError,
    LedgerError,
    PolicyError,
    TestudoError,
)
from testudo_common.plan import FederationPlan
from testudo_common.privacy.events import Spending
from testudo_common.privacy.planned import scores_spending, sum_spending, training_spending
from testudo_common.vectors import Vector, vector_digest
from testudo_common.wire import LogUpdate, RefusalReason, SecureMessage, TrainRequest

_LOG = logging.getLogger("testudo.client")

REASONS: dict[type[TestudoError], RefusalReason] = {
    PolicyError: RefusalReason.NOT_ALLOWED,
    ApprovalError: RefusalReason.NOT_APPROVED,
    BudgetError: RefusalReason.PRIVACY_SPENT,
    LedgerError: RefusalReason.LEDGER_UNUSABLE,
    AuditError: RefusalReason.LOG_NOT_TRUSTED,
}
"""What the server is told; never more."""
REFUSED = tuple(REASONS)
"""What an owner answers with a refusal; anything else is a fault of this program."""
_OF_THE_LOG = {
    AuditFault.QUORUM: RefusalReason.NO_QUORUM,
    AuditFault.NOT_LOGGED: RefusalReason.NOT_LOGGED,
    AuditFault.STORAGE: RefusalReason.INTERNAL,
}


def reason_of(error: Exception) -> RefusalReason:
    """The fixed word for what kept a request from being answered."""
    if isinstance(error, AuditError) and error.fault in _OF_THE_LOG:
        wrong_entry = error.fault is AuditFault.QUORUM and error.index is not None  # that states another quorum
        return RefusalReason.LOG_NOT_TRUSTED if wrong_entry else _OF_THE_LOG[error.fault]
    return next((word for kind, word in REASONS.items() if isinstance(error, kind)), RefusalReason.INTERNAL)


SENTENCES = {
    RefusalReason.OTHER_PLAN: "the server asked for another plan, or for a round that this plan does not have",
    RefusalReason.OTHER_MODEL: "the model that came is not the one that it was said to be, or does not fit the plan",
    RefusalReason.DATA_UNUSABLE: "training could not use this data, or diverged; the round is charged",
    RefusalReason.REPLAYED: "the server asked again for an attempt that was begun before",
    RefusalReason.TOO_MANY_ATTEMPTS: "the server began this round more often than the plan allows",
    RefusalReason.UPDATE_USED: "the update left masked before and cannot be put into another sum",
}
"""For the owner's own log, where no error says it better."""


def write_refusal(
    log: OwnerLog | None, message: TrainRequest | SecureMessage | LogUpdate, reason: RefusalReason, sentence: str
) -> None:
    """Keep a refusal in the owner's own log, where there is one, and in the process's."""
    _LOG.warning("round %d refused: %s", message.round, sentence)
    if log is not None:
        log.write(
            "refused",
            plan=message.plan_digest,
            round_number=message.round,
            attempt=message.attempt,
            reason=reason.value,
            sentence=sentence,
        )


class Gate:
    """Consent and account of one client under one plan.

    Args:
        plan: The copy installed here.
        ledger: The owner's.
        consent: Asked at every round.
        fingerprint: Names the data that is trained on.
        log: Where refusals are kept; None: the process's log only.
    """

    def __init__(
        self,
        plan: FederationPlan,
        ledger: Ledger,
        consent: Consent,
        fingerprint: str,
        *,
        log: OwnerLog | None = None,
    ) -> None:
        self._plan = plan
        self._plan_digest = plan.digest
        self._ledger = ledger
        self._consent = consent
        self._fingerprint = fingerprint
        self._log = log

    def check(self) -> None:
        """Return if the plan may run here and now. Raises as :meth:`Consent.check`."""
        self._consent.check()

    def charge_training(self, round_number: int, attempt: int) -> int:
        """Charge a training that is about to begin; the number of its reservation.

        Raises:
            BudgetError: It does not fit. Nothing was charged, and no data touched.
            LedgerError: The ledger cannot be trusted, or not be written.
        """
        private = self._plan.private or self._plan.client_private
        return self._charge(
            Purpose.TRAINING,
            round_number,
            attempt,
            training_spending(self._plan),
            max_times=self._plan.rounds.max_participations if private else None,
        )

    def charge_scores(self, round_number: int, attempt: int) -> None:
        """Charge scoring the model once: what adapting it costs, and the sums released. Raises as training does."""
        self._charge(Purpose.SCORES, round_number, attempt, scores_spending(self._plan))

    def charge_sum(self, round_number: int, attempt: int) -> None:
        """Charge taking part in one secure sum, once an attempt: no mask and no noise is used for a second vector.

        Raises:
            BudgetError: It does not fit.
            LedgerError: As for training; or this attempt's sum was charged before.
        """
        self._charge(Purpose.SUM, round_number, attempt, sum_spending(self._plan), once=True)

    def kept(self, reservation: int, update: Vector) -> None:
        """What the reservation bought is kept, and may be sent."""
        self._ledger.commit(reservation, vector_digest(update))

    @property
    def spent(self) -> Spending:
        """Everything spent under this plan."""
        return self._ledger.spent(self._fingerprint, self._plan_digest)

    def refused(self, message: TrainRequest | SecureMessage | LogUpdate, reason: RefusalReason, sentence: str) -> None:
        """Keep a refusal in the owner's own log."""
        write_refusal(self._log, message, reason, sentence)

    def _charge(
        self,
        purpose: Purpose,
        round_number: int,
        attempt: int,
        spending: Spending,
        *,
        max_times: int | None = None,
        once: bool = False,
    ) -> int:
        return self._ledger.reserve(
            Occasion(self._plan_digest, round_number, attempt, purpose),
            plan_name=self._plan.name,
            fingerprint=self._fingerprint,
            spending=spending,
            ceilings=self._consent.ceilings(),
            max_times=max_times,
            once=once,
        )
