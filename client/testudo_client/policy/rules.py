"""The rules of a policy on a plan by itself: privacy, aggregation, scores, log, model. One finding a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import zip_longest

from testudo_client.ledger.account import Ceiling, epsilon_under
from testudo_client.policy.contract import BYTES_PER_VALUE, Contract, Tensor, values_of
from testudo_client.policy.findings import Finding
from testudo_client.policy.sections import OwnerPolicy, TensorRule, UnitLimits
from testudo_common.errors import ModelError, PrivacyError
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import ModelPlan
from testudo_common.privacy.accountant import AccountantName
from testudo_common.privacy.events import Unit
from testudo_common.privacy.planned import CLIENT_ACCOUNTANT, run_spending

ContractOf = Callable[[ModelPlan], Contract]
"""Name, shape and type of a plan's shared tensors; asked only for a model that the policy names."""


def plan_findings(policy: OwnerPolicy, plan: FederationPlan, contract_of: ContractOf) -> Iterator[Finding]:
    """What each rule on the plan says; the model's own come last, since only they import torch."""
    yield from _privacy(policy, plan)
    yield from _aggregation(policy, plan)
    yield from _metrics(policy, plan)
    yield from _audit(policy, plan)
    yield from _model(policy, plan, contract_of)


def _privacy(policy: OwnerPolicy, plan: FederationPlan) -> Iterator[Finding]:
    privacy = policy.privacy
    if privacy.none:
        yield Finding("privacy.none", "plans without privacy too", "no privacy is needed", True, "")
    if privacy.example is not None:
        has, delta = plan.private, plan.privacy.delta
        yield from _unit(plan, privacy.example, Unit.EXAMPLE, privacy.example.accountant, has=has, delta=delta)
    if privacy.client is not None:
        has, delta = plan.client_private, plan.client_privacy.delta
        yield from _unit(plan, privacy.client, Unit.CLIENT, CLIENT_ACCOUNTANT, has=has, delta=delta)


def _unit(
    plan: FederationPlan, limits: UnitLimits, unit: Unit, accountant: AccountantName, *, has: bool, delta: float
) -> Iterator[Finding]:
    key, section = f"privacy.{unit}", "privacy" if unit is Unit.EXAMPLE else "client_privacy"
    remedy = f"Ask for a plan with [{section}]"
    if not has:
        yield Finding(key, f"{unit}-level privacy only", f"the plan has no {unit}-level privacy", False, remedy)
        return
    yield Finding(key, f"{unit}-level privacy only", f"the plan has {unit}-level privacy", True, remedy)
    remedy = f"Ask for a plan with {section}.delta = {limits.delta:g}"
    asked = f"the plan's delta is {delta:g}"
    yield Finding(f"{key}.delta", f"up to {limits.delta:g}", asked, delta <= limits.delta, remedy)
    limit = f"up to {limits.epsilon_per_run:g} at delta {limits.delta:g}"
    try:
        ceiling = Ceiling(f"{key}.epsilon_per_run", unit, limits.epsilon_per_run, limits.delta, accountant)
        epsilon = _epsilon_of_run(plan, ceiling)
    except PrivacyError as error:
        yield Finding(f"{key}.epsilon_per_run", limit, f"cannot be computed: {error.problem}", False, error.remedy)
        return
    asked = f"the whole plan costs epsilon {epsilon:.6g} by {accountant.upper()}"
    remedy = "Ask for a plan with more noise, fewer steps or fewer rounds of one client"
    yield Finding(f"{key}.epsilon_per_run", limit, asked, epsilon <= limits.epsilon_per_run, remedy)


@lru_cache(maxsize=64)
def _epsilon_of_run(plan: FederationPlan, ceiling: Ceiling) -> float:
    """Epsilon of all rounds that one client may take part in, as the ledger counts it; asked for in every round."""
    return epsilon_under(run_spending(plan), ceiling)


def _aggregation(policy: OwnerPolicy, plan: FederationPlan) -> Iterator[Finding]:
    rules, rounds = policy.aggregation, plan.rounds
    often = rounds.max_participations
    asked = "not stated" if often is None else f"the plan has up to {often} rounds of one client"
    allowed = often is not None and often <= rules.max_participations
    remedy = f"Ask for a plan with rounds.max_participations = {rules.max_participations} or less"
    yield Finding("aggregation.max_participations", f"up to {rules.max_participations} rounds", asked, allowed, remedy)
    if rules.secure or plan.secure:
        asked = "nobody sees an update by itself" if plan.secure else "the server would see each update by itself"
        remedy = 'Ask for a plan with secure_aggregation.mode = "secure"'
        yield Finding(
            "aggregation.secure", "in secure sums only" if rules.secure else "any", asked, plan.secure, remedy
        )
    else:
        yield Finding("aggregation.secure", "any", "the server sees each update by itself", True, "")
    if plan.secure:
        yield from _secure_aggregation(policy, plan)


def _secure_aggregation(policy: OwnerPolicy, plan: FederationPlan) -> Iterator[Finding]:
    from testudo_common.plan.secure import parameters_for

    rules, secure = policy.aggregation, plan.secure_aggregation
    parameters = parameters_for(secure, plan.rounds, max_norm=1.0, values=1, count_bounds=())
    floors = (
        ("min_cohort", rules.min_cohort, parameters.min_cohort),
        ("min_group", rules.min_group, secure.min_group),
        ("min_corruption", rules.min_corruption, secure.corruption),
    )
    for name, least, asked in floors:
        yield _bound(name, "at least", least, asked, asked >= least)
    for name, most, asked in (
        ("max_left_out", rules.max_left_out, secure.max_left_out),
        ("max_attempts", rules.max_attempts, secure.max_attempts),
    ):
        yield _bound(name, "up to", most, asked, asked <= most)
    weight = f"a client weighs up to {secure.max_weight}"
    limit = "any weight" if rules.weighted else "1"
    allowed = rules.weighted or secure.max_weight == 1
    yield Finding(
        "aggregation.weighted", limit, weight, allowed, "Ask for a plan with secure_aggregation.max_weight = 1"
    )


def _bound(name: str, word: str, limit: float, asked: float, allowed: bool) -> Finding:
    plan_key = "secure_aggregation." + ("corruption" if name == "min_corruption" else name)
    remedy = f"Ask for a plan with {plan_key} = {limit:g}"
    return Finding(f"aggregation.{name}", f"{word} {limit:g}", f"the plan's {plan_key} is {asked:g}", allowed, remedy)


def _metrics(policy: OwnerPolicy, plan: FederationPlan) -> Iterator[Finding]:
    rules, evaluation = policy.metrics, plan.evaluation
    if not plan.asks_for_scores:
        yield Finding("metrics.statistics", _listed(rules.statistics), "no scores leave", True, "")
        return
    asked = statistics_of(plan)
    remedy = "Ask for a plan without evaluation.federated_every_rounds and calibration.held_back"
    allowed = set(asked) <= set(rules.statistics)
    yield Finding("metrics.statistics", _listed(rules.statistics), f"scores leave: {_listed(asked)}", allowed, remedy)
    if plan.private:
        noise, least = evaluation.federated_noise_multiplier or 0.0, rules.min_noise_multiplier
        remedy = f"Ask for a plan with evaluation.federated_noise_multiplier = {least:g}"
        shown = f"their noise multiplier is {noise:g}"
        yield Finding("metrics.min_noise_multiplier", f"at least {least:g}", shown, noise >= least, remedy)
    remedy = f"Ask for a plan with evaluation.min_cell = {rules.min_cell}"
    asked_cell = f"classes and bins from {evaluation.min_cell} examples on are reported"
    allowed = evaluation.min_cell >= rules.min_cell
    yield Finding("metrics.min_cell", f"at least {rules.min_cell}", asked_cell, allowed, remedy)


def statistics_of(plan: FederationPlan) -> tuple[str, ...]:
    """Which statistics the scores that a plan asks for hold."""
    if not plan.asks_for_scores:
        return ()
    if plan.task.kind == "regression":
        return ("errors",)
    evaluates = plan.evaluation.federated_every_rounds is not None
    return ("confusion", "calibration", "brier") if evaluates else ("calibration",)


def _audit(policy: OwnerPolicy, plan: FederationPlan) -> Iterator[Finding]:
    rules, audited = policy.audit, plan.audited
    if rules.required or audited:
        limit = "with a log that the clients cosign" if rules.required else "any"
        asked = "what the server does is in such a log" if audited else "nobody could check what the server does"
        yield Finding("audit.required", limit, asked, audited, 'Ask for a plan with audit.mode = "log"')
    else:
        yield Finding("audit.required", "any", "nobody can check what the server does", True, "")
    if audited:
        window, most = plan.audit.window, rules.max_window
        remedy = f"Ask for a plan with audit.window = {most}"
        asked = f"a cosignature counts for {window} round{'' if window == 1 else 's'}"
        yield Finding("audit.max_window", f"up to {most}", asked, window <= most, remedy)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"


def _model(policy: OwnerPolicy, plan: FederationPlan, contract_of: ContractOf) -> Iterator[Finding]:
    rules, name = policy.model, plan.model.name
    allowed = name in rules.allowed
    remedy = "Read that code, and then add its name to model.allowed" if ":" in name else "Add it to model.allowed"
    yield Finding("model.allowed", _listed(rules.allowed), f"the plan's model is {name}", allowed, remedy)
    if not allowed:
        return  # not even its shape is asked for: a factory would run
    limit = f"up to {rules.max_bytes} bytes"
    try:
        contract = contract_of(plan.model)
    except ModelError as error:
        asked = f"the size of an update cannot be known: {error.problem}"
        yield Finding("model.max_bytes", limit, asked, False, error.remedy or "Correct the plan's [model]")
        return
    size = BYTES_PER_VALUE * values_of(contract)
    remedy = "Ask for a plan with a smaller model"
    yield Finding("model.max_bytes", limit, f"one update is {size} bytes", size <= rules.max_bytes, remedy)
    if rules.tensors is not None:
        fault = _fault_of_tensors(rules.tensors, contract)
        found = fault or f"all {len(contract)} tensors are as written"
        remedy = "Compare the plan's [model] with model.tensors"
        yield Finding("model.tensors", f"these {len(rules.tensors)}, in order", found, fault is None, remedy)


def _fault_of_tensors(rules: tuple[TensorRule, ...], contract: Contract) -> str | None:
    """How the plan's tensors differ from the contract, or None."""
    wanted = tuple(Tensor(rule.name, rule.shape, rule.dtype) for rule in rules)
    for place, (want, have) in enumerate(zip_longest(wanted, contract)):
        if want != have:
            return f"tensor {place} is {have or 'missing'} instead of {want or 'none'}"
    return None
