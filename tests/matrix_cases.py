"""Made-up cells of a matrix of attacks and defences, and a matrix around them. No tests in here."""

from __future__ import annotations

from typing import Any

from testudo_simulations.attacks.cell import Cell
from testudo_simulations.attacks.matrix import Matrix


def made_cell(attack: str, defence: str, score: float, **changed: Any) -> Cell:
    """A cell of two poisoned clients and seed 0, unless it is changed; its weight is a fifth."""
    fields: dict[str, Any] = {
        "attack": attack,
        "defence": defence,
        "poisoned": 2,
        "seed": 0,
        "score": score,
        "backdoor": None,
        "error": None,
        "weight": 0.2,
        "named": {},
        "framed": [],
        "outvoted": [],
        "unlike": [],
        "rounds": 5,
        "ended": "",
        "cpu_seconds": 1.5,
    }
    return Cell(**{**fields, **changed})


def clean_cell(score: float, defence: str = "mean", **changed: Any) -> Cell:
    """Nobody poisoned."""
    return made_cell("none", defence, score, poisoned=0, **changed)


def made_matrix(*cells: Cell, higher_is_better: bool = True, **changed: Any) -> Matrix:
    """Of all that the cells name, in the order in which they do."""
    attacks = dict.fromkeys(cell.attack for cell in cells)
    poisoned = [cell for cell in cells if cell.poisoned]
    fields: dict[str, Any] = {
        "name": "made-up",
        "plan_digest": "ab" * 32,
        "metric": "accuracy" if higher_is_better else "rmse",
        "higher_is_better": higher_is_better,
        "clients": 10,
        "attacks": ["none", *(name for name in attacks if name != "none")],
        "defences": list(dict.fromkeys(cell.defence for cell in poisoned)),
        "poisoned": sorted({cell.poisoned for cell in poisoned}),
        "seeds": sorted({cell.seed for cell in cells}),
        "cells": list(cells),
    }
    return Matrix(**{**fields, **changed})
