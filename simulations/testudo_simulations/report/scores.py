"""The table of training clients' own scores: what a secure sum said of them, with its noise, and what it leaves out."""

from __future__ import annotations

from testudo_common.markup import Markup, join, table, tag
from testudo_common.reporting import shown
from testudo_simulations.report import wording
from testudo_simulations.results import RoundRecord, RunResult


def _scored(record: RoundRecord) -> bool:
    return bool(record.metrics or record.withheld)


def federated_scores(run: RunResult, name: str) -> Markup:
    """Scores of training clients by round, the noise on them, and what is not reported; nothing without scores."""
    measured = [record for record in run.rounds if _scored(record)]
    if not measured:
        return Markup("")
    names = list(dict.fromkeys(one for record in measured for half in record.metrics.values() for one in half))
    withheld = any(record.withheld for record in measured)
    rows = [
        [
            str(record.round),
            *(f"{_score(record, 'before', one)} → {_score(record, 'after', one)}" for one in names),
            *([_withheld(record)] if withheld else []),
        ]
        for record in measured
    ]
    caption = f"Training clients' own scores, summed securely, before → after adaptation: {name}"
    head = ["Round", *map(shown.metric_title, names), *(["Not reported"] if withheld else [])]
    parts = [table(head, rows, caption=caption, numbers=range(1, 1 + len(names)))]
    if any(record.metric_noise for record in measured):
        parts.append(tag("p", wording.SCORE_NOISE))
    if withheld:
        parts.append(tag("p", wording.SCORES_WITHHELD))
    return join(*parts)


def _score(record: RoundRecord, when: str, name: str) -> str:
    value = record.metrics.get(when, {}).get(name)
    if value is None:
        return shown.MISSING
    return wording.with_noise(name, value, record.metric_noise.get(when, {}).get(name))


def _withheld(record: RoundRecord) -> str:
    halves = [wording.withheld(record.withheld.get(when, {})) for when in ("before", "after")]
    return halves[0] if halves[0] == halves[1] else " → ".join(halves)
