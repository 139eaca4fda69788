"""The matrix of attacks and defences: which cells it has, what is run again, and what it says, by hand."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest

from matrix_cases import clean_cell, made_cell, made_matrix
from poisoned_federation import WAVES, cell_of, cell_request
from testudo_common.errors import PlanError, UsageError
from testudo_simulations.attacks import matrix as matrices
from testudo_simulations.attacks.cell import Cell, CellRequest
from testudo_simulations.attacks.matrix import (
    Matrix,
    as_csv,
    breakdown_of,
    check_requests,
    make_matrix,
    read_cell,
    requests_for,
    run_matrix,
    summary_of,
)

BASE = cell_request("none", "mean", poisoned=0)


def quiet(number: int, what: str, done: int, total: int) -> None:
    """No progress."""


# --- which cells


def test_cells_of_a_matrix_in_their_order() -> None:
    found = requests_for(
        BASE, attacks=["ipm", "garble"], defences=["mean", "caf+groups=3"], poisoned=[1, 2], seeds=[4, 5]
    )
    of_a_seed = [("none", "mean", 0)]
    for count in (1, 2):
        of_a_seed += [("none", "mean", count), ("ipm", "mean", count)]
        of_a_seed += [(attack, "caf+groups=3", count) for attack in ("none", "ipm", "garble")]
    found_of = {seed: [(r.attack, r.defence, r.poisoned) for r in found if r.seed == seed] for seed in (4, 5)}
    assert found_of == {4: of_a_seed, 5: of_a_seed}, "garble only where there are sums"
    assert [request.seed for request in found] == [4] * 11 + [5] * 11, "a whole matrix before the next seed"
    assert {request.tables is BASE.tables for request in found} == {True}


def test_each_clean_run_is_there_once() -> None:
    defences = ["mean", "recommended", "caf+unshared_head", "mean+unshared_head", "median+groups=3"]
    found = requests_for(BASE, attacks=["ipm"], defences=defences, poisoned=[1, 2], seeds=[0])
    cleans = [request.defence for request in found if request.poisoned == 0]
    assert cleans == ["mean", "mean+unshared_head"]
    assert len(found) == 2 + 2 * 5 * 2


def test_every_defence_is_checked_against_every_number_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    fine = requests_for(BASE, attacks=["ipm"], defences=["mean", "median"], poisoned=[1, 4], seeds=[0])
    check_requests(fine)
    with pytest.raises(PlanError, match="krum needs 11 to outvote"):
        check_requests(requests_for(BASE, attacks=["ipm"], defences=["median", "krum"], poisoned=[1, 4], seeds=[0]))
    with pytest.raises(UsageError, match="5 of 9 clients poisoned"):
        check_requests(requests_for(BASE, attacks=["ipm"], defences=["mean"], poisoned=[5], seeds=[0]))
    looked: list[CellRequest] = []
    usual = matrices.federation_of
    monkeypatch.setattr(matrices, "federation_of", lambda request: (looked.append(request), usual(request))[1])
    check_requests(fine * 3)
    assert len(looked) == 5, "each once: two defences against 1 and 4, and the clean run"


# --- running them


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[CellRequest]:
    """What was run, at no cost."""
    requests: list[CellRequest] = []

    def run(request: CellRequest) -> Cell:
        requests.append(request)
        return made_cell(request.attack, request.defence, 0.5, poisoned=request.poisoned, seed=request.seed)

    monkeypatch.setattr(matrices, "run_cell", run)
    return requests


def asked(*attacks: str, seeds: int = 1) -> list[CellRequest]:
    return requests_for(BASE, attacks=attacks, defences=["mean", "caf"], poisoned=[2], seeds=range(seeds))


def test_cells_that_are_kept_are_not_run_again(ran: list[CellRequest], tmp_path: Path) -> None:
    first = run_matrix(asked("ipm"), tmp_path, workers=1, on_progress=quiet)
    assert ran == asked("ipm")
    assert len(list((tmp_path / "cells").glob("*.json"))) == len(ran) == 5
    again = run_matrix(asked("ipm"), tmp_path, workers=1, on_progress=quiet)
    assert len(ran) == 5, "nothing was missing"
    assert again == first
    grown = run_matrix(asked("ipm", "alie", seeds=2), tmp_path, workers=1, on_progress=quiet)
    missing = [request for request in asked("ipm", "alie", seeds=2) if request not in asked("ipm")]
    assert ran[5:] == missing, "only what is new"
    assert [(cell.attack, cell.defence, cell.poisoned, cell.seed) for cell in grown] == [
        (request.attack, request.defence, request.poisoned, request.seed) for request in asked("ipm", "alie", seeds=2)
    ]


@pytest.mark.parametrize("damage", [b"", b"{", b"{}", b"\xff\xfe"], ids=repr)
def test_damaged_cell_is_run_again(ran: list[CellRequest], tmp_path: Path, damage: bytes) -> None:
    first = run_matrix(asked("ipm"), tmp_path, workers=1, on_progress=quiet)
    path = sorted((tmp_path / "cells").iterdir())[2]
    whole = path.read_bytes()
    path.write_bytes(damage)
    assert read_cell(path) is None
    assert run_matrix(asked("ipm"), tmp_path, workers=1, on_progress=quiet) == first
    assert len(ran) == 6
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "changed",
    [
        {"settings": ("inner.steps=3",)},
        {"tables": {**BASE.tables, "seed": 9}},
        {"data": Path("elsewhere")},
        {"attack": "ipm"},
        {"defence": "caf"},
        {"poisoned": 1},
        {"seed": 7},
        {"masks": True},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_cell_is_kept_under_all_that_it_depends_on(
    ran: list[CellRequest], tmp_path: Path, changed: dict[str, object]
) -> None:
    run_matrix([BASE, replace(BASE, **changed), BASE], tmp_path, workers=1, on_progress=quiet)  # type: ignore[arg-type]
    assert len(ran) == 2


def test_interrupt_keeps_what_is_finished(
    ran: list[CellRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = matrices.run_cell

    def interrupted(request: CellRequest) -> Cell:
        if len(ran) == 3:
            raise KeyboardInterrupt
        return usual(request)

    with monkeypatch.context() as patched:
        patched.setattr(matrices, "run_cell", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_matrix(asked("ipm"), tmp_path, workers=1, on_progress=quiet)
    assert len(list((tmp_path / "cells").glob("*.json"))) == 3
    run_matrix(asked("ipm"), tmp_path, workers=1, on_progress=quiet)
    assert ran == asked("ipm"), "each once"


def test_progress_tells_of_each_cell(ran: list[CellRequest], tmp_path: Path) -> None:
    told: list[tuple[int, str, int, int]] = []
    run_matrix(asked("ipm"), tmp_path, workers=1, on_progress=lambda *step: told.append(step))
    assert told == [step for number in range(5) for step in ((number, "running", 0, 1), (number, "done", 1, 1))]


# --- cells and matrices as files


def test_cell_with_a_lost_model_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    lost = made_cell(
        "ipm", "mean", math.nan, error=math.inf, weight=math.nan, ended="why", named={"a": 3}, framed=["b"]
    )
    path.write_text(lost.model_dump_json(), encoding="utf-8")
    again = read_cell(path)
    assert again is not None
    assert math.isnan(again.score)
    assert math.isnan(again.weight)
    assert again.model_dump(exclude={"score", "weight"}) == lost.model_dump(exclude={"score", "weight"})
    matrix = made_matrix(clean_cell(0.8), lost)
    assert repr(Matrix.model_validate_json(matrix.model_dump_json())) == repr(matrix)


def test_real_cells_make_a_matrix() -> None:
    cells = [cell_of("none", "mean", poisoned=0), cell_of("none", "mean"), cell_of("ipm", "mean")]
    matrix = make_matrix(BASE, cells, attacks=["ipm"], defences=["mean"], poisoned=[2], seeds=[1])
    assert (matrix.name, matrix.metric, matrix.higher_is_better, matrix.clients) == ("writers", "accuracy", True, 9)
    assert (matrix.attacks, matrix.defences, matrix.poisoned, matrix.seeds) == (["none", "ipm"], ["mean"], [2], [1])
    summary = summary_of(matrix, "ipm", "mean", 2)
    assert summary is not None
    assert not summary.holds
    assert summary.clean == cells[0].score
    assert breakdown_of(matrix, "mean") == 2
    waves = make_matrix(cell_request("none", "mean", tables=WAVES), [], attacks=[], defences=[], poisoned=[], seeds=[])
    assert (waves.metric, waves.higher_is_better) == ("mse", False)


def test_csv_has_every_cell() -> None:
    cells = [
        clean_cell(0.8),
        made_cell("ipm", "caf", 0.75, error=0.25, named={"a": 3, "b": 4}, framed=["c"], ended='no "way", really'),
        made_cell("backdoor", "caf", math.nan, backdoor=0.5, seed=1),
    ]
    rows = list(csv.DictReader(io.StringIO(as_csv(made_matrix(*cells)))))
    assert [(row["attack"], row["defence"], row["poisoned"], row["seed"]) for row in rows] == [
        ("none", "mean", "0", "0"),
        ("ipm", "caf", "2", "0"),
        ("backdoor", "caf", "2", "1"),
    ]
    assert [row["score"] for row in rows] == ["0.8", "0.75", "nan"]
    assert [row["backdoor"] for row in rows] == ["", "", "0.5"]
    assert [row["error"] for row in rows] == ["", "0.25", ""]
    assert [(row["named"], row["framed"]) for row in rows] == [("0", "0"), ("2", "1"), ("0", "0")]
    assert rows[1]["ended"] == 'no "way", really'
    assert set(rows[0]) == set(Cell.model_fields)
