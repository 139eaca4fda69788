"""The federations that can be simulated: one module each, and ``load_federation`` to choose among them.

A module knows its data and nothing about training. They share split.py, clients.py and complete.py.
"""

from __future__ import annotations

from pathlib import Path

from testudo_common.errors import DataError
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import (
    ActivityData,
    DigitsData,
    OmniglotData,
    RetailData,
    SineData,
)
from testudo_simulations.federations import activity, digits, omniglot, retail, sine, table
from testudo_simulations.federations.base import Exclusion, Federation, UnseenClient
from testudo_simulations.federations.complete import with_participations


def load_federation(plan: FederationPlan, data: Path | None) -> Federation:
    """The federation that the plan names, with its plan made complete.

    Args:
        plan: Complete or not.
        data: File or folder for federations of real data; None for those that simulate their own.

    Raises:
        DataError: ``data`` is missing or not wanted, or cannot be used.
        PlanError: What the plan states about the model does not agree with the data.
    """
    return with_participations(_load(plan, data))


def _load(plan: FederationPlan, data: Path | None) -> Federation:
    section = plan.data
    if isinstance(section, DigitsData | SineData):
        if data is not None:
            raise DataError(
                f"the {section.federation} federation simulates its own data and would not read this",
                where=f"--data {data}",
                remedy="Take --data out, or name another federation in the plan",
            )
        return digits.load(plan, section) if isinstance(section, DigitsData) else sine.load(plan, section)
    if data is None:
        raise DataError(f"the {section.federation} federation needs data", remedy="Pass --data PATH")
    match section:
        case OmniglotData():
            return omniglot.load(plan, section, data)
        case RetailData():
            return retail.load(plan, section, data)
        case ActivityData():
            return activity.load(plan, section, data)
        case _:
            return table.load(plan, section, data)


__all__ = ["Exclusion", "Federation", "UnseenClient", "load_federation"]
