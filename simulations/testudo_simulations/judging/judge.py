"""Judges a published meta-model on all unseen clients of its federation. Reads no model and prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from testudo_client.judging.answered import Answered
from testudo_client.judging.comparing import compare
from testudo_client.judging.judge import Request, refuse_other_task
from testudo_client.judging.results import Comparison, Evaluation, ModelName, ScoreTable, ShiftScore
from testudo_client.judging.robustness import Change, shift_scores
from testudo_client.judging.scoring import score_table
from testudo_client.judging.slicing import slices_of
from testudo_common.errors import ModelError
from testudo_common.learning.columns import input_columns
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import TableData
from testudo_common.publication import PublishedModel
from testudo_simulations.adaptation import adapter_of
from testudo_simulations.engine import Engine
from testudo_simulations.evaluation import headline_of
from testudo_simulations.federations.base import Federation
from testudo_simulations.judging.asked import AskedClients, Outcome, clients_pairs

Progress = Callable[[str, int, int], None]


def judge_federation(
    published: PublishedModel,
    federation: Federation,
    request: Request,
    *,
    before: PublishedModel | None = None,
    cells: Mapping[str, Sequence[str]],
    engine: Engine | None,
    progress: Progress,
) -> Evaluation:
    """A meta-model before and after adaptation to every unseen client.

    Args:
        published: Judged.
        federation: Whose plan is the model's.
        request: What to find out; support sizes are the plan's.
        before: Compared with it at each support size, on the same rows of the same clients.
        cells: Column -> a cell for each row scored, to part them by.
        engine: Adapts all clients at once; None: each by itself.
        progress: Told of each step.

    Raises:
        ModelError: A model does not fit the plan, or no client's training came to anything.
        UsageError: ``before`` is a model of another task.
    """
    plan = federation.plan
    if before is not None:
        refuse_other_task(plan, before.plan)
    sizes, adapter = clients_pairs(federation), adapter_of(plan, engine)
    tables: list[ScoreTable] = []
    comparisons: list[Comparison] = []
    for done, (size, clients) in enumerate(sizes.items()):
        progress("all examples" if size is None else f"{size} shots", done, len(sizes) + 1)
        asked = AskedClients(adapter, clients, size, request.level)
        start, (outcome,) = asked.as_published(published), asked.adapted(published)
        if len(outcome.answered) == 0:
            raise ModelError("training diverged at every client", remedy="Lower the plan's learning rate")
        tables += _tables(plan, size, start, outcome, request, first=not tables)
        if before is not None:
            (theirs,) = asked.adapted(before)
            comparisons.append(_beside(outcome, theirs, before, size, request, headline_of(plan).metric))
    progress("slices and shifts", len(sizes), len(sizes) + 1)
    kept = np.flatnonzero(~np.isin(start.answered.clients, outcome.diverged)).tolist()
    slices = slices_of(
        outcome.answered,
        {column: [own[row] for row in kept] for column, own in cells.items()},
        np.random.default_rng(request.seed),
    )
    shifts = _shifts(asked, published, request) if request.shifts else ()
    progress("done", len(sizes) + 1, len(sizes) + 1)
    return Evaluation(
        created=request.created,
        kind="simulation",
        model=ModelName(digest=published.digest, round=published.round),
        plan=plan.name,
        plan_digest=plan.digest,
        task=plan.task.kind,
        source=request.source,
        headline=headline_of(plan).metric,
        loss_metric="mae" if outcome.answered.regression else "accuracy",
        unit=_unit(plan),
        level=request.level,
        tables=tuple(tables),
        slices=slices,
        shifts=shifts,
        comparisons=tuple(comparisons),
        warnings=tuple(f"client {one.client} was left out: {one.reason}" for one in federation.excluded),
    )


def _unit(plan: FederationPlan) -> str:
    if not isinstance(plan.data, TableData):
        return ""
    return f"log {plan.data.target_unit}".strip() if plan.data.target_transform == "log" else plan.data.target_unit


def _tables(
    plan: FederationPlan, size: int | None, start: Outcome, outcome: Outcome, request: Request, *, first: bool
) -> list[ScoreTable]:
    """After adaptation, and before it where that is not the same at every size."""
    headline, seed = headline_of(plan).metric, request.seed
    found = []
    if first or plan.task.local_centring != "none":
        shots = 0 if plan.task.local_centring == "none" else size
        found.append(score_table(start.answered, "before", shots, headline=headline, seed=seed))
    adapted = score_table(
        outcome.answered,
        "adapted",
        size,
        headline=headline,
        seed=seed,
        start=start.without(outcome.diverged),
        diverged=len(outcome.diverged),
        raw=None if outcome.raw.regression else outcome.raw,
    )
    return [*found, adapted]


def _beside(
    outcome: Outcome, theirs: Outcome, before: PublishedModel, size: int | None, request: Request, headline: str
) -> Comparison:
    """On the clients of both; a client whose training diverged from the new model alone forbids a good verdict."""
    lost = (*outcome.diverged, *theirs.diverged)
    name = ModelName(digest=before.digest, round=before.round)
    judged, other = outcome.without(lost), theirs.without(lost)
    found = compare(judged, other, name, shots=size, headline=headline, margin=request.margin)
    if found.passed and set(outcome.diverged) - set(theirs.diverged):
        return found.model_copy(update={"verdict": "not shown"})
    return found


def _shifts(asked: AskedClients, published: PublishedModel, request: Request) -> tuple[ShiftScore, ...]:
    def ask(changes: Sequence[Change]) -> list[Answered]:
        outcomes = asked.adapted(published, changes)
        lost = sorted({client for outcome in outcomes for client in outcome.diverged})
        return [outcome.without(lost) for outcome in outcomes]

    return shift_scores(ask, input_columns(published.plan), request.seed)
