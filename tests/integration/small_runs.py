"""A run small enough for a test, as settings of the command line. No tests in here."""

from __future__ import annotations

SMALL_SINE = [
    "data.clients=12",
    "data.unseen_clients=3",
    "rounds.count=6",
    "rounds.cohort_size=4",
    "model.hidden=[8]",
    "evaluation.every_rounds=2",
]


def settings(lines: list[str]) -> list[str]:
    """``--set`` before each."""
    return [part for line in lines for part in ("--set", line)]
