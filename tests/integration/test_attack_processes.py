"""The matrix of attacks in processes side by side, as a user runs it: the cells are those of one process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from poisoned_federation import WRITERS, cell_of
from testudo_common.plan.load import dump_plan, parse_plan

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_matrix_in_two_processes_has_the_cells_of_one(process: Command, tmp_path: Path) -> None:
    plan = dump_plan(parse_plan(WRITERS, source="a test", settings=["seed=1"]))
    (tmp_path / "writers.toml").write_text(plan, encoding="utf-8")
    arguments = ["attacks", "writers.toml", "--attack", "ipm", "--defence", "mean,recommended", "--poisoned", "2"]
    done = process("simulations", *arguments, "--seeds", "1", "--jobs", "2", "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found = {(cell["attack"], cell["defence"]): cell for cell in json.loads(done.stdout)["cells"] if cell["poisoned"]}
    for defence in ("mean", "recommended"):
        alone = cell_of("ipm", defence).model_dump(mode="json")
        assert {**found["ipm", defence], "cpu_seconds": 0} == {**alone, "cpu_seconds": 0}
