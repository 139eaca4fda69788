"""A data owner's table: what is read, what is refused and in which words, and how cells become inputs."""

from __future__ import annotations

import gzip
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testudo_client.data import examples_of_rows, load_owner_examples, model_shape
from testudo_client.table import Table, order_rows, parse_number, read_table
from testudo_common.errors import DataError, PlanError
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import Column, TableData

AGE = Column(name="age", center=40.0, scale=10.0)
WARD = Column(name="ward", kind="category", categories=("north", "south"))
LAB = Column(name="lab", missing=True)
SECRET = "SECRET-VALUE"


def section(*columns: Column, **more: object) -> TableData:
    settings = {"client": "who", "target": "y", "columns": columns, "labels": ("no", "yes"), **more}
    return TableData.model_validate(settings)


def table(columns: str, *rows: str) -> Table:
    cells = tuple(tuple(row.split(",")) for row in rows)
    return Table("t.csv", tuple(columns.split(",")), tuple(range(2, len(rows) + 2)), cells)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_table_of_something_else_does_not_fill_the_screen() -> None:
    table = Table("t.csv", tuple(f"c{n}" for n in range(30)), (2,), (("1",) * 30,))
    with pytest.raises(DataError, match="no column 'f11' and 18 more") as refused:
        table.require(f"f{n}" for n in range(30))
    assert "'c11' and 18 more" in refused.value.remedy


def test_rows_become_scaled_and_one_hot_inputs() -> None:
    rows = table("y,ward,age,lab,ignored", "yes,south,50,1.5,a", "no,north,30,,b")
    examples = examples_of_rows(section(AGE, WARD, LAB), "classification", rows)
    #               age   north south lab  lab missing
    expected = [[1.0, 0.0, 1.0, 1.5, 0.0], [-1.0, 1.0, 0.0, 0.0, 1.0]]
    np.testing.assert_array_equal(examples.inputs, np.array(expected, dtype=np.float32))
    np.testing.assert_array_equal(examples.targets, [1, 0])
    assert examples.inputs.dtype == np.float32
    assert examples.targets.dtype == np.int64
    assert model_shape(section(AGE, WARD, LAB), "classification") == ((5,), 2)


def test_a_regression_target_is_centred_and_scaled() -> None:
    data = section(AGE, labels=None, target_center=100.0, target_scale=50.0)
    examples = examples_of_rows(data, "regression", table("age,y", "40,200", "40,75"))
    np.testing.assert_array_equal(examples.targets, np.array([2.0, -0.5], dtype=np.float32))
    assert examples.targets.dtype == np.float32


@pytest.mark.parametrize("kind", ["number", "category"])
@given(data=st.data())
def test_one_hot_and_missing_encode_without_loss(kind: str, data: st.DataObject) -> None:
    """What a cell held, and whether it was empty, can be read back from the inputs."""
    categories = ("a", "b", "c")
    value = st.sampled_from(categories) if kind == "category" else st.integers(-999, 999).map(str)
    cells = data.draw(st.lists(st.one_of(st.just(""), value), min_size=1, max_size=20))
    listed = categories if kind == "category" else ()
    column = Column(name="x", kind=kind, categories=listed, missing=True)
    rows = table("x,y", *(f"{cell},no" for cell in cells))
    inputs = examples_of_rows(section(column), "classification", rows).inputs
    back = [
        "" if row[-1] else categories[int(row[:-1].argmax())] if kind == "category" else str(int(row[0]))
        for row in inputs
    ]
    assert back == cells
    assert (np.abs(inputs[:, :-1]).sum(axis=1)[inputs[:, -1] == 1] == 0).all()


@pytest.mark.parametrize("cell", ["nan", "inf", "-inf", "1e999", "1e39", "1_000", SECRET, "1 2"])
def test_what_is_not_a_finite_number_is_refused_by_line_and_column(cell: str) -> None:
    assert parse_number(cell) is None
    with pytest.raises(DataError) as caught:
        examples_of_rows(section(AGE), "classification", table("age,y", "40,no", f"{cell},no"))
    assert str(caught.value).startswith("t.csv: line 3: the value of column 'age' is not a finite number")
    assert cell not in str(caught.value).removesuffix("or take their rows out").replace("finite", "")


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("3,5", "a number with a comma"),
        ("1.234,5", "thousands separators"),
        ("1 234 567", "thousands separators"),
        ("NA", "a word for no value"),
        ("-", "a word for no value"),
        ("12%", "a number with a unit"),
        ("12.5 kg", "a number with a unit"),
        ("$ 3", "a number with a unit"),
    ],
)
def test_a_number_written_as_people_do_is_refused_with_what_to_write(cell: str, told: str) -> None:
    rows = Table("t.csv", ("age", "y"), (2,), ((cell, "no"),))
    with pytest.raises(DataError, match=f"line 2: the value of column 'age' is .*{told}"):
        examples_of_rows(section(AGE), "classification", rows)
    with pytest.raises(DataError, match=told):
        rows.numbers("age")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (f"40,north,{SECRET}", "line 2: the value of column 'y' is not one of the plan's labels"),
        (f"40,{SECRET},no", "line 2: the value of column 'ward' is not one of the plan's categories"),
        ("40,north,", "line 2: the value of column 'y' is empty"),
        ("40,,no", "line 2: the value of column 'ward' is empty"),
        (",north,no", "line 2: the value of column 'age' is empty"),
    ],
)
def test_other_cells_are_refused_without_showing_them(row: str, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        examples_of_rows(section(AGE, WARD), "classification", table("age,ward,y", row))
    assert caught.value.problem == problem
    assert SECRET not in str(caught.value)


def test_the_first_faults_are_told_in_order_and_the_others_counted() -> None:
    rows = table("age,y", *(["x,no"] * 4), "40,maybe", "x,no", "x,no")
    with pytest.raises(DataError) as caught:
        examples_of_rows(section(AGE), "classification", rows)
    told = caught.value.problem.split("; ")
    assert [entry.split(":")[0] for entry in told[:-1]] == ["line 2", "line 3", "line 4", "line 5", "line 6"]
    assert told[-1] == "and 2 more"


def test_data_never_prints() -> None:
    assert SECRET not in repr(table("age", SECRET))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"a,b\n", "the file has a header and no rows"),
        (b"a,b\n1,2\n3,\xff\n", "line 3: not UTF-8 text"),
        (b"a,b,a\n1,2,3\n", "line 1: column 'a' stands in the header twice"),
        (b",a\n0,1\n", "line 1: column 1 of the header has no name"),
        (b"a;b\n1;2\n", "line 1: the cells are separated by semicolons, not by commas"),
        (b"a\tb\n1\t2\n", "line 1: the cells are separated by tabs, not by commas"),
        (b"a,b\n1,2\na,b\n3,4\n", "line 3: the header again"),
        (b"1,2.5\n3,4\n", "line 1: there is no header: all its names are numbers"),
        (b"a,b\n1,2\n1,2,3\n", "line 3: 3 cells under 2 columns"),
        (b'a,b\n"x\ny",2\n\n1\n', "line 5: 1 cells under 2 columns"),
        (b'a,b\n1,"2\n', "line 2: not CSV: unexpected end of data"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_line(tmp_path: Path, content: bytes, problem: str) -> None:
    path = write(tmp_path / "t.csv", content)
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert (caught.value.problem, caught.value.where) == (problem, str(path))
    assert caught.value.remedy


def test_a_file_that_is_not_there_or_not_gzip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_table(tmp_path)
    with pytest.raises(DataError, match="not a gzip file"):
        read_table(write(tmp_path / "plain.csv.gz", "a,b\n1,2\n"))
    with pytest.raises(DataError, match="damaged"):
        read_table(write(tmp_path / "cut.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 99)[:-12]))


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_excels_and_compressed_files_read_alike(tmp_path: Path, name: str, ending: str) -> None:
    text = ending.join(["\ufeffa, b", '1,"x, y"', "", " 2 ,z", ""]).encode()
    read = read_table(write(tmp_path / name, gzip.compress(text) if name.endswith("gz") else text))
    assert (read.columns, read.rows, read.lines) == (("a", "b"), (("1", "x, y"), ("2", "z")), (2, 4))


def test_a_missing_column_is_told_with_the_likeliest_slip() -> None:
    with pytest.raises(DataError) as caught:
        table("volume,price", "1,2").cells("volumes")
    expected = "Did you mean 'volume'? The columns are 'volume', 'price'"
    assert (caught.value.problem, caught.value.remedy) == ("there is no column 'volumes'", expected)


@pytest.mark.parametrize(
    "cells",
    [
        ("10", "9", "8.5"),
        ("2024-10", "2024-09", "2023-12"),
        ("2024-10-01", "2024-09-30", "2024-09-29"),
        ("2024-01-01T00:30+01:00", "2023-12-31T23:00", "2023-12-31T22:00+00:00"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_rows_are_ordered_as_time_and_not_as_text(
    cells: tuple[str, ...], zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time without a zone is UTC, wherever the machine stands."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        ordered = order_rows(table("when", *cells), "when").cells("when")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert ordered == list(reversed(cells))


@pytest.mark.parametrize("cells", [("1/2/2024", "3/1/2024"), ("1", "2024-01-01"), ("1", "")])
def test_an_order_that_is_not_one_is_refused(cells: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="the value of column 'when' is neither a number nor an ISO date"):
        order_rows(table("when", *cells), "when")


def owner_plan(**data: object) -> FederationPlan:
    stated = section(AGE, **{"min_rows": 2, **data}).model_dump()
    task = {"kind": "classification"}
    return FederationPlan.model_validate({"name": "wards", "data": stated, "task": task})


def test_an_owners_file_needs_no_client_column_and_is_sorted(tmp_path: Path) -> None:
    path = write(tmp_path / "own.csv", "age,day,y\n60,2,yes\n50,1,no\n")
    examples = load_owner_examples(owner_plan(order="day"), path)
    np.testing.assert_array_equal(examples.inputs[:, 0], [1.0, 2.0])
    np.testing.assert_array_equal(examples.targets, [0, 1])


def test_of_several_clients_one_must_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "all.csv", "who,age,y\na,60,yes\nb,50,no\na,40,no\n")
    np.testing.assert_array_equal(load_owner_examples(owner_plan(), path, "a").inputs[:, 0], [2.0, 0.0])
    with pytest.raises(DataError, match="column 'who' names several clients"):
        load_owner_examples(owner_plan(), path)
    with pytest.raises(DataError, match="no row has 'c' in column 'who'"):
        load_owner_examples(owner_plan(), path, "c")
    with pytest.raises(DataError, match=r"1 rows, and the plan asks for 2 \(data.min_rows\)"):
        load_owner_examples(owner_plan(), path, "b")


def test_an_owner_needs_a_complete_plan_that_fits(tmp_path: Path) -> None:
    path = write(tmp_path / "own.csv", "age,y\n60,yes\n50,no\n")
    with pytest.raises(PlanError, match=r"data.columns: left open"):
        load_owner_examples(owner_plan(columns=None), path)
    wrong = owner_plan().model_dump() | {"model": {"inputs": [7], "outputs": 2}}
    with pytest.raises(PlanError, match=r"model.inputs: .7,. is stated, but the data has .1,.") as caught:
        load_owner_examples(FederationPlan.model_validate(wrong), path)
    assert len(caught.value.faults) == 1
    sine = {"name": "s", "data": {"federation": "sine"}, "task": {"kind": "regression"}}
    with pytest.raises(PlanError, match=r"data.federation: 'sine' has no table"):
        load_owner_examples(FederationPlan.model_validate(sine), path)


def test_reading_a_table_loads_neither_torch_nor_flower() -> None:
    probe = "import sys, testudo_client.data; print(sorted({'torch', 'flwr', 'sklearn'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
