"""The commands as a user types them: output, reports, and one clear sentence for every wrong input."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_runs import SMALL_SINE, settings

Command = Callable[..., subprocess.CompletedProcess[str]]

SHOPS = 12
WEEKS = 16


@pytest.fixture
def shops(tmp_path: Path) -> Path:
    """A table nobody has seen: sales of shops by price and season; one shop has two rows, one a broken cell."""
    rng = np.random.default_rng(5)
    lines = ["shop,week,price,season,sales"]
    for shop in range(SHOPS):
        slope = rng.normal(-2, 0.5)
        for week in range(2 if shop == 3 else WEEKS):
            price = rng.uniform(1, 3)
            season = "winter" if week % 2 else "summer"
            sales = f"{20 + slope * price + (week % 2) + rng.normal(0, 0.1):.3f}"
            lines.append(f"shop-{shop},{week},{'nan' if (shop, week) == (7, 4) else f'{price:.3f}'},{season},{sales}")
    path = tmp_path / "shops.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


TABLE = ["data.client=shop", "data.target=sales", "task.kind=regression", "evaluation.shots=[4, 6]", "rounds.count=5"]


@pytest.mark.slow
def test_a_table_never_seen_before_runs_from_the_command_line(command: Command, shops: Path, tmp_path: Path) -> None:
    done = command("simulations", "run", "csv", "--data", str(shops), "--out", "out", "--json", *settings(TABLE))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (run,) = report["runs"]
    assert run["metric"] == "rmse"
    excluded = dict(run["excluded_clients"])
    assert set(excluded) == {"shop-3", "shop-7"}
    assert "2" in excluded["shop-3"]
    assert "price" in excluded["shop-7"]
    assert {arm["name"] for arm in run["arms"]} >= {"meta", "adapted", "scratch", "fedavg_finetuned", "local_ridge"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "shop-3" in page
    shown = command("simulations", "report", "out")
    assert shown.returncode == 0
    assert "shop-7" in shown.stdout


@pytest.mark.slow
def test_the_readmes_example_for_a_table_of_ones_own_runs(command: Command, shops: Path) -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    found = re.search(r"    testudo-simulate (run csv .*?)\n\n", readme, re.DOTALL)
    assert found
    arguments = shlex.split(found.group(1).replace("\\\n", " "))
    assert "shops.csv" in arguments
    done = command("simulations", *arguments, "--set", "rounds.count=3", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout


def test_missing_column_is_named_with_the_columns_there_are(command: Command, shops: Path) -> None:
    wrong = [line.replace("data.target=sales", "data.target=sale") for line in TABLE]
    _is_one_sentence(
        command("simulations", "run", "csv", "--data", str(shops), *settings(wrong)), "sale", "sales", "price"
    )


def test_labels_the_plan_does_not_have_exclude_their_client_by_name(command: Command, tmp_path: Path) -> None:
    rows = [f"c{client},{x},{'yes' if x > 4 else 'no'}" for client in range(8) for x in range(12)]
    rows[5] = "c0,5,perhaps"
    (tmp_path / "t.csv").write_text("\n".join(["who,x,y", *rows]), encoding="utf-8")
    lines = ["data.client=who", "data.target=y", 'data.labels=["no", "yes"]', "rounds.count=3", "evaluation.shots=[1]"]
    done = command(
        "simulations", "run", "csv", "--data", "t.csv", "--out", "o", "--json", "--no-comparisons", *settings(lines)
    )
    assert done.returncode == 0, done.stderr
    ((client, reason),) = json.loads(done.stdout)["runs"][0]["excluded_clients"]
    assert client == "c0"
    assert "label" in reason
    assert "perhaps" not in done.stdout + done.stderr


@pytest.mark.slow
def test_too_few_clients_to_hide_each_other_is_said_with_the_way_out(command: Command, tmp_path: Path) -> None:
    rows = [f"c{client},{x},{'yes' if x > 4 else 'no'}" for client in range(5) for x in range(12)]
    (tmp_path / "t.csv").write_text("\n".join(["who,x,y", *rows]), encoding="utf-8")
    lines = ["data.client=who", "data.target=y", "rounds.count=3", "evaluation.shots=[1]"]
    arguments = ["run", "csv", "--data", "t.csv", "--no-comparisons", "--json"]
    refused = command("simulations", *arguments, "--out", "secure", *settings(lines))
    _is_one_sentence(refused, "cannot hide each other", 'secure_aggregation.mode = "plain"')
    plain = [*lines, "secure_aggregation.mode=plain"]
    done = command("simulations", *arguments, "--out", "plain", *settings(plain))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runs"][0]["secure"]["mode"] == "plain"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nothing-of-that-name"], ["neither a scenario nor a file", "digits"]),
        (["run", "retail"], ["--data"]),
        (["run", "retail", "--data", "no-such-file.csv"], ["no-such-file.csv"]),
        (["run", "sine", "--set", "inner.steps=1"], ["inner.steps", "joint training"]),
        (["run", "sine", "--set", "inner.stepz=3"], ["inner.stepz", "steps"]),
        (["run", "sine", "--set", "nonsense"], ["section.key=value"]),
        (["run", "sine", "--sweep", "epsilon"], ["key=a,b,c"]),
        (["run", "sine", "--resume"], ["--out"]),
        (["run", "sine", "--set", 'privacy.unit="example"'], ["privacy.epsilon"]),
        (["run", "sine", "--set", "rounds.cohort_size=3"], ["rounds.cohort_size", "cannot hide each other"]),
        (["report", "no-such-folder"], ["no-such-folder"]),
        (["bench", "no-such-benchmark"], ["no-such-benchmark", "exchange"]),
    ],
)
def test_wrong_input_gets_one_clear_sentence(command: Command, arguments: list[str], words: list[str]) -> None:
    _is_one_sentence(command("simulations", *arguments), *words)


def test_a_run_is_never_overwritten(process: Command) -> None:
    """In processes of its own: nothing but JSON on standard output, and the sentence comes from a new interpreter."""
    arguments = ["run", "sine", "--out", "out", "--no-comparisons", "--json", *settings(SMALL_SINE)]
    first = process("simulations", *arguments)
    assert first.returncode == 0, first.stderr
    assert len(json.loads(first.stdout)["runs"]) == 1
    _is_one_sentence(process("simulations", *arguments), "not overwritten", "--resume")


def test_an_owner_checks_a_table_and_a_server_a_plan(
    command: Command, process: Command, shops: Path, tmp_path: Path
) -> None:
    plan = command("simulations", "plan", "csv", "--data", str(shops), *settings(TABLE))
    assert plan.returncode == 0, plan.stderr
    (tmp_path / "plan.toml").write_text(plan.stdout, encoding="utf-8")
    fits = command("client", "check", "plan.toml", "--data", str(shops), "--client", "shop-1", "--json")
    assert json.loads(fits.stdout)["rows"] == WEEKS
    _is_one_sentence(
        process("client", "check", "plan.toml", "--data", str(shops), "--client", "shop-7"), "price", "line"
    )
    found = json.loads(command("server", "check", "plan.toml", "--json").stdout)
    assert found["digest"] == json.loads(fits.stdout)["digest"]
    assert found["privacy_unit"] == "none"
    assert found["secure_aggregation"] == "the server sees sums over groups"


def test_server_check_says_what_a_plan_costs(command: Command, process: Command, tmp_path: Path) -> None:
    arguments = ['privacy.unit="example"', "privacy.epsilon=3", "model.inputs=[1, 16, 16]", "model.outputs=10"]
    plan = command("simulations", "plan", "digits", *settings(arguments))
    (tmp_path / "plan.toml").write_text(plan.stdout, encoding="utf-8")
    found = json.loads(process("server", "check", "plan.toml", "--clients", "100", "--json").stdout)
    assert found["rounds_of_one_client"] == 10
    assert 2.97 < found["epsilon_of_one_client"] <= 3.0
    assert found["bytes_up_a_client_and_round"] > 4 * found["shared_parameters"], (
        "with its headers, and what secure sums take"
    )


def _is_one_sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
