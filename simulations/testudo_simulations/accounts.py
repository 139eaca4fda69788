"""What a run's clients have spent, from the plan and the server's records. Trains nothing, shows nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from testudo_common.plan import FederationPlan
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.privacy.events import Spending
from testudo_common.privacy.planned import (
    CLIENT_ACCOUNTANT,
    planned_client_noise,
    planned_event,
    scored_participations,
    scores_spending,
    sum_spending,
    training_spending,
)
from testudo_common.privacy.statement import statement_of
from testudo_server.store import RoundRecord, RunState
from testudo_simulations.results import ClientAccount, PrivacySummary


@dataclass(frozen=True, slots=True)
class Busiest:
    """The client that was asked most often; a round it was asked in counts, whatever became of it.

    So does each attempt at a round, since a client may have trained anew for it, but never more often than planned:
    the clients' own ledgers refuse. Who scored most often is taken to be who trained most often.

    Attributes:
        trained: Rounds.
        scored: Rounds in which it scored the model.
        sums: Secure sums.
    """

    trained: int
    scored: int
    sums: int

    @classmethod
    def of(cls, plan: FederationPlan, state: RunState, records: Sequence[RoundRecord]) -> Busiest:
        """From the server's records."""
        asked, scored = Counter(state.participations), Counter[str]()
        for record in records:
            attempts = max((group.attempt for group in record.groups), default=0)
            asked.update(dict.fromkeys(record.cohort, attempts))
            if plan.scores_in(record.round):
                scored.update(dict.fromkeys(record.cohort, 1 + attempts))
        most = max(asked.values(), default=0)
        limit = most if plan.rounds.max_participations is None else plan.rounds.max_participations
        return cls(
            trained=min(most, limit),
            scored=min(max(scored.values(), default=0), scored_participations(plan)),
            sums=min(most, limit) if plan.client_privacy.epsilon is not None else most,
        )

    def spent(self, plan: FederationPlan) -> Spending:
        """What that cost, in both units."""
        return (
            training_spending(plan).times(self.trained)
            + scores_spending(plan).times(self.scored)
            + sum_spending(plan).times(self.sums)
        )


def run_statement(plan: FederationPlan, busiest: Busiest) -> dict[str, object]:
    """The federation's privacy statement, as JSON has it: of the largest account of any client."""
    statement = statement_of(plan, busiest.spent(plan), subject="the client that was asked most often")
    return statement.as_json()


def privacy_summary(plan: FederationPlan, busiest: Busiest) -> PrivacySummary:
    """The accounts of the client that was asked most often."""
    event, most = planned_event(plan), busiest.trained
    client = _client_account(plan, busiest.sums)
    if event is None:
        steps = most * plan.inner.steps * plan.task.tasks_per_client
        return PrivacySummary(
            unit="none",
            epsilon=None,
            target_epsilon=None,
            delta=None,
            noise_multiplier=None,
            sample_rate=None,
            max_grad_norm=None,
            steps_per_client=steps,
            accountant=None,
            client=client,
        )
    epsilon = epsilon_of(busiest.spent(plan).example, plan.privacy.delta, plan.privacy.accountant)
    return PrivacySummary(
        unit="example",
        epsilon=epsilon if np.isfinite(epsilon) else None,
        target_epsilon=plan.privacy.epsilon,
        delta=plan.privacy.delta,
        noise_multiplier=event.noise_multiplier,
        sample_rate=event.sample_rate,
        max_grad_norm=plan.privacy.max_grad_norm,
        steps_per_client=most * event.steps,
        accountant=plan.privacy.accountant,
        client=client,
    )


def _client_account(plan: FederationPlan, sums: int) -> ClientAccount | None:
    """What ``sums`` secure sums cost, at the unit of a whole client. An attempt that was not opened is charged too."""
    spent = sum_spending(plan).times(sums).client
    if not plan.client_private:
        return None
    noise_multiplier = planned_client_noise(plan)
    assert noise_multiplier is not None
    return ClientAccount(
        epsilon=epsilon_of(spent, plan.client_privacy.delta, CLIENT_ACCOUNTANT),
        target_epsilon=plan.client_privacy.epsilon,
        delta=plan.client_privacy.delta,
        noise_multiplier=noise_multiplier,
        sums=sums,
        accountant=CLIENT_ACCOUNTANT,
    )
