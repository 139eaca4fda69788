"""Judges a published meta-model, or a version in use, on one owner's rows. Reads no file and prints nothing.

Every support size is scored on the same rows: those that the largest one leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from testudo_client.data import examples_of_rows
from testudo_client.judging.answered import Answered
from testudo_client.judging.comparing import MARGIN, compare
from testudo_client.judging.few_shot import (
    adapted,
    answered,
    query_rows,
    support_rows,
    table_data_of,
    unadapted,
    usable_shots,
)
from testudo_client.judging.results import Comparison, Evaluation, ModelName, ScoreTable, ShiftScore
from testudo_client.judging.robustness import Change, shift_scores
from testudo_client.judging.scoring import score_table
from testudo_client.judging.slicing import slices_of
from testudo_client.personal.own_model import LEVEL, OwnModel
from testudo_client.personal.versions import Version
from testudo_client.table import Table
from testudo_common.errors import UsageError
from testudo_common.learning.columns import input_columns
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.publication import PublishedModel

FEW_ROWS = 50  # fewer give a wide interval, which a warning says
Progress = Callable[[str, int, int], None]
"""What is being done, steps done, and steps in all."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of the harness.

    Attributes:
        created: UTC, ISO 8601.
        source: What to call the data.
        shots: Support sizes; None: the plan's.
        slices: Columns of the table to part the rows by.
        shifts: Whether to score the rows under named shifts too.
        margin: Being worse by less than this share is not worse; see ``comparing``.
        level: Nominal coverage.
        seed: Of bootstrap and shifts.
    """

    created: str
    source: str
    shots: tuple[int, ...] | None = None
    slices: tuple[str, ...] = ()
    shifts: bool = False
    margin: float = MARGIN
    level: float = LEVEL
    seed: int = 0


def judge_published(
    published: PublishedModel,
    table: Table,
    request: Request,
    *,
    before: PublishedModel | None = None,
    progress: Progress = lambda _what, _done, _total: None,
) -> Evaluation:
    """A meta-model before and after adaptation at each support size, on rows that it was not adapted on.

    Args:
        published: Judged.
        table: The owner's rows, in the plan's order.
        request: What else to find out.
        before: Compared with it at each support size, on the same rows.
        progress: Told of each step.

    Raises:
        DataError: The rows cannot be used, or are too few.
        ModelError: A model does not fit its plan, or training diverged.
        UsageError: ``before`` is a model of another task.
    """
    plan = published.plan
    examples = examples_of_rows(table_data_of(plan), plan.task.kind, table)
    sizes = usable_shots(plan, examples, request.shots)
    rows = query_rows(examples, sizes[-1], plan)
    queries = examples.take(rows)
    earlier = None if before is None else _Earlier(before, plan, table, rows)
    tables: list[ScoreTable] = []
    comparisons: list[Comparison] = []
    for place, size in enumerate(sizes):
        progress(f"adapting on {size}", place, len(sizes) + 1)
        support = examples.take(support_rows(examples, size, plan))
        if not tables or plan.task.local_centring != "none":
            start = answered(unadapted(published, support), queries, level=request.level)
            shots = 0 if plan.task.local_centring == "none" else size
            tables.append(score_table(start, "before", shots, seed=request.seed))
        own = adapted(published, support, size)
        judged = answered(own, queries, level=request.level)
        raw = answered(replace(own, temperature=1.0), queries) if not judged.regression else None
        tables.append(score_table(judged, "adapted", size, seed=request.seed, raw=raw))
        if earlier is not None:
            comparisons.append(earlier.beside(judged, size, request))
    progress("slices and shifts", len(sizes), len(sizes) + 1)
    name = ModelName(digest=published.digest, round=published.round)
    found = _evaluation("meta_model", name, own, judged, table.take(rows.tolist()), queries, request)
    return found.model_copy(update={"tables": tuple(tables), "comparisons": tuple(comparisons)})


def judge_own(version: Version, table: Table, request: Request, *, known_rows: int = 0) -> Evaluation:
    """The version in use, on rows that came since.

    Args:
        version: In use.
        table: New rows with what was true of them.
        request: What else to find out; support sizes have no meaning, since nothing is adapted.
        known_rows: How many of the rows the version was made from.

    Raises:
        DataError: The rows cannot be used.
        ModelError: An answer is not finite.
    """
    plan = version.own.plan
    queries = examples_of_rows(table_data_of(plan), plan.task.kind, table)
    judged = answered(version.own, queries, level=request.level)
    record = version.record
    name = ModelName(digest=record.meta_model, round=record.meta_round, version=record.id)
    found = _evaluation("own_model", name, version.own, judged, table, queries, request)
    known = f"{known_rows} of {len(queries)} rows are among those that this version was made from, which it knows"
    return found.model_copy(
        update={
            "tables": (score_table(judged, "in_use", None, seed=request.seed),),
            "warnings": ((known,) if known_rows else ()) + found.warnings,
        }
    )


@dataclass(frozen=True, slots=True)
class _Earlier:
    """The meta-model before, and the same rows as its plan encodes them."""

    published: PublishedModel
    plan: FederationPlan
    table: Table
    rows: np.ndarray

    def beside(self, judged: Answered, size: int, request: Request) -> Comparison:
        """Adapted on the same rows, and asked the same."""
        old = self.published.plan
        refuse_other_task(self.plan, old)
        examples = examples_of_rows(table_data_of(old), old.task.kind, self.table)
        own = adapted(self.published, examples.take(support_rows(examples, size, old)), size)
        theirs = answered(own, examples.take(self.rows), level=request.level)
        name = ModelName(digest=self.published.digest, round=self.published.round)
        return compare(judged, theirs, name, shots=size, headline=headline_of(self.plan), margin=request.margin)


def refuse_other_task(plan: FederationPlan, old: FederationPlan) -> None:
    """Check that two models answer the same question.

    Raises:
        UsageError: They predict something else, or in another unit.
    """
    told = [
        (one.task.kind, *(getattr(one.data, key, None) for key in ("target", "labels", "target_transform")))
        for one in (plan, old)
    ]
    if told[0] != told[1]:
        raise UsageError(
            "the model before answers another question: its task, target or labels differ",
            where=old.name,
            remedy="Compare models of one federation",
        )


def headline_of(plan: FederationPlan) -> str:
    """What a table's result is summed up with."""
    return "rmse" if plan.task.kind == "regression" else "accuracy"


def _evaluation(
    kind: Literal["meta_model", "own_model"],
    name: ModelName,
    own: OwnModel,
    judged: Answered,
    table: Table,
    queries: Examples,
    request: Request,
) -> Evaluation:
    """All but its tables and comparisons; ``judged`` are the queries, which ``table`` holds as cells."""
    plan = own.plan
    columns = {column: table.cells(column) for column in request.slices}
    return Evaluation(
        created=request.created,
        kind=kind,
        model=name,
        plan=plan.name,
        plan_digest=plan.digest,
        task=plan.task.kind,
        source=request.source,
        headline=headline_of(plan),
        loss_metric="mae" if judged.regression else "accuracy",
        unit=table_data_of(plan).target_unit,
        level=request.level,
        tables=(),
        slices=slices_of(judged, columns, np.random.default_rng(request.seed)),
        shifts=_shifts(own, queries, request) if request.shifts else (),
        warnings=tuple(_warnings(kind, plan, queries)),
    )


def _shifts(own: OwnModel, queries: Examples, request: Request) -> tuple[ShiftScore, ...]:
    def ask(changes: Sequence[Change]) -> list[Answered]:
        return [answered(own, change(queries), level=request.level) for change in changes]

    return shift_scores(ask, input_columns(own.plan), request.seed)


def _warnings(kind: str, plan: FederationPlan, queries: Examples) -> Iterator[str]:
    if kind == "meta_model":
        yield "if these rows took part in training the meta-model, these scores are too good"
    if len(queries) < FEW_ROWS:
        yield f"only {len(queries)} rows were scored: look at the intervals, not at the numbers"
    if plan.task.kind != "regression":
        labels: Sequence[str] = table_data_of(plan).labels or ()
        there = set(np.unique(queries.targets).tolist())
        if absent := [label for place, label in enumerate(labels) if place not in there]:
            yield f"no row scored is of class {', '.join(map(repr, absent))}: nothing is known of how it is answered"
    elif table_data_of(plan).order is not None:
        yield "rows that follow each other in time are alike, so the intervals may be too narrow"
