"""Looking at an owner's table: every fault is found, told by column and line, and no cell is repeated."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from typer.testing import CliRunner

from own_models import CLINIC, SHOP, clinic_table, make_version, plan_of, shop_table, store_with, write_csv
from testudo_client.cli import app
from testudo_client.quality.card import DataCard, keep_template, read_data_card, template
from testudo_client.quality.findings import Finding, Severity
from testudo_client.quality.inspection import Inspection, InspectRequest, inspect
from testudo_client.quality.profile import read_profile
from testudo_client.table import Table
from testudo_common.errors import PlanError, UsageError

SECRET = "SECRET-VALUE"


def plan_file(folder: Path, tables: dict[str, object] = CLINIC) -> Path:
    path = folder / "plan.toml"
    path.write_text(tomli_w.dumps(tables))
    return path


def of_rows(tmp_path: Path, table: Table, tables: dict[str, object] = CLINIC, **more: object) -> Inspection:
    data = write_csv(tmp_path / "mine.csv", table)
    return inspect(InspectRequest(data, plan=plan_file(tmp_path, tables), **more))  # type: ignore[arg-type]


def with_cells(table: Table, column: str, cells: list[str]) -> Table:
    place = table.columns.index(column)
    rows = [(*row[:place], cell, *row[place + 1 :]) for row, cell in zip(table.rows, cells, strict=True)]
    return Table(table.source, table.columns, table.lines, tuple(rows))


def checks(found: Inspection) -> dict[str, Finding]:
    return {finding.check: finding for finding in found.findings}


def test_a_table_without_faults_has_no_findings(tmp_path: Path) -> None:
    assert of_rows(tmp_path, clinic_table()).findings == ()
    assert of_rows(tmp_path, shop_table(), SHOP).findings == ()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("semicolons", "age;ill\n30;no\n", "separated by semicolons"),
        ("tabs", "age\till\n30\tno\n", "separated by tabs"),
        ("column", "clinic,age,presure,ward,ill\nc,1,1,east,no\n", "no column 'pressure'. Did you mean 'presure'"),
        ("empty", "", "the file is empty"),
        ("header", "age,ill\n30,no\nage,ill\n", "line 3: the header again"),
        ("several", "clinic,age,pressure,ward,ill\na,1,1,east,no\nb,1,1,east,no\n", "names several clients"),
    ],
)
def test_a_file_that_is_no_table_of_the_plan_stops_with_one_sentence(
    tmp_path: Path, name: str, content: str, told: str
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(content)
    found = inspect(InspectRequest(path, plan=plan_file(tmp_path)))
    assert found.stops
    assert [finding.check for finding in found.findings] == ["file"]
    assert told in str(found.findings[0])


def test_cells_that_cannot_be_used_are_counted_by_column_and_kind(tmp_path: Path) -> None:
    table = clinic_table(30)
    ages = ['"4,5"', '"4,5"', SECRET, "", *table.cells("age")[4:]]
    found = of_rows(tmp_path, with_cells(table, "age", ages))
    told = [str(finding) for finding in found.findings if finding.check == "cells"]
    assert [line.split(":")[1].split("(")[0].strip() for line in told] == [
        "2 cells are a number with a comma",
        "a cell is not a finite number",
        "a cell is empty",
    ]
    assert "(lines 2, 3)" in told[0]
    assert SECRET not in json.dumps(found.as_dict())


def test_a_far_off_value_is_told_by_line_and_a_repeated_one_as_a_code(tmp_path: Path) -> None:
    table = clinic_table(40)
    ages = ["9999", "9999", *table.cells("age")[2:]]
    found = checks(of_rows(tmp_path, with_cells(table, "age", ages)))
    assert (found["far_off"].lines, found["far_from_plan"].lines) == ((2, 3), (2, 3))
    assert "a code for no value" in found["far_off"].remedy
    assert "(years)" in found["far_from_plan"].remedy


def test_columns_that_say_nothing_or_too_much_are_told(tmp_path: Path) -> None:
    table = clinic_table(40)
    assert checks(of_rows(tmp_path, with_cells(table, "ward", ["east"] * 40)))["constant"].column == "ward"
    numbers = [f"{place}" for place in range(20, 60)]
    assert checks(of_rows(tmp_path, with_cells(table, "age", numbers)))["row_number"].column == "age"
    known = ["150" if label == "yes" else "100" for label in table.cells("ill")]
    assert checks(of_rows(tmp_path, with_cells(table, "pressure", known)))["tells_target"].column == "pressure"
    empty = ["" if place % 4 else "120" for place in range(40)]
    missing = checks(of_rows(tmp_path, with_cells(table, "pressure", empty)))["missing"]
    assert (missing.severity, missing.count) == (Severity.WARN, 30)


def test_a_random_column_is_not_said_to_tell_the_target(tmp_path: Path) -> None:
    """With as few rows as five a bin one column in many tells the target by chance: it takes 20."""
    for seed in range(20):
        assert "tells_target" not in checks(of_rows(tmp_path, clinic_table(24, seed)))


def test_duplicates_contradictions_and_leaks_between_halves_are_told(tmp_path: Path) -> None:
    table = clinic_table(40)
    other = {"yes": "no", "no": "yes"}
    rows = (*table.rows, *table.rows[:3], (*table.rows[5][:4], other[table.rows[5][4]]))
    found = checks(of_rows(tmp_path, Table("t", table.columns, tuple(range(2, 46)), rows)))
    assert (found["duplicates"].count, found["duplicates"].lines) == (3, (42, 43, 44))
    assert found["contradictions"].lines == (7, 45)
    assert found["across_halves"].count == 3


def test_classes_too_few_none_or_nearly_all_are_told(tmp_path: Path) -> None:
    table = clinic_table(40)
    one = of_rows(tmp_path, with_cells(table, "ill", ["yes"] * 40))
    assert one.stops
    assert "one and the same class" in checks(one)["classes"].problem
    few = checks(of_rows(tmp_path, with_cells(table, "ill", ["no"] * 2 + ["yes"] * 38)))
    assert "'no' (2)" in few["few_per_class"].problem
    assert "95% of the rows are 'yes'" in few["balance"].problem
    ten = of_rows(tmp_path, clinic_table(10))
    assert not ten.stops
    assert checks(ten)["rows"].severity is Severity.WARN
    assert checks(of_rows(tmp_path, clinic_table(5)))["rows"].severity is Severity.STOP


def test_an_order_that_is_unsorted_repeated_or_has_gaps_is_told(tmp_path: Path) -> None:
    table = shop_table(30)
    weeks = [*range(9, -1, -1), *range(20, 39), 38]
    found = [str(each) for each in of_rows(tmp_path, with_cells(table, "week", [*map(str, weeks)]), SHOP).findings]
    assert any("not in its order" in each for each in found)
    assert any("1 gap of more than 3 usual steps" in each for each in found)
    assert any("1 rows have the same as another one" in each for each in found)
    stopped = of_rows(tmp_path, with_cells(table, "week", ["1/2/2024"] * 30), SHOP)
    assert stopped.stops
    same = of_rows(tmp_path, with_cells(table, "sold", ["5"] * 30), SHOP)
    assert checks(same)["target"].severity is Severity.STOP


def test_a_folder_keeps_profile_and_card_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    request = InspectRequest(write_csv(tmp_path / "mine.csv", clinic_table()), folder, plan_file(tmp_path))
    found = inspect(request)
    assert found.card is not None
    assert "licence" in found.card.empty
    assert found.profile is not None
    for path in (found.profile, folder / "data-card.toml"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    profile = read_profile(folder / "state")
    assert profile is not None
    age = profile.columns[0]
    assert (age.name, age.count, age.missing, age.unit) == ("age", 40, 0, "years")
    assert age.mean == pytest.approx(clinic_table().numbers("age").mean())
    assert age.quantiles[2] == pytest.approx(np.median(clinic_table().numbers("age")))
    assert sum(profile.target.shares.values()) == pytest.approx(1.0)


def test_a_table_that_stops_leaves_the_old_profile_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    data = write_csv(tmp_path / "mine.csv", clinic_table())
    request = InspectRequest(data, folder, plan_file(tmp_path))
    inspect(request)
    before = (folder / "state/profile.json").read_bytes()
    write_csv(data, clinic_table(3))
    assert inspect(request).stops
    assert (folder / "state/profile.json").read_bytes() == before


def test_the_card_that_an_owner_filled_in_is_read_and_never_overwritten(tmp_path: Path) -> None:
    assert read_data_card(tmp_path) is None
    assert keep_template(tmp_path)
    assert read_data_card(tmp_path) == DataCard()
    filled = template().replace('licence = ""', 'licence = "own"').replace('_from = ""', "_from = 2024-02-29")
    (tmp_path / "data-card.toml").write_text(filled)
    assert not keep_template(tmp_path)
    card = read_data_card(tmp_path)
    assert card is not None
    assert (card.licence, str(card.collected_from)) == ("own", "2024-02-29")
    assert set(DataCard().empty) - set(card.empty) == {"licence", "collected_from"}
    assert card.digest != DataCard().digest


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("licence = 3", "licence: Input should be a valid string"),
        ("licenze = 'x'", "licenze: Extra inputs are not permitted"),
        ("collected_from = 2024-02-01\ncollected_to = 2024-01-01", "collected_to is before collected_from"),
        ("collected_from = 'spring'", "collected_from: Input should be a valid date"),
        ("licence = ", "not a TOML file"),
    ],
)
def test_a_card_that_is_none_is_refused_by_field(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "data-card.toml").write_text(text)
    with pytest.raises(UsageError, match=told):
        read_data_card(tmp_path)


def test_the_plan_comes_from_where_the_owner_has_one(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "mine.csv", clinic_table())
    with pytest.raises(UsageError, match="which columns to look for"):
        inspect(InspectRequest(data))
    with pytest.raises(UsageError, match="no such folder"):
        inspect(InspectRequest(data, tmp_path / "none"))
    store_with(tmp_path / "home", make_version())
    assert inspect(InspectRequest(data, tmp_path / "home")).plan == plan_of(CLINIC).name
    sine = plan_file(tmp_path, {"name": "s", "data": {"federation": "sine"}, "task": {"kind": "regression"}})
    with pytest.raises(PlanError, match="has no table"):
        inspect(InspectRequest(data, plan=sine))


def test_the_command_ends_with_one_where_the_table_cannot_be_used(tmp_path: Path) -> None:
    plan, data = plan_file(tmp_path), write_csv(tmp_path / "mine.csv", clinic_table())
    fine = CliRunner().invoke(app, ["inspect", "--plan", str(plan), "--data", str(data), "--json"])
    assert (fine.exit_code, json.loads(fine.stdout)["usable"]) == (0, True)
    write_csv(data, clinic_table(4))
    stopped = CliRunner().invoke(app, ["inspect", "--plan", str(plan), "--data", str(data)])
    assert stopped.exit_code == 1
    assert "It cannot be used as it is: 1 stop" in stopped.stdout
