"""``testudo-simulate attacks`` and ``frontier``, ``testudo-server check``: files, JSON, one line for every refusal."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from matrix_cases import made_cell
from poisoned_federation import WAVES, WRITERS
from testudo_common.commands import DEBUG_VARIABLE
from testudo_common.plan.load import dump_plan, parse_plan
from testudo_server import cli as server
from testudo_simulations import cli as simulations
from testudo_simulations.attacks import matrix as matrices
from testudo_simulations.attacks.cell import Cell, CellRequest
from testudo_simulations.attacks.matrix import Matrix

Said = tuple[int, str, str]
Run = Callable[..., Said]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """A command as ``main`` ends it: its status, standard output and error. Plans lie in the folder it runs in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(DEBUG_VARIABLE, raising=False)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # typer sets its own
    for name, tables in (("writers.toml", WRITERS), ("waves.toml", WAVES)):
        (tmp_path / name).write_text(dump_plan(parse_plan(tables, source=name)), encoding="utf-8")

    def call(main: Callable[[], None], *arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["testudo", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


def attacks(*more: str, plan: str = "writers.toml") -> list[str]:
    return ["attacks", plan, "--jobs", "1", "--seeds", "1", "--poisoned", "2", "--out", "out", *more]


SMALL = ("--attack", "ipm", "--defence", "mean,recommended")


def is_one_line(said: Said, *words: str) -> None:
    status, out, err = said
    assert (status, out) == (1, "")
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ") or line.startswith("  - ")]
    assert lines, err
    assert len(lines) <= 2, "one line, and one for the fault of a plan"
    for word in words:
        assert word in " ".join(lines), err


# --- attacks


def test_matrix_is_printed_as_json_and_kept_as_files(run: Run, tmp_path: Path) -> None:
    status, out, err = run(simulations.main, *attacks(*SMALL, "--json"))
    assert status == 0, err
    matrix = Matrix.model_validate_json(out)
    assert (matrix.name, matrix.clients, matrix.attacks) == ("writers", 9, ["none", "ipm"])
    assert [(cell.defence, cell.attack, cell.poisoned) for cell in matrix.cells] == [
        ("mean", "none", 0),
        ("mean", "none", 2),
        ("mean", "ipm", 2),
        ("recommended", "none", 2),
        ("recommended", "ipm", 2),
    ]
    assert {cell.seed for cell in matrix.cells} == {3}, "the plan's own"
    assert Matrix.model_validate_json((tmp_path / "out" / "attacks.json").read_bytes()) == matrix
    with (tmp_path / "out" / "attacks.csv").open(encoding="utf-8") as file:
        assert [float(row["score"]) for row in csv.DictReader(file)] == [cell.score for cell in matrix.cells]
    assert ElementTree.parse(tmp_path / "out" / "attacks.svg").getroot().tag.endswith("svg")
    by_name = {(cell.defence, cell.attack): cell.score for cell in matrix.cells if cell.poisoned}
    assert by_name["mean", "ipm"] < 0.3
    assert by_name["recommended", "ipm"] > 0.6


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[CellRequest]:
    """Cells at no cost, and which were run."""
    ran: list[CellRequest] = []

    def cell(request: CellRequest) -> Cell:
        ran.append(request)
        return made_cell(
            request.attack, request.defence, 0.5, poisoned=request.poisoned, seed=request.seed, backdoor=0.1
        )

    monkeypatch.setattr(matrices, "run_cell", cell)
    return ran


def test_matrix_is_not_overwritten_and_grows_with_resume(run: Run, made_up: list[CellRequest]) -> None:
    status, out, _ = run(simulations.main, *attacks(*SMALL))
    assert status == 0
    out = " ".join(out.split())
    for words in ("writers: 2 of 9 clients poisoned", "recommended", "Heat map: ", "attacks.svg", "attacks.csv"):
        assert words in out
    assert len(made_up) == 5
    is_one_line(run(simulations.main, *attacks(*SMALL)), "out", "not overwritten", "--resume")
    assert len(made_up) == 5
    more = ("--attack", "ipm,alie,ipm", "--defence", "mean,recommended", "--resume")
    assert run(simulations.main, *attacks(*more))[0] == 0
    assert [request.attack for request in made_up[5:]] == ["alie", "alie"], "only what was missing, and each once"


def test_defaults_are_the_suite_with_as_many_poisoned_as_every_default_defence_withstands(
    run: Run, made_up: list[CellRequest]
) -> None:
    status, _, err = run(simulations.main, "attacks", "waves.toml", "--jobs", "1", "--seeds", "1", "--out", "out")
    assert status == 0, err
    assert {request.poisoned for request in made_up} == {0, 1, 2}, "of 8 clients, where Multi-Krum withstands 2"
    found = {request.attack for request in made_up}
    assert {"alie", "label_noise", "adaptive"} <= found
    assert not {"backdoor", "backdoor_scaled"} & found, "a regression has no classes"
    made_up.clear()
    arguments = attacks("--set", "data.clients=20", "--attack", "ipm")
    del arguments[arguments.index("--poisoned") : arguments.index("--poisoned") + 2]
    assert run(simulations.main, *arguments, "--out", "twenty")[0] == 0
    assert {request.poisoned for request in made_up} == {0, 4, 8}, "a fifth and two fifths"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (attacks("--attack", "alee"), ["there is no attack 'alee'", "alie"]),
        (attacks("--defence", "mean,meen"), ["'meen' in the defence 'meen' is unknown"]),
        (attacks("--defence", "mean+groups=x"), ["'groups=x'", "no number"]),
        (
            attacks("--poisoned", "9", *SMALL),
            ["9 of 9 clients poisoned: no rule outvotes half of them", "poison 4 or fewer"],
        ),
        (attacks("--poisoned", "5", *SMALL), ["5 of 9 clients poisoned"]),
        (attacks("--defence", "recommended+groups=3"), ["robust_aggregation.corruption", "ower corruption"]),
        (
            attacks("--attack", "backdoor", plan="waves.toml"),
            ["backdoor needs classes, and waves is a regression", "leave the backdoors out"],
        ),
        (attacks(plan="nothing-there"), ["neither a scenario nor a file"]),
        (["attacks", "writers.toml", "--resume"], ["--resume needs the folder", "--out"]),
        (attacks("--set", "inner.stepz=3"), ["inner.stepz"]),
    ],
    ids=lambda value: None if isinstance(value, list) and len(value) < 4 else " ".join(value[-2:]),
)
def test_what_cannot_be_run_is_said_in_a_line_before_anything_runs(
    run: Run, made_up: list[CellRequest], tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    is_one_line(run(simulations.main, *arguments), *words)
    assert made_up == []
    assert not (tmp_path / "out" / "cells").exists(), "the folder is free for the next try"


def test_interrupt_keeps_cells_and_says_how_to_go_on(
    run: Run, made_up: list[CellRequest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usual = matrices.run_cell

    def interrupted(request: CellRequest) -> Cell:
        if len(made_up) == 2:
            raise KeyboardInterrupt
        return usual(request)

    monkeypatch.setattr(matrices, "run_cell", interrupted)
    status, _, err = run(simulations.main, *attacks(*SMALL))
    assert status == 130
    assert "--resume" in err
    assert "Traceback" not in err
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 2


# --- frontier

FRONTIER = ("frontier", "--clients", "1000", "--cohort", "100", "--min-group", "3")


def test_frontier_is_json_and_is_drawn(run: Run, tmp_path: Path) -> None:
    status, out, err = run(simulations.main, *FRONTIER, "--corruption", "0.05", "--out", "drawn", "--json")
    assert status == 0, err
    data = json.loads(out)
    assert json.loads((tmp_path / "drawn" / "frontier.json").read_text(encoding="utf-8")) == data
    assert (data["wish"]["clients"], data["wish"]["cohort"], data["refused"]) == (1000, 100, None)
    sizes = [point["group_size"] for point in data["points"]]
    assert sizes == [1, *range(3, 101)], "no sums of two, which tell each the other's"
    corruption = [point["corruption"] for point in data["points"]]
    assert corruption[0] == max(corruption), "plain aggregation outvotes most"
    chosen = data["choice"]
    assert chosen["survivors"] >= 3
    assert chosen["poisoned"] == 50
    assert 2 * chosen["f"] < chosen["groups"]
    root = ElementTree.parse(tmp_path / "drawn" / "frontier.svg").getroot()
    written = "".join(root.itertext())
    for words in ("1000 clients, 100 a round", "assumed poisoned", "3 clients or more", "chosen"):
        assert words in written


def test_frontier_in_words_says_what_to_write(run: Run) -> None:
    status, out, _ = run(simulations.main, *FRONTIER, "--corruption", "0.05")
    text = " ".join(out.split())
    assert status == 0
    assert "Against 50 poisoned clients (5 %): secure_aggregation.group_size = " in text
    assert "rule ['caf']" in text
    _, plain, _ = run(simulations.main, "frontier", "--clients", "20", "--corruption", "0.2", "--min-group", "1")
    assert 'secure_aggregation.mode = "plain"' in " ".join(plain.split())


def test_refusal_comes_after_the_frontier_and_says_which_number_to_move(run: Run, tmp_path: Path) -> None:
    status, out, err = run(simulations.main, *FRONTIER, "--corruption", "0.3", "--out", "drawn", "--json")
    assert status == 1
    assert "Traceback" not in err
    data = json.loads(out)
    assert data["choice"] is None
    assert data["refused"]["problem"] in err
    nearest = data["refused"]["nearest"]
    assert "corruption" in nearest
    assert f"ower corruption from 30 % to {100 * nearest['corruption']:.6g} %" in err
    assert (tmp_path / "drawn" / "frontier.svg").exists()
    again = run(simulations.main, *FRONTIER, "--corruption", str(nearest["corruption"]), "--json")
    assert again[0] == 0, "the number it names is one"


@pytest.mark.parametrize("wrong", [("--corruption", "0.5"), ("--dropout", "-0.1"), ("--min-group", "2")], ids=str)
def test_number_out_of_its_range_is_named(run: Run, wrong: tuple[str, str]) -> None:
    is_one_line(run(simulations.main, "frontier", *wrong), wrong[0].strip("-").replace("-", "_"), wrong[1])


# --- the server's check


def check(run: Run, tmp_path: Path, clients: int, *settings: str) -> Said:
    tables = {**WRITERS, "rounds": {"count": 5, "cohort_size": 20}}
    plan = dump_plan(parse_plan(tables, source="a test", settings=settings))
    (tmp_path / "plan.toml").write_text(plan, encoding="utf-8")
    return run(server.main, "check", "plan.toml", "--clients", str(clients), "--json")


def test_server_check_shows_the_rule_and_what_it_outvotes(run: Run, tmp_path: Path) -> None:
    shown = json.loads(check(run, tmp_path, 20, "robust_aggregation.corruption=0.2")[1])
    assert shown["rule"] == "caf"
    assert (shown["poisoned_clients_outvoted"], shown["bad_rows_a_round"], shown["rows_a_round"]) == (4, 4, 20)
    more = json.loads(check(run, tmp_path, 100, "robust_aggregation.corruption=0.2")[1])
    assert (more["poisoned_clients_outvoted"], more["rows_a_round"]) == (20, 20)
    assert 4 < more["bad_rows_a_round"] < 10, "a cohort may hold more of them than its share"
    nobody = json.loads(check(run, tmp_path, 20)[1])
    assert (nobody["rule"], nobody["poisoned_clients_outvoted"]) == ("mean", 0)


def test_server_check_refuses_what_so_many_clients_cannot_outvote(run: Run, tmp_path: Path) -> None:
    settings = ("robust_aggregation.corruption=0.3",)
    assert check(run, tmp_path, 20, *settings)[0] == 0
    is_one_line(check(run, tmp_path, 1000, *settings), "300 of 1000 clients", "raise the cohort from 20 to")


# --- split views

SPLIT = ("split-views", "--witnesses", "10", "--quorum", "7", "--colluders", "2")


def test_split_views_say_who_finds_out(run: Run) -> None:
    code, out, _ = run(simulations.main, *SPLIT, "--json")
    data = json.loads(out)
    assert code == 0
    assert (data["found"], data["colluders_found"], data["absent_allowed"]) == (True, 3, 3)
    assert [one["colluders"] for one in data["splits"] if not one["found"]] == [4, 5, 6, 7, 8, 9, 10]
    assert data["splits"][2]["cosignatures"] == [6, 6]
    _, out, _ = run(simulations.main, *SPLIT[:3], "--quorum", "6", "--colluders", "2", "--json")
    assert not json.loads(out)["found"]


def test_split_views_in_words(run: Run) -> None:
    _, out, _ = run(simulations.main, *SPLIT)
    said = " ".join(out.split())
    assert "Up to 3 colluders (2 x 7 - 10 - 1) are found out, 4 are not. 3 witnesses may be absent" in said
    _, out, _ = run(simulations.main, "split-views", "--witnesses", "4", "--quorum", "2")
    assert "2 of 4 is no quorum: two halves reach it without a single colluder" in " ".join(out.split())
    _, out, _ = run(simulations.main, "split-views", "--witnesses", "60", "--json")
    data = json.loads(out)
    assert (data["quorum"], data["colluders"], data["found"]) == (41, 21, True)
    assert [one["colluders"] for one in data["splits"]] == [0, 20, 21, 22, 23]


@pytest.mark.parametrize("wrong", [("--quorum", "11"), ("--colluders", "11")])
def test_split_of_more_than_there_are_is_refused(run: Run, wrong: tuple[str, str]) -> None:
    is_one_line(run(simulations.main, "split-views", "--witnesses", "10", *wrong), wrong[0], "10 witnesses")
