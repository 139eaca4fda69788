"""What ``testudo-simulate attacks`` does once its words are read: run the matrix, keep it, show it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from testudo_common.errors import UsageError
from testudo_common.files import write_atomically
from testudo_common.plan.load import parse_plan
from testudo_common.robustness import count_of_share
from testudo_simulations.attacks.cell import CellRequest
from testudo_simulations.attacks.defences import parse_defence
from testudo_simulations.attacks.matrix import (
    Matrix,
    as_csv,
    check_requests,
    make_matrix,
    requests_for,
    run_matrix,
)
from testudo_simulations.attacks.suite import BACKDOORS, DEFAULT_ATTACKS, DEFAULT_DEFENCES, NO_ATTACK, find_attacks
from testudo_simulations.attacks.views import heat_map, print_matrix
from testudo_simulations.federations import load_federation
from testudo_simulations.scenarios import find_plan

_DEFAULT_SHARES = (0.2, 0.4)


@dataclass(frozen=True, slots=True)
class MatrixRequest:
    """What the command line asks for; what it leaves empty is filled in here.

    Attributes:
        plan: A scenario's name, or a path.
        data: Path of the federation's data, or None.
        settings: ``section.key=value``.
        attacks: Names; empty: the default ones that the task allows.
        defences: Names; empty: the default ones.
        poisoned: f, rising; empty: a fifth and two fifths of the clients, or what every default defence withstands.
        seeds: From the plan's own on.
        masks: Whether secure sums are masked.
    """

    plan: str
    data: Path | None
    settings: tuple[str, ...]
    attacks: tuple[str, ...]
    defences: tuple[str, ...]
    poisoned: tuple[int, ...]
    seeds: int
    masks: bool


def run_attacks(request: MatrixRequest, out: Path, *, jobs: int, resume: bool, as_json: bool) -> None:
    """Run, keep and show a matrix.

    Raises:
        UsageError: An attack or a defence has no such name, or ``out`` holds a matrix and it is not to be gone on with.
        TestudoError: Plan or data cannot be used.
    """
    if (out / "cells").exists() and not resume:
        raise UsageError(
            "there is a matrix here already, and it is not overwritten",
            where=str(out),
            remedy="go on with it by --resume, or choose another --out",
        )
    tables, source = find_plan(request.plan)
    plan = parse_plan(tables, source=source, settings=request.settings)
    clients = len(load_federation(plan, request.data).training)
    named = [name for name in request.attacks if name != NO_ATTACK]
    attacks = [poison.name for poison in find_attacks(named or _default_attacks(plan.task.kind))]
    if plan.task.kind == "regression" and (backdoors := BACKDOORS.intersection(attacks)):
        raise UsageError(
            f"{min(backdoors)} needs classes, and {plan.name} is a regression", remedy="leave the backdoors out"
        )
    defences = [parse_defence(name).name for name in request.defences or DEFAULT_DEFENCES]
    poisoned = request.poisoned or _default_poisoned(clients)
    seeds = range(plan.seed, plan.seed + request.seeds)
    base = CellRequest(
        tables, source, request.settings, request.data, NO_ATTACK, "mean", 0, plan.seed, masks=request.masks
    )
    cells = requests_for(base, attacks=attacks, defences=defences, poisoned=poisoned, seeds=seeds)
    check_requests(cells)
    with _Bar(plan.name, len(cells)) as bar:
        found = run_matrix(cells, out, workers=jobs, on_progress=bar.update)
    matrix = make_matrix(base, found, attacks=attacks, defences=defences, poisoned=poisoned, seeds=seeds)
    _show(matrix, out, as_json=as_json)


def _default_poisoned(clients: int) -> tuple[int, ...]:
    """No more than every default defence withstands: Krum and Multi-Krum need n >= 2f + 3."""
    most = (clients - 3) // 2
    return tuple(sorted({max(1, min(count_of_share(share, clients), most)) for share in _DEFAULT_SHARES}))


def _default_attacks(kind: str) -> list[str]:
    return [name for name in DEFAULT_ATTACKS if kind != "regression" or name not in BACKDOORS]


def _show(matrix: Matrix, out: Path, *, as_json: bool) -> None:
    files = {
        "attacks.json": matrix.model_dump_json(indent=1),
        "attacks.csv": as_csv(matrix),
        "attacks.svg": heat_map(matrix),
    }
    for name, content in files.items():
        write_atomically(out / name, content.encode(), durable=False)
    if as_json:
        typer.echo(matrix.model_dump_json(indent=2))
        return
    from rich.console import Console

    print_matrix(matrix, Console())
    typer.echo("\n".join(f"{what}: {out / name}" for what, name in _FILES))


_FILES = (("Heat map", "attacks.svg"), ("Every cell", "attacks.csv"), ("As data", "attacks.json"))


class _Bar:
    """One bar for all cells; a context manager."""

    def __init__(self, title: str, total: int) -> None:
        from testudo_simulations.progress import JobProgress

        self._progress = JobProgress([title])
        self._done = 0
        self._total = total

    def __enter__(self) -> _Bar:
        self._progress.__enter__()
        self._progress.update(0, "cells", 0, self._total)
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.__exit__(None, None, None)

    def update(self, _number: int, what: str, _done: int, _total: int) -> None:
        """Count what is done."""
        self._done += what == "done"
        self._progress.update(0, "cells", self._done, self._total)
