"""A plan made complete: what it leaves open follows from the data, the rest must agree."""

from __future__ import annotations

from dataclasses import replace

from testudo_common.errors import Fault, PlanError
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import DataPlan
from testudo_common.privacy.planned import check_held_back, participations_for
from testudo_simulations.federations.base import Federation


def complete_plan(
    plan: FederationPlan, inputs: tuple[int, ...], outputs: int, data: DataPlan | None = None
) -> FederationPlan:
    """The plan with ``model.inputs`` and ``model.outputs`` stated; validated again.

    Args:
        plan: Complete or not.
        inputs: Shape of one input, as the data has it.
        outputs: Classes, ways, or 1 for regression, as the data has it.
        data: The data section with nothing left open; None keeps the plan's own.

    Raises:
        PlanError: The plan states another shape than the data has, or the model cannot read this shape.
    """
    faults = []
    if plan.model.inputs not in (None, inputs):
        faults.append(_disagreement("inputs", list(plan.model.inputs or ()), list(inputs)))
    if plan.model.outputs not in (None, outputs):
        faults.append(_disagreement("outputs", plan.model.outputs, outputs))
    if faults:
        raise PlanError(faults, source=plan.name)
    model = plan.model.model_copy(update={"inputs": inputs, "outputs": outputs})
    changed = plan.model_copy(update={"model": model, "data": data or plan.data})
    # model_copy checks nothing; only a validated plan leaves this function
    return FederationPlan.model_validate(changed.model_dump())


def with_participations(federation: Federation) -> Federation:
    """The federation with ``rounds.max_participations`` stated: as planned, or everybody asked equally often.

    A cohort is no larger than the federation.

    Raises:
        PlanError: The plan does not work with so few clients.
    """
    plan = federation.plan
    cohort_size = min(plan.rounds.cohort_size, len(federation.training))
    if plan.rounds.max_participations is not None and cohort_size == plan.rounds.cohort_size:
        check_held_back(plan, len(federation.training))
        return federation
    participations = plan.rounds.max_participations or participations_for(plan, len(federation.training))
    rounds = plan.rounds.model_copy(update={"max_participations": participations, "cohort_size": cohort_size})
    changed = FederationPlan.model_validate(plan.model_copy(update={"rounds": rounds}).model_dump())
    check_held_back(changed, len(federation.training))
    return replace(federation, plan=changed)


def _disagreement(key: str, stated: object, found: object) -> Fault:
    return Fault(f"model.{key}", f"{stated} is stated, but the data has {found}", f"Write {found}, or take it out")
