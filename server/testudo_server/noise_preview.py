"""What client-level noise will do to a plan's sums, before anybody trains. Of a full cohort; touches no data."""

from __future__ import annotations

import math

from testudo_common.plan import FederationPlan
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.privacy.planned import (
    CLIENT_ACCOUNTANT,
    planned_client_noise,
    sum_spending,
    update_noise_multiplier,
)
from testudo_common.roster import Roster
from testudo_common.secure_terms import Attempt, terms_of

DROWNING = 0.5
"""Noise over S in a group's mean from which on the plan warns: the longest mean that clients can send is S."""
Figures = dict[str, str | int | float | None]


def client_noise_figures(plan: FederationPlan, size: int | None) -> Figures:
    """Noise, account and survivors of client-level privacy; None where the plan leaves open what they depend on.

    Args:
        plan: Checked; with ``rounds.max_participations`` where that is known.
        size: d, shared parameters, or None.

    Raises:
        PrivacyError: No noise is enough for the plan's epsilon.
        ProtocolError: A client cannot draw its share of the noise, or a sum with it does not fit.
    """
    if not plan.client_private:
        return {}
    account, often = plan.client_privacy, plan.rounds.max_participations
    if account.epsilon is not None and often is None:
        return {"client_level_noise_multiplier": None, "client_level_epsilon": None}
    epsilon = None
    if often is not None:
        spent = sum_spending(plan).times(often).client
        epsilon = round(epsilon_of(spent, account.delta, CLIENT_ACCOUNTANT), 4)
    cohort = plan.rounds.cohort_size
    members = cohort // max(1, cohort // plan.secure_aggregation.group_size)
    nobody = Attempt("0" * 64, 1, 0, "0" * 64)
    parameters = terms_of(plan, Roster("preview", {}), nobody, size or 1).parameters
    return {
        "client_level_noise_multiplier": planned_client_noise(plan),
        "client_level_epsilon": epsilon,
        "client_level_delta": account.delta,
        "client_level_accountant": CLIENT_ACCOUNTANT,
        "fewest_clients_in_a_sum": parameters.least_survivors(members),
        "members_that_may_drop_out_of_a_group": members - parameters.least_survivors(members),
        "honest_survivors_that_carry_its_noise": parameters.honest_survivors(members),
        "bits_a_coordinate": parameters.layout.value_bits,
        "quantisation_step": 1 / parameters.layout.scale,
        **(_drowning(plan, parameters.layout.longest / parameters.layout.largest, members, size) if size else {}),
    }


def _drowning(plan: FederationPlan, longer: float, members: int, size: int) -> Figures:
    multiplier = update_noise_multiplier(plan)
    assert multiplier is not None
    ratio = multiplier * longer * math.sqrt(size) / members
    found: Figures = {"noise_of_a_groups_mean_over_clipping_norm": round(ratio, 4)}
    if ratio >= DROWNING:
        found["warning"] = (
            f"the signal drowns: noise in the mean of a group of {members} is {ratio:.2f} of the clipping norm long, "
            f"and {DROWNING:g} is much; every sum carries the whole noise, so form larger groups (one of the whole "
            "cohort, if nothing is to be outvoted), take fewer rounds a client, or a smaller model"
        )
    return found
