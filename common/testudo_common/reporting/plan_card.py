"""What a plan alone says for the card of its meta-model. Measures nothing; what a plan does not hold is not stated."""

from __future__ import annotations

from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import Column, TableData
from testudo_common.reporting.cards import Card, Fact, Facts, Part, model_card

METRICS = {
    "regression": "RMSE and MAE in the target's unit; coverage: how often the truth lies within the stated interval.",
    "classification": (
        "Accuracy; balanced accuracy where classes are uneven; ECE: how far stated probabilities are from how often "
        "they are right; Brier score; coverage: how often the truth is among the classes that were not excluded."
    ),
    "few_shot": "Accuracy over episodes with new classes.",
}


def meta_model_card(plan: FederationPlan, round_number: int, digest: str, found: Facts) -> Card:
    """The card of a meta-model.

    Args:
        plan: That it was made under, complete.
        round_number: After which.
        digest: Of the model, as the audit log names it.
        found: What was measured.
    """
    made = {
        Part.DETAILS: [
            ("Model", f"meta-initialisation {plan.name}, after round {round_number}"),
            ("Digest of the model", digest),
        ]
    }
    return model_card(f"Model card: {plan.name}", made, facts_of_plan(plan), found)


def facts_of_plan(plan: FederationPlan) -> Facts:
    """What the plan says, part by part."""
    return {
        Part.DETAILS: _details(plan),
        Part.USE: _use(plan),
        Part.FACTORS: _factors(plan),
        Part.METRICS: [("", METRICS[plan.task.kind])],
        Part.TRAINING: _training(plan),
        Part.ETHICS: _ethics(plan),
        Part.CAVEATS: _caveats(plan),
    }


def _details(plan: FederationPlan) -> list[Fact]:
    model, inner, outer = plan.model, plan.inner, plan.outer
    shape = {"mlp": f"hidden layers {model.hidden}", "conv": f"{model.blocks} blocks of {model.channels} channels"}
    inputs = "" if model.inputs is None else f"; inputs {'x'.join(map(str, model.inputs))}, outputs {model.outputs}"
    return [
        ("Digest of the plan", plan.digest),
        ("Architecture", f"{model.name}{f', {shape[model.name]}' if model.name in shape else ''}{inputs}"),
        (
            "Training",
            f"federated Reptile (Nichol et al. 2018): {plan.rounds.count} rounds of {plan.rounds.cohort_size} clients; "
            f"{inner.steps} inner steps at {inner.learning_rate:g}; outer {outer.optimizer} at {outer.step_size:g}",
        ),
    ]


def _use(plan: FederationPlan) -> list[Fact]:
    data = plan.data
    asked = "one of some new classes"
    if isinstance(data, TableData):
        unit = f" ({data.target_unit})" if data.target_unit else ""
        asked = f"{data.target}{unit}, for one {data.client}"
    elif plan.task.kind != "few_shot":
        asked = f"the target of {data.federation}"
    return [
        ("Made to answer", asked),
        ("Kind of task", plan.task.kind.replace("_", "-")),
        ("", "It is a starting point: each client adapts it to a few examples of its own before it is asked."),
        ("Out of scope", "rows outside the ranges and categories of the feature contract; clients of another kind than "
         "those that trained it"),
    ]  # fmt: skip


def _factors(plan: FederationPlan) -> list[Fact]:
    data = plan.data
    if not isinstance(data, TableData) or data.columns is None:
        return []
    return [("Columns it reads", "; ".join(map(_column, data.columns)))]


def _column(column: Column) -> str:
    kind = f"one of {len(column.categories)} categories" if column.kind == "category" else column.unit or "number"
    return f"{column.name} ({kind}{', may be missing' if column.missing else ''})"


def _training(plan: FederationPlan) -> list[Fact]:
    often = plan.rounds.max_participations
    return [
        ("Source", f"{plan.data.federation}; rows stay at their clients, and only updates of the model leave them"),
        ("Each client", f"takes part in {often} rounds at most" if often else "takes part as often as it is asked"),
    ]


def _ethics(plan: FederationPlan) -> list[Fact]:
    facts = []
    if plan.private:
        facts.append(("One example", f"differentially private training{_ceiling(plan.privacy.epsilon)} at delta "
                      f"{plan.privacy.delta:g} by {plan.privacy.accountant.upper()}"))  # fmt: skip
    if plan.client_private:
        facts.append(("One whole client", f"noise in the sums{_ceiling(plan.client_privacy.epsilon)} at delta "
                      f"{plan.client_privacy.delta:g}"))  # fmt: skip
    if not facts:
        facts.append(("Privacy", "none by noise: the model may give away what it was trained on"))
    sums = "sums over groups of clients, and no single update" if plan.secure else "every client's update by itself"
    return [*facts, ("The server saw", sums)]


def _ceiling(epsilon: float | None) -> str:
    return "" if epsilon is None else f", epsilon at most {epsilon:g} for one client over all its rounds"


def _caveats(plan: FederationPlan) -> list[Fact]:
    tolerated = plan.robust_aggregation.corruption
    poisoned = (
        f"{' then '.join(plan.robust_rule)} is set for {100 * tolerated:g} % of poisoned clients; no rule by itself "
        "stops a backdoor"
        if tolerated
        else "a plain mean: one poisoned client moves the model as far as its update's norm may be"
    )
    return [
        ("Poisoning", poisoned),
        ("", "Coverage and calibration hold for rows like those they were measured on; watch for drift."),
        ("", "A person decides where an answer matters to somebody: “not sure” is an answer."),
    ]
