"""The federation plan: the contract that every party approves. Its digest names it everywhere else.

Sections are in sections.py, checks across them in checks.py, files in load.py.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Self

import rfc8785
from pydantic import Field, model_validator

from testudo_common.errors import PlanError
from testudo_common.plan.checks import cross_faults
from testudo_common.plan.robust import check_withstood, rule_of
from testudo_common.plan.sections import (
    AuditPlan,
    CalibrationPlan,
    ClientPrivacyPlan,
    DataPlan,
    EvaluationPlan,
    Identifier,
    InnerPlan,
    ModelPlan,
    OuterPlan,
    PrivacyPlan,
    RobustAggregationPlan,
    RoundsPlan,
    Section,
    SecureAggregationPlan,
    StudentPlan,
    TaskPlan,
)


class FederationPlan(Section):
    """Everything a federation agrees on. Frozen; digest-able; wrong plans do not come into being."""

    name: Identifier
    seed: int = Field(0, ge=0, lt=2**32, description="for all that may be seeded; noise never is")
    data: DataPlan
    task: TaskPlan
    model: ModelPlan = ModelPlan()
    inner: InnerPlan = InnerPlan()
    outer: OuterPlan = OuterPlan()
    rounds: RoundsPlan = RoundsPlan()
    privacy: PrivacyPlan = PrivacyPlan()
    client_privacy: ClientPrivacyPlan = ClientPrivacyPlan()
    secure_aggregation: SecureAggregationPlan = SecureAggregationPlan()
    robust_aggregation: RobustAggregationPlan = RobustAggregationPlan()
    evaluation: EvaluationPlan = EvaluationPlan()
    calibration: CalibrationPlan = CalibrationPlan()
    student: StudentPlan = StudentPlan()
    audit: AuditPlan = AuditPlan()

    @model_validator(mode="after")
    def _check_across_sections(self) -> Self:
        if faults := cross_faults({name: getattr(self, name) for name in type(self).model_fields}):
            raise PlanError(faults, source=self.name)
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the plan as RFC 8785 canonical JSON, in hex; keys left at their defaults count too."""
        return _digest_of(self)

    @property
    def private(self) -> bool:
        """Whether training at the clients is differentially private."""
        return self.privacy.unit != "none"

    @property
    def client_private(self) -> bool:
        """Whether the sums of updates hide whole clients."""
        return (self.client_privacy.epsilon, self.client_privacy.noise_multiplier) != (None, None)

    @property
    def adapts_clip(self) -> bool:
        """Whether the clipping norm S follows the norms of the updates."""
        return self.client_private and self.client_privacy.clipping == "adaptive"

    @property
    def secure(self) -> bool:
        """Whether the server learns sums over groups only."""
        return self.secure_aggregation.mode == "secure"

    @property
    def fewest_asked(self) -> int:
        """Clients that a round has to ask, at least: fewer could not bring in enough, or would hide nobody."""
        least = self.rounds.min_replies
        return max(least, self.secure_aggregation.fewest_grouped(self.rounds.cohort_size)) if self.secure else least

    @property
    def audited(self) -> bool:
        """Whether the server's steps stand in a log that the clients check."""
        return self.audit.mode == "log"

    @property
    def robust_rule(self) -> tuple[str, ...]:
        """What makes one update of many: as the plan states it, or as recommended where it does not."""
        return rule_of(self.robust_aggregation)

    def check_withstood(self, clients: int) -> None:
        """Check that a federation of ``clients`` can outvote what the plan takes for poisoned.

        Raises:
            PlannerError: It cannot; the remedy says which of the plan's numbers to move.
        """
        check_withstood(self.robust_aggregation, self.secure_aggregation, self.rounds, clients=clients)

    def evaluates_in(self, round_number: int) -> bool:
        """Whether training clients score the model in this round, before and after adapting it."""
        every = self.evaluation.federated_every_rounds
        return every is not None and round_number % every == 0 and not self.calibrates_in(round_number)

    def calibrates_in(self, round_number: int) -> bool:
        """Whether clients that never trained find out in this round how sure adapted models may be."""
        return self.calibration.held_back > 0 and round_number == self.rounds.count

    def scores_in(self, round_number: int) -> bool:
        """Whether clients adapt and score the model in this round, for either."""
        return self.evaluates_in(round_number) or self.calibrates_in(round_number)

    @property
    def asks_for_scores(self) -> bool:
        """Whether there is a round in which clients score the model."""
        return self.evaluation.federated_every_rounds is not None or self.calibration.held_back > 0


__all__ = ["FederationPlan"]


@lru_cache(maxsize=16)
def _digest_of(plan: FederationPlan) -> str:
    """Remembered, since every client of a simulation asks for it at every turn."""
    return hashlib.sha256(rfc8785.dumps(plan.model_dump(mode="json"))).hexdigest()
