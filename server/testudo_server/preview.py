"""What a plan will cost, before anybody trains: privacy of one client, bytes of one round. Touches no data."""

from __future__ import annotations

from testudo_common.audit.checkpoints import colluders_found, default_quorum
from testudo_common.errors import PlannerError
from testudo_common.learning.learner import Learner
from testudo_common.log_traffic import roster_of
from testudo_common.plan import FederationPlan
from testudo_common.plan.robust import bad_rows_of, rows_of
from testudo_common.plan.sections import CalibrationPlan
from testudo_common.plan.secure import parameters_for
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.privacy.planned import check_held_back, participations_for, planned_noise_multiplier, run_spending
from testudo_common.robustness import count_of_share, failure_of
from testudo_common.secagg.graph import graph_of, log2_tails, share_of
from testudo_common.traffic import LOG_LEGS, legs_of
from testudo_server.noise_preview import client_noise_figures


def _secure_figures(plan: FederationPlan, clients: int | None) -> dict[str, str | int | float | None]:
    """Group, threshold and resolution of secure aggregation, for a full cohort."""
    secure, rounds = plan.secure_aggregation, plan.rounds
    if not plan.secure:
        return {"secure_aggregation": "none; the server sees each client's update"}
    limit = plan.outer.max_update_norm
    parameters = parameters_for(secure, rounds, max_norm=limit, values=1, count_bounds=())
    groups = max(1, rounds.cohort_size // secure.group_size)
    members = rounds.cohort_size // groups
    graph = graph_of(members, secure.corruption, secure.dropout)
    complete = graph.degree == members - 1
    return {
        "secure_aggregation": "the server sees sums over groups",
        "groups_a_round": groups,
        "clients_a_group": members,
        "fewest_clients_a_round": parameters.min_cohort,
        "fewest_clients_in_a_sum": secure.min_group,
        "shares_that_open_a_mask": f"{graph.threshold} of {graph.degree + 1}",
        "members_that_may_drop_out_of_a_group": members - max(graph.threshold, secure.min_group)
        if complete
        else share_of(members, secure.dropout),
        "members_that_may_collude_in_a_group": graph.colluders if complete else share_of(members, secure.corruption),
        **_chances_of_more(plan, parameters.min_cohort, clients),
        "bits_a_coordinate": parameters.layout.value_bits,
        "quantisation_step": 1 / parameters.layout.scale,
    }


def _chances_of_more(plan: FederationPlan, min_cohort: int, clients: int | None) -> dict[str, float | None]:
    """How likely a client meets more colluders in its group than the group withstands, where their share holds.

    Once for a full cohort drawn fairly, and once for the worst one: as small as may be, and with every colluder in it.
    """
    if clients is None:
        return {"chance_that_more_collude": None, "chance_in_a_cohort_that_the_server_picks": None}
    secure, corrupt = plan.secure_aggregation, share_of(clients, plan.secure_aggregation.corruption)

    def chance(cohort: int, population: int) -> float | None:
        members = cohort // max(1, cohort // secure.group_size)
        graph = graph_of(members, secure.corruption, secure.dropout)
        if graph.degree < members - 1:
            return None
        tails = log2_tails(population - 1, min(corrupt, population - 1), min(members, population) - 1)
        more = graph.colluders + 1
        return float(2.0 ** tails[more]) if more < len(tails) else 0.0

    return {
        "chance_that_more_collude": chance(plan.rounds.cohort_size, clients),
        "chance_in_a_cohort_that_the_server_picks": chance(min_cohort, min_cohort),
    }


def _robust_figures(plan: FederationPlan, clients: int | None) -> dict[str, str | int | float | None]:
    """Rule and f for a full cohort; checked, where it is known how many clients there are."""
    robust = plan.robust_aggregation
    if robust.corruption == 0:
        return {"poisoned_clients_outvoted": 0, "rule": " + ".join(plan.robust_rule)}
    known = clients if clients is not None else plan.rounds.cohort_size
    plan.check_withstood(known)
    cohort = min(plan.rounds.cohort_size, known)
    return {
        "poisoned_clients_outvoted": count_of_share(robust.corruption, known),
        "rule": " + ".join(plan.robust_rule),
        "bad_rows_a_round": bad_rows_of(robust, plan.secure_aggregation, clients=known, cohort=cohort),
        "rows_a_round": rows_of(plan.secure_aggregation, cohort),
        "chance_a_round_that_half_are_bad": failure_of(
            known, cohort, robust.corruption, plan.secure_aggregation.group_size if plan.secure else 1
        ),
    }


def _traffic(plan: FederationPlan, size: int | None, clients: int | None) -> dict[str, str | int | float | None]:
    """Payload bytes of a round without scores in which nobody drops out; names of clients are taken to be short."""
    noise_is_open = plan.client_privacy.epsilon is not None and plan.rounds.max_participations is None
    if size is None or noise_is_open:
        return {"bytes_down_a_client_and_round": None, "bytes_up_a_client_and_round": None}
    cohort = min(plan.rounds.cohort_size, clients or plan.rounds.cohort_size)
    quiet = plan.evaluation.model_copy(update={"federated_every_rounds": None, "federated_noise_multiplier": None})
    names = [f"client-{n}" for n in range(clients or cohort)]
    quiet_plan = plan.model_copy(update={"evaluation": quiet, "calibration": CalibrationPlan()})
    legs = legs_of(quiet_plan, size, names[:cohort], round_number=1, roster=roster_of(names))

    def total(*, up: bool, log: bool) -> int:
        return sum(leg.size_bytes for leg in legs if leg.up == up and (leg.name in LOG_LEGS) == log)

    training: dict[str, str | int | float | None] = {
        "bytes_down_a_client_and_round": total(up=False, log=False),
        "bytes_up_a_client_and_round": total(up=True, log=False),
    }
    if not plan.audited:
        return training
    return {
        **training,
        "bytes_down_of_the_log_about": total(up=False, log=True),
        "bytes_up_of_the_log_about": total(up=True, log=True),
    }


def _log_figures(plan: FederationPlan, clients: int | None) -> dict[str, str | int | float | None]:
    """Who checks the server, and what that withstands."""
    if not plan.audited:
        return {"audit_log": "none; nobody can check afterwards what the server did"}
    figures: dict[str, str | int | float | None] = {
        "audit_log": "every step is in a log that the clients mirror and cosign",
        "rounds_that_a_cosignature_counts": plan.audit.window,
    }
    if clients is None:
        unknown = ("owners_that_may_be_absent", "owners_that_may_collude_in_two_views")
        return {**figures, "owners_that_have_to_cosign": plan.audit.quorum, **dict.fromkeys(unknown)}
    quorum = plan.audit.quorum or default_quorum(clients)
    if quorum > clients:
        raise PlannerError(
            f"{quorum} owners have to cosign the audit log, and there are {clients}",
            where="audit.quorum",
            remedy="lower it, or leave it out",
            nearest={"audit.quorum": float(clients)},
        )
    return {
        **figures,
        "owners_that_have_to_cosign": quorum,
        "owners_that_may_be_absent": clients - quorum,
        "owners_that_may_collude_in_two_views": max(0, colluders_found(clients, quorum)),
    }


def preview(plan: FederationPlan, clients: int | None) -> dict[str, str | int | float | None]:
    """Figures of a plan; None where the plan leaves open what they depend on.

    Args:
        plan: Checked.
        clients: How many will take part; needed where the plan does not state ``rounds.max_participations``.

    Raises:
        PlannerError: So many poisoned clients cannot be outvoted, or so many owners cannot cosign.
        PlanError: Too few clients are left beside those held back.
        ModelError: The plan's model cannot be built.
        PrivacyError: No noise is enough for the plan's epsilon.
        ProtocolError: A client cannot draw its share of the noise, or a sum with it does not fit.
    """
    rounds = plan.rounds
    participations = rounds.max_participations
    if clients is not None:
        check_held_back(plan, clients)
    if participations is None and clients is not None:
        participations = participations_for(plan, clients)
        plan = plan.model_copy(update={"rounds": rounds.model_copy(update={"max_participations": participations})})
    modelled = plan.model.inputs is not None and plan.model.outputs is not None
    size = Learner(plan).size if modelled else None
    noise_multiplier = planned_noise_multiplier(plan) if participations is not None else plan.privacy.noise_multiplier
    epsilon = None
    if noise_multiplier and participations is not None:
        spent = run_spending(plan).example  # training, and scores where they are asked for
        epsilon = round(epsilon_of(spent, plan.privacy.delta, plan.privacy.accountant), 4)
    return {
        "name": plan.name,
        "digest": plan.digest,
        "rounds": rounds.count,
        "rounds_of_one_client": participations,
        "shared_parameters": size,
        **_traffic(plan, size, clients),
        **_log_figures(plan, clients),
        **_secure_figures(plan, clients),
        **_robust_figures(plan, clients),
        "privacy_unit": plan.privacy.unit,
        "epsilon_of_one_client": epsilon,
        "delta": plan.privacy.delta if plan.private else None,
        "noise_multiplier": noise_multiplier,
        "accountant": plan.privacy.accountant if plan.private else None,
        **client_noise_figures(plan, size),  # noise leaves fewer bits, and needs more survivors
    }
