"""``testudo-client ask``: a table is answered whole or not at all, and what is wrong with it is named by its place."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from own_models import CLINIC, SHOP, clinic_table, make_version, shop_table, store_with, write_csv
from testudo_client import cli
from testudo_client.personal.personalizer import Personalizer
from testudo_client.serving.ask_command import AskRequest, ask
from testudo_client.table import Table
from testudo_common.errors import DataError, UsageError


def request_of(folder: Path, tables: dict[str, Any], table: Table, **more: Any) -> AskRequest:
    if not (folder / "models").exists():
        store_with(folder, make_version(tables=tables))
    return AskRequest(folder, write_csv(folder / "rows.csv", table), **more)


def test_each_row_gets_its_class_and_how_sure_it_is(tmp_path: Path) -> None:
    table = clinic_table(12)
    found = ask(request_of(tmp_path, CLINIC, table))
    rows = list(csv.DictReader(io.StringIO(found.text)))
    expected = Personalizer(make_version()).predict(
        [{"age": float(row[1]), "pressure": float(row[2]), "ward": row[3]} for row in table.rows]
    )
    assert [row["age"] for row in rows] == table.cells("age"), "the file's own columns are kept"
    assert [(row["predicted"], row["sure"]) for row in rows] == [(one.label, one.sure) for one in expected]
    assert [float(row["p(yes)"]) for row in rows] == pytest.approx(
        [one.probabilities["yes"] for one in expected], abs=1e-4
    )
    assert found.rows == 12 == sum(found.sure.values())


def test_a_missing_value_is_an_empty_cell_where_the_plan_allows_it(tmp_path: Path) -> None:
    table = Table("x", ("age", "pressure", "ward"), (2,), (("30", "", "east"),))
    assert ask(request_of(tmp_path, CLINIC, table)).rows == 1


def test_numbers_have_intervals_as_csv_and_as_json(tmp_path: Path) -> None:
    table = shop_table(5)
    rows = list(csv.DictReader(io.StringIO(ask(request_of(tmp_path, SHOP, table)).text)))
    answers = json.loads(ask(request_of(tmp_path, SHOP, table, as_json=True)).text)["answers"]
    for row, answer in zip(rows, answers, strict=True):
        assert float(row["low"]) < float(row["predicted"]) < float(row["high"])
        assert float(row["predicted"]) == pytest.approx(answer["value"], rel=1e-5)
    assert [answer["line"] for answer in answers] == list(table.lines)


FAULTS = {
    "text in a number column": ("s1,1,cheap,0.2,3", r"line 3: the value of column 'price' is not a finite number"),
    "an empty cell": ("s1,1,,0.2,3", r"line 3: the value of column 'price' is empty"),
    "far out of its range": ("s1,1,2.5,99,3", r"line 3: .* 'display' is out of its range, from -?[\d.]+ to [\d.]+"),
    "no logarithm": ("s1,1,-2,0.2,3", r"line 3: .* 'price' is not above zero"),
    "a comma in a number": ("s1,1,2,5,0.2,3", r"line 3: 6 cells under 5 columns"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_cell_that_cannot_be_used_is_named_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    line, message = FAULTS[name]
    request = request_of(tmp_path, SHOP, shop_table(4), to=tmp_path / "answers.csv")
    lines = request.data.read_text().splitlines()
    lines[2] = line
    request.data.write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        ask(request)
    assert not (tmp_path / "answers.csv").exists()


def test_a_wrong_separator_and_a_missing_column_are_named(tmp_path: Path) -> None:
    request = request_of(tmp_path, SHOP, shop_table(4))
    text = request.data.read_text()
    request.data.write_text(text.replace(",", ";"))
    with pytest.raises(DataError, match="separated by semicolons, not by commas"):
        ask(request)
    request.data.write_text(text.replace("price", "prize"))
    with pytest.raises(DataError, match=r"no column 'price'.*Did you mean 'prize'"):
        ask(request)


def test_answers_overwrite_nothing_unless_it_is_said(tmp_path: Path) -> None:
    to = tmp_path / "answers.csv"
    to.write_text("mine")
    with pytest.raises(UsageError, match="such a file already"):
        ask(request_of(tmp_path, SHOP, shop_table(4), to=to))
    assert to.read_text() == "mine"
    ask(request_of(tmp_path, SHOP, shop_table(4), to=to, force=True))
    assert to.read_text().startswith("shop,week,price,display,sold,predicted,low,high,sure\n")
    with pytest.raises(UsageError, match="has a column 'predicted' already"):
        ask(AskRequest(tmp_path, to))


def test_the_command_says_how_many_are_sure_and_where_the_answers_are(tmp_path: Path) -> None:
    request = request_of(tmp_path, CLINIC, clinic_table(6))
    words = ["ask", str(tmp_path), "--data", str(request.data), "--to", str(tmp_path / "answers.csv")]
    said = CliRunner().invoke(cli.app, words)
    assert said.exit_code == 0 and said.stdout.startswith("6 rows answered by version 1: "), said.output
    told = CliRunner().invoke(cli.app, [*words, "--force", "--json"])
    assert json.loads(told.stdout)["rows"] == 6
    printed = CliRunner().invoke(cli.app, words[:4])
    assert len(printed.stdout.splitlines()) == 7
    refused = CliRunner().invoke(cli.app, [*words[:4], "--level", "1"])
    assert isinstance(refused.exception, UsageError)
