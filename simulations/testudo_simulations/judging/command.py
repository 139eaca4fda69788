"""What ``testudo-simulate evaluate`` does: reads model and data, shows progress, prints or writes what was found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from testudo_client.judging.command import report
from testudo_client.judging.judge import Request
from testudo_common.errors import UsageError
from testudo_common.publication import read_published
from testudo_simulations.federations import load_federation
from testudo_simulations.inline_backend import computing_on, engine_for
from testudo_simulations.judging.cells import query_cells
from testudo_simulations.judging.judge import judge_federation
from testudo_simulations.options import CORES
from testudo_simulations.progress import JobProgress


@dataclass(frozen=True, slots=True)
class Asked:
    """The command line, as it was written."""

    meta_model: Path
    data: Path | None
    slices: tuple[str, ...]
    shifts: bool
    before: Path | None
    margin: float
    gate: bool
    engine: bool
    seed: int
    out: Path | None
    as_json: bool


def evaluate(asked: Asked) -> bool:
    """Judge, and say what was found.

    Returns:
        Whether the gate, if there is one, lets the model through.

    Raises:
        UsageError: Options do not fit together, or a file is no published meta-model.
        DataError: The data cannot be used.
        ModelError: A model does not fit its plan, or training diverged everywhere.
    """
    if asked.gate and asked.before is None:
        raise UsageError("a gate needs a model to compare with", where="--gate", remedy="Add --before OLD_META_MODEL")
    published = read_published(asked.meta_model)
    before = None if asked.before is None else read_published(asked.before)
    with JobProgress([published.plan.name]) as progress:

        def told(what: str, done: int, total: int) -> None:
            progress.update(0, what, done, total)

        told("reading", 0, 1)
        federation = load_federation(published.plan, asked.data)
        request = Request(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            source=federation.source,
            slices=tuple(dict.fromkeys(asked.slices)),
            shifts=asked.shifts,
            margin=asked.margin,
            seed=asked.seed,
        )
        engine, _ = engine_for(federation.plan, computing_on("cpu", CORES, engine=asked.engine))
        found = judge_federation(
            published,
            federation,
            request,
            before=before,
            cells=query_cells(federation, asked.data, request.slices),
            engine=engine,
            progress=told,
        )
    return report(found, asked.out, gate=asked.gate, as_json=asked.as_json)
