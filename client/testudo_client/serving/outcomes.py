"""What turned out to be true, as it is kept: a class's number, or a target in the plan's scale."""

from __future__ import annotations

from collections.abc import Mapping

from testudo_client.data import number_as_input
from testudo_client.personal.contract import Value, one_of
from testudo_client.personal.own_model import OwnModel
from testudo_client.serving.refusals import Reason, RefusalError
from testudo_common.errors import Fault
from testudo_common.plan.sections import Column, TableData


def targets_of(own: OwnModel, outcomes: Mapping[str, Value]) -> dict[str, float]:
    """Key -> class number, or scaled target.

    Args:
        own: The version in use.
        outcomes: Key -> a label as text, or a number in the target's unit.

    Raises:
        RefusalError: A value is none that the target can have.
    """
    return {key: _target_of(own, value) for key, value in outcomes.items()}


def _target_of(own: OwnModel, value: Value) -> float:
    data = own.plan.data
    assert isinstance(data, TableData)  # a contract has columns
    if not own.regression:
        if value not in own.labels:
            raise _refused(data.target, "not one of its classes", one_of(own.labels))
        return float(own.labels.index(str(value)))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refused(data.target, "not a number", "Send a number, without quotes")
    center, scale = data.target_center or 0.0, data.target_scale or 1.0
    column = Column(name=data.target, transform=data.target_transform, center=center, scale=scale)
    try:
        scaled = number_as_input(column, float(value))
    except OverflowError:
        scaled = "not a finite number"
    if isinstance(scaled, str):
        raise _refused(data.target, scaled, "Send what was counted or measured")
    return scaled


def _refused(target: str, problem: str, remedy: str) -> RefusalError:
    faults = [Fault(target, problem, remedy)]
    return RefusalError(Reason.CONTRACT, "an outcome is none that the target can have", faults=faults)
