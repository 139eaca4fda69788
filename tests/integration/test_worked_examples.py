"""The pages of worked examples do what they say: each of their commands, in their order, in one folder.

As written, but for fewer rounds of the federation that others would train.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

import testudo_client.cli
import testudo_server.cli
import testudo_simulations.cli

DOCS = Path(__file__).resolve().parents[2] / "docs"
APPS: dict[str, Typer] = {
    "testudo-client": testudo_client.cli.app,
    "testudo-server": testudo_server.cli.app,
    "testudo-simulate": testudo_simulations.cli.app,
}
FEWER = ["--set", "rounds.count=10", "--set", "evaluation.every_rounds=10"]


def commands_of(page: str) -> list[list[str]]:
    """The commands that stand by themselves on indented lines."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("    testudo-")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "folder", "answers", "rows"),
    [("example-shop.md", "my-shop", "forecast.csv", 4), ("example-clinic.md", "my-clinic", "answers.csv", 11)],
)
def test_every_command_of_the_page_works(
    page: str, folder: str, answers: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = set()
    for program, *arguments in commands_of(page):
        more = FEWER if arguments[0] == "run" else []
        done = CliRunner().invoke(APPS[program], [*arguments, *more])
        assert done.exit_code == 0, f"{program} {shlex.join(arguments)}: {done.output} {done.exception}"
        ran.add(arguments[0])
    assert {"example", "run", "publish", "inspect", "adapt", "ask", "report"} <= ran
    told = Path(answers).read_text(encoding="utf-8").splitlines()
    assert len(told) == rows + 1 and "sure" in told[0].split(",")
    listed = CliRunner().invoke(APPS["testudo-client"], ["models", folder, "--json"])
    assert json.loads(listed.stdout)["in_use"] == 1
    page_made = Path("report/report.html").read_text(encoding="utf-8")
    assert "<script" not in page_made and "What left" in page_made
