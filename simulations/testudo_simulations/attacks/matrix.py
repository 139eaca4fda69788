"""The attack x defence matrix of a federation: which cells it has, running them, and what they say together.

Every cell is kept as a file when it is done, so that a matrix can be gone on with, and grow.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from testudo_common.files import write_atomically
from testudo_common.plan.load import parse_plan
from testudo_simulations.attacks.cell import Cell, CellRequest, federation_of, run_cell
from testudo_simulations.attacks.defences import clean_of, parse_defence
from testudo_simulations.attacks.suite import BACKDOORS, IN_GROUPS_ONLY, NO_ATTACK
from testudo_simulations.evaluation import headline_of
from testudo_simulations.workers import Forward, OnJobProgress, run_in_workers

POINTS = 0.03
"""A defence holds where accuracy is at most so much under the clean run's; an error may be a tenth larger."""
_FACTOR = 1.1
BACKDOOR_LIMIT = 0.2
"""A backdoor is stopped where fewer triggered examples than this are taken for its class."""


class Matrix(BaseModel):
    """All cells of a federation.

    Attributes:
        name: Of the plan.
        plan_digest: Of the plan with its settings, before any defence and with its own seed.
        metric: The headline metric.
        higher_is_better: Its direction.
        clients: That train.
        attacks: In the order of columns; ``none`` first.
        defences: In the order of rows.
        poisoned: f, rising.
        seeds: Rising.
        cells: Of all of them; the clean runs have f = 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    version: Literal[1] = 1
    name: str
    plan_digest: str
    metric: str
    higher_is_better: bool
    clients: int
    attacks: list[str]
    defences: list[str]
    poisoned: list[int]
    seeds: list[int]
    cells: list[Cell]


@dataclass(frozen=True, slots=True)
class Summary:
    """One attack on one defence, over seeds.

    Attributes:
        score: Mean of the headline metric; NaN where the model was lost for any seed.
        spread: Half of the range over seeds.
        backdoor: Mean success; None where there is none.
        error: Mean distance from the honest mean, in spreads; None where it was not measured.
        clean: Mean of the clean runs.
        holds: Whether the score stays with the clean run's, and a backdoor is stopped.
        named: Share of poisoned clients that strikes had named by the end.
        rounds_to_name: Median round from which those were not asked; None if there are none.
        outvoted: Share of poisoned clients that the report would list as outvoted.
        unlike: Share of honest clients that it would list.
    """

    score: float
    spread: float
    backdoor: float | None
    error: float | None
    clean: float
    holds: bool
    named: float
    rounds_to_name: float | None
    outvoted: float
    unlike: float


def requests_for(
    base: CellRequest, *, attacks: Sequence[str], defences: Sequence[str], poisoned: Sequence[int], seeds: Sequence[int]
) -> list[CellRequest]:
    """Every cell of a matrix; ``base`` gives what all have in common."""
    cleans = list(dict.fromkeys(clean_of(parse_defence(name)) for name in defences))
    grouped = {name: parse_defence(name).group_size is not None for name in defences}
    found = []
    for seed in seeds:  # the whole matrix of a seed, then the next
        found += [replace(base, attack=NO_ATTACK, defence=clean, poisoned=0, seed=seed) for clean in cleans]
        found += [
            replace(base, attack=attack, defence=defence, poisoned=count, seed=seed)
            for count in poisoned
            for defence in defences
            for attack in (NO_ATTACK, *attacks)
            if grouped[defence] or attack not in IN_GROUPS_ONLY
        ]
    return found


def check_requests(requests: Iterable[CellRequest]) -> None:
    """Check every defence against every number of poisoned clients, before hours are spent on the first.

    Raises:
        TestudoError: A plan cannot be used, or refuses so many.
    """
    seen = set()
    for request in requests:
        key = (request.defence, request.poisoned)
        if key not in seen:
            seen.add(key)
            federation = federation_of(request)
            federation.plan.check_withstood(len(federation.training))


def run_matrix(requests: Sequence[CellRequest], out: Path, *, workers: int, on_progress: OnJobProgress) -> list[Cell]:
    """All cells in the order of the requests; those found in ``out`` are not run again."""
    items = [(request, out / "cells" / f"{_name_of(request)}.json") for request in requests]
    (out / "cells").mkdir(parents=True, exist_ok=True)
    return run_in_workers(_kept, items, workers=workers, on_progress=on_progress)


def _kept(item: tuple[CellRequest, Path], forward: Forward) -> Cell:
    request, path = item
    forward("running", 0, 1)
    cell = read_cell(path)
    if cell is None:
        cell = run_cell(request)
        write_atomically(path, cell.model_dump_json().encode(), durable=False)
    forward("done", 1, 1)
    return cell


def read_cell(path: Path) -> Cell | None:
    """A cell kept earlier; None where there is none, or a damaged one, which is run again."""
    try:
        return Cell.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _name_of(request: CellRequest) -> str:
    """A file name that differs where anything differs that the cell depends on."""
    what = json.dumps(
        [request.tables, request.settings, str(request.data), request.attack, request.defence, request.poisoned],
        sort_keys=True,
        default=str,
    )
    digest = hashlib.sha256(f"{what}|{request.seed}|{request.masks}".encode()).hexdigest()[:10]
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{request.defence}-{request.attack}-{request.poisoned}-{request.seed}")
    return f"{readable}-{digest}"


def make_matrix(
    base: CellRequest,
    cells: Sequence[Cell],
    *,
    attacks: Sequence[str],
    defences: Sequence[str],
    poisoned: Sequence[int],
    seeds: Sequence[int],
) -> Matrix:
    """The cells with what they are about."""
    from testudo_simulations.federations import load_federation

    plan = parse_plan(base.tables, source=base.source, settings=base.settings)
    headline = headline_of(plan)
    return Matrix(
        name=plan.name,
        plan_digest=plan.digest,
        metric=headline.metric,
        higher_is_better=headline.higher_is_better,
        clients=len(load_federation(plan, base.data).training),
        attacks=[NO_ATTACK, *attacks],
        defences=list(defences),
        poisoned=sorted(poisoned),
        seeds=sorted(seeds),
        cells=list(cells),
    )


def summary_of(matrix: Matrix, attack: str, defence: str, poisoned: int) -> Summary | None:
    """What a matrix says about one attack on one defence; None where it was not run."""
    cells = _cells(matrix, attack, defence, poisoned)
    cleans = _cells(matrix, NO_ATTACK, clean_of(parse_defence(defence)), 0)
    if not cells or not cleans:
        return None
    scores = np.array([cell.score for cell in cells])
    backdoors = [cell.backdoor for cell in cells if cell.backdoor is not None]
    errors = [cell.error for cell in cells if cell.error is not None]
    named = [number for cell in cells for number in cell.named.values()]
    clean, score = float(np.mean([cell.score for cell in cleans])), float(scores.mean())
    backdoor = float(np.mean(backdoors)) if backdoors else None
    return Summary(
        score=score,
        spread=float(np.ptp(scores)) / 2,
        backdoor=backdoor,
        error=float(np.mean(errors)) if errors else None,
        clean=clean,
        holds=_stays(matrix, score, clean)
        and not any(cell.ended for cell in cells)
        and not (attack in BACKDOORS and (backdoor is None or backdoor >= BACKDOOR_LIMIT)),
        named=len(named) / (poisoned * len(cells)) if poisoned else 0.0,
        rounds_to_name=float(np.median(named)) if named else None,
        outvoted=sum(len(cell.outvoted) for cell in cells) / max(1, poisoned * len(cells)),
        unlike=sum(len(cell.unlike) for cell in cells) / ((matrix.clients - poisoned) * len(cells)),
    )


def breakdown_of(matrix: Matrix, defence: str) -> int | None:
    """The least number of poisoned clients at which an attack that is no backdoor breaks a defence; None: at none."""
    for count in matrix.poisoned:
        found = [summary_of(matrix, attack, defence, count) for attack in matrix.attacks if attack not in BACKDOORS]
        if any(summary is not None and not summary.holds for summary in found):
            return count
    return None


def as_csv(matrix: Matrix) -> str:
    """Every cell a line."""
    buffer = io.StringIO()
    counted = ["named", "framed", "outvoted", "unlike"]
    names = [name for name in Cell.model_fields if name not in counted]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*names, *counted])
    for cell in matrix.cells:
        row = ["" if getattr(cell, name) is None else getattr(cell, name) for name in names]
        writer.writerow([*row, *(len(getattr(cell, name)) for name in counted)])
    return buffer.getvalue()


def _stays(matrix: Matrix, score: float, clean: float) -> bool:
    if matrix.higher_is_better:
        return bool(score >= clean - POINTS)
    return bool(score <= clean * _FACTOR)


def _cells(matrix: Matrix, attack: str, defence: str, poisoned: int) -> list[Cell]:
    return list(_matching(matrix, attack, defence, poisoned))


def _matching(matrix: Matrix, attack: str, defence: str, poisoned: int) -> Iterator[Cell]:
    for cell in matrix.cells:
        if (cell.attack, cell.defence, cell.poisoned) == (attack, defence, poisoned):
            yield cell
