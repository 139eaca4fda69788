"""What a run's clients have spent, from the plan and the server's records. Trains nothing, shows nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from testudo_common.plan import FederationPlan
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.privacy.events import SampledGaussian
from testudo_common.privacy.planned import CLIENT_ACCOUNTANT, planned_client_noise, planned_event, sum_spending
from testudo_server.store import RoundRecord, RunState
from testudo_simulations.results import ClientAccount, PrivacySummary


def privacy_summary(plan: FederationPlan, state: RunState, records: Sequence[RoundRecord]) -> PrivacySummary:
    """The accounts of the client that was asked most often; a round it was asked in counts, whatever became of it.

    So does each attempt at a round, since a client may have trained anew for it, but never more often than planned.
    """
    event = planned_event(plan)
    asked = Counter(state.participations)
    for record in records:
        asked.update(dict.fromkeys(record.cohort, max((group.attempt for group in record.groups), default=0)))
    most = max(asked.values(), default=0)
    client = _client_account(plan, most)
    if plan.rounds.max_participations is not None:
        most = min(most, plan.rounds.max_participations)
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
    spent = SampledGaussian(event.noise_multiplier, event.sample_rate, most * event.steps)
    epsilon = epsilon_of([spent], plan.privacy.delta, plan.privacy.accountant)
    return PrivacySummary(
        unit="example",
        epsilon=epsilon if np.isfinite(epsilon) else None,
        target_epsilon=plan.privacy.epsilon,
        delta=plan.privacy.delta,
        noise_multiplier=event.noise_multiplier,
        sample_rate=event.sample_rate,
        max_grad_norm=plan.privacy.max_grad_norm,
        steps_per_client=spent.steps,
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
