"""How each arm looks in every figure of a report: its colour, its marker, its label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testudo_common.reporting.drawing import shorten
from testudo_simulations.report.summaries import SettingSummary

_KNOWN = {"scratch": ("#595959", "s"), "meta": ("#56B4E9", "D"), "adapted": ("#0072B2", "o")}
_OTHERS = (
    ("#E69F00", "^"),
    ("#009E73", "v"),
    ("#CC79A7", "P"),
    ("#D55E00", "X"),
    ("#000000", "<"),
    ("#7a5c00", ">"),
)


@dataclass(frozen=True, slots=True)
class Look:
    """Colour, marker and label of an arm in every figure."""

    color: str
    marker: str
    label: str


def looks(settings: Sequence[SettingSummary]) -> dict[str, Look]:
    """The look of each arm by its name; ours have their own."""
    arms = {arm.name: arm for setting in reversed(settings) for arm in reversed(setting.arms)}
    ordered = dict.fromkeys(arm.name for setting in settings for arm in setting.arms)
    others = iter(_OTHERS * len(ordered))
    return {name: Look(*(_KNOWN.get(name) or next(others)), shorten(arms[name].label)) for name in ordered}
