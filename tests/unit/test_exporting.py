"""Exported files against the version that they are of; which are refused, and for what fault; and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from own_models import CLINIC, CLINIC_ROWS, SHOP, clinic_table, make_version, plan_of, store_with, write_csv
from testudo_client.cli import app
from testudo_client.exporting import command, exporting, files
from testudo_client.exporting.card import card_of
from testudo_client.exporting.deciding import fault_of_answers, fault_of_speed, recommend
from testudo_client.exporting.exporting import Export, export
from testudo_client.exporting.files import open_file
from testudo_client.exporting.measuring import memory_of
from testudo_client.exporting.module import AnsweringModule, reference
from testudo_client.exporting.results import ExportedFile, ExportReport, Latency
from testudo_client.exporting.rows import made_up
from testudo_client.exporting.student import distil, student_of
from testudo_client.personal.own_model import Answerer
from testudo_client.personal.versions import Version
from testudo_common.errors import ModelError, PlanError, TestudoError
from testudo_simulations.benchmarks import BENCHMARKS
from testudo_simulations.benchmarks.export import measurements_of, untrained

WITH_STUDENT: dict[str, Any] = {**CLINIC, "student": {"name": "mlp", "hidden": [3], "steps": 60}}
MIB = 1 << 20


def memory(_path: Path, _shape: object) -> int:
    return 60 * MIB


def exported(version: Version, folder: Path, *formats: Any) -> ExportReport:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    rows = made_up(version.contract, rng, 64)
    return export(Export(version, rows, folder, formats, repeats=3, memory=memory), rng)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Version, Path, ExportReport]:
    """One export of everything."""
    version, folder = make_version(tables=WITH_STUDENT, sharpness=3.0), tmp_path_factory.mktemp("exported")
    return version, folder, exported(version, folder, "torch", "onnx", "int8")


@pytest.mark.parametrize("file", ["model.pt2", "model.onnx"])
@pytest.mark.parametrize("rows", [1, 2, 65])
def test_a_file_answers_as_the_version_does(made: tuple[Version, Path, ExportReport], file: str, rows: int) -> None:
    version, folder, _ = made
    inputs = made_up(version.contract, np.random.default_rng(rows), rows).inputs
    found = open_file(folder / file)(inputs)
    np.testing.assert_allclose(found, reference(Answerer(version.own), inputs), atol=1e-5)


def test_what_is_kept_is_there_and_what_is_refused_is_not(made: tuple[Version, Path, ExportReport]) -> None:
    _, folder, report = made
    assert [one.file for one in report.files] == [
        "model.pt2", "model.onnx", "model-int8-dynamic.onnx", "model-int8-static.onnx", "student.pt2", "student.onnx",
    ]  # fmt: skip
    for one in report.files:
        assert (folder / one.file).exists() == one.kept == bool(one.sha256), one.reason
        assert one.reason and set(one.latency) == {1, 64}
    assert report.files[0].kept and report.files[1].kept
    assert {path.name for path in folder.iterdir()} == {one.file for one in report.files if one.kept}
    assert ExportReport.model_validate_json(report.model_dump_json()) == report


def test_the_card_says_how_to_encode_a_row(made: tuple[Version, Path, ExportReport]) -> None:
    """By the card alone, as somebody without Testudo would; the contract is the oracle."""
    version, _, report = made
    card = json.loads(json.dumps(card_of(version, report)))
    for row in CLINIC_ROWS:
        inputs = np.zeros(card["inputs"]["shape"][1], dtype=np.float32)
        for column in card["inputs"]["columns"]:
            cell = row[column["name"]]
            if cell is None:
                inputs[column["empty_at"]] = 1
            elif column["kind"] == "category":
                inputs[column["at"] + column["categories"].index(cell)] = 1
            else:
                value = np.log(cell) if column["transform"] == "log" else cell
                inputs[column["at"]] = (value - column["center"]) / column["scale"]
        np.testing.assert_allclose(inputs, version.contract.encode([row])[0], rtol=1e-6)
    least = card["outputs"]["possible_if_at_least"]
    assert least == pytest.approx(1 - version.own.conformal.threshold(0.9))


def test_memory_is_that_of_a_fresh_process(made: tuple[Version, Path, ExportReport]) -> None:
    """Which loads no torch for ONNX; Linux hands a parent's peak on to its children."""
    _, folder, _ = made
    import resource

    peak = memory_of(folder / "model.onnx", (5,))
    assert peak is not None and 5 * MIB < peak < 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 0.8
    assert memory_of(folder / "none.onnx", (5,)) is None


@pytest.mark.parametrize("transform", ["none", "log"])
def test_numbers_are_answered_in_the_targets_unit(transform: str) -> None:
    tables = {**SHOP, "data": {**SHOP["data"], "target_transform": transform}}
    version = make_version(tables=tables)
    own = replace(version.own, centre=replace(version.own.centre, inputs=np.array([0.3, -0.2], dtype=np.float32)))
    answerer = Answerer(own)
    inputs = made_up(version.contract, np.random.default_rng(0), 20).inputs
    found = AnsweringModule(own, answerer.module)(torch.from_numpy(inputs)).detach().numpy()
    np.testing.assert_allclose(found, reference(answerer, inputs), rtol=1e-5)


def test_a_file_that_answers_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter's fault: here it forgets the temperature."""
    version = make_version(sharpness=3.0)

    def forgetful(module: AnsweringModule, shape: tuple[int, ...], path: Path) -> None:
        files.write_torch(AnsweringModule(replace(version.own, temperature=1.0), module.model), shape, path)

    monkeypatch.setattr(exporting, "write_torch", forgetful)
    report = exported(version, tmp_path, "torch")
    assert not report.files[0].kept and "differ by up to" in report.files[0].reason
    assert report.recommendation is None and not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_made_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise NotImplementedError("a value of somebody's data")

    monkeypatch.setattr(exporting, "write_torch", broken)
    report = exported(make_version(), tmp_path, "torch")
    assert [one.reason for one in report.files] == ["it cannot be exported so (NotImplementedError)"]


def test_a_student_learns_what_its_teacher_answers() -> None:
    tables = {**CLINIC, "student": {"name": "mlp", "hidden": [5], "steps": 300}}
    answerer = Answerer(make_version(tables=tables, sharpness=3.0).own)
    rows = made_up(make_version().contract, np.random.default_rng(0), 256).inputs
    expected, alike = reference(answerer, rows[192:]).argmax(axis=1), []
    for student in (student_of(answerer.own.plan), distil(answerer, rows[:192], np.random.default_rng(1))):
        told = AnsweringModule(answerer.own, student)(torch.from_numpy(rows[192:])).detach().numpy()
        alike.append((told.argmax(axis=1) == expected).mean())
    untaught, taught = alike
    assert untaught < 0.8 and taught > 0.9


def test_a_student_that_is_no_smaller_is_refused(tmp_path: Path) -> None:
    tables = {**CLINIC, "student": {"name": "mlp", "hidden": [8]}}
    with pytest.raises(ModelError, match="parameters"):
        student_of(plan_of(tables))
    report = exported(make_version(tables=tables), tmp_path, "torch")
    assert [(one.model, one.kept) for one in report.files] == [("own", True), ("student", False)]


def test_a_convolutional_student_needs_images() -> None:
    with pytest.raises(PlanError, match=r"student\.name"):
        plan_of({**CLINIC, "student": {"name": "conv"}})


def test_made_up_rows_keep_the_contract() -> None:
    contract = make_version().contract
    rows = made_up(contract, np.random.default_rng(0), 200).inputs
    assert rows.shape == (200, 5) and np.isfinite(rows).all()
    assert 0 < rows[:, 2].sum() < 60 and set(rows[:, 3] + rows[:, 4]) == {1.0}  # some empty cells; one ward each


def latency(p50: float, p99: float | None = None) -> Latency:
    return Latency(p50=p50, p99=p99 or p50, cpu=p50)


def file(name: str = "a", **changed: Any) -> ExportedFile:
    given = {"format": "onnx", "kept": True, "reason": "", "bytes": MIB, "memory_bytes": 50 * MIB}
    given |= {"latency": {1: latency(0.001), 64: latency(0.01)}}
    return ExportedFile(file=name, **{**given, **changed})


@pytest.mark.parametrize(
    ("one", "many", "pays"), [(0.5, 0.9, True), (0.94, 1.0, True), (0.97, 0.97, False), (0.5, 1.1, False)]
)
def test_eight_bits_have_to_be_faster(one: float, many: float, pays: bool) -> None:
    fault = fault_of_speed({1: latency(one), 64: latency(many)}, {1: latency(1.0), 64: latency(1.0)})
    assert (fault == "") == pays


@pytest.mark.parametrize(
    ("smaller", "own", "good"),
    [
        ({"accuracy": 0.895}, {"accuracy": 0.9}, True),
        ({"accuracy": 0.885}, {"accuracy": 0.9}, False),
        ({"mae": 10.05}, {"mae": 10.0}, True),
        ({"mae": 10.2}, {"mae": 10.0}, False),
        ({"agreement": 0.995}, {"agreement": 1.0}, True),
        ({"agreement": 0.985}, {"agreement": 1.0}, False),
        ({}, {}, False),
    ],
)
def test_smaller_files_have_to_answer_as_well(smaller: dict[str, float], own: dict[str, float], good: bool) -> None:
    assert (fault_of_answers(file(**smaller), file(**own)) == "") == good


def test_where_to_run_which_file() -> None:
    slow = file("slow", latency={1: latency(0.01, 0.2), 64: latency(0.02)})
    heavy = file("heavy", memory_bytes=300 * MIB, latency={1: latency(0.0001), 64: latency(0.001)})
    large, unmeasured = file("large", bytes=20 * MIB), file("unmeasured", memory_bytes=None)
    student = file("student", model="student", latency={1: latency(0.0001), 64: latency(0.001)})
    assert [recommend([one]).where for one in (slow, heavy, large, unmeasured)] == ["server"] * 4  # type: ignore[union-attr]
    best = recommend([heavy, student, file("fits")])
    assert best is not None and (best.where, best.file) == ("edge", "fits")
    best = recommend([slow, heavy])
    assert best is not None and (best.where, best.file) == ("server", "heavy") and "6.4e+04 rows" in best.reason
    assert recommend([file(kept=False)]) is None


def test_what_onnx_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_with(tmp_path / "owner", make_version())
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
    done = CliRunner().invoke(app, ["export", str(tmp_path / "owner"), "--to", str(tmp_path / "out")])
    assert "pip install 'testudo-fl[export]'" in str(done.exception) and not (tmp_path / "out").exists()


def test_the_command_exports_and_overwrites_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "Export", partial(Export, repeats=3, memory=memory))
    store_with(tmp_path / "owner", make_version())
    data = write_csv(tmp_path / "mine.csv", clinic_table())
    asked = ["export", str(tmp_path / "owner"), "--to", str(tmp_path / "out"), "--format", "torch", "--data", str(data)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.exception
    assert "40 of your rows" in done.output and "keep these files" in done.output
    card = json.loads((tmp_path / "out" / "model.json").read_text(encoding="utf-8"))
    assert card["stays_with_the_owner"] and card["measured"]["files"][0]["accuracy"] == card["measured"]["accuracy"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.pt2", "model.json", "contract.json"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "out").iterdir())
    for again in (asked, [*asked[:3], str(tmp_path / "new"), "--format", "tflite"]):
        refused = CliRunner().invoke(app, again)
        assert isinstance(refused.exception, TestudoError)
    assert not (tmp_path / "new").exists()


def test_the_benchmark_measures_beside_the_version_in_use(made: tuple[Version, Path, ExportReport]) -> None:
    _, _, report = made
    found = list(measurements_of(report, "small"))
    times = [one for one in found if one.metric == "wall_seconds"]
    assert len(times) == 2 * len(report.files) and all(one.reference and one.ours > 0 for one in times)
    assert {one.ratio for one in found if one.metric == "peak_memory"} == {1.0}  # as the test has it
    version = untrained((3,))
    assert reference(Answerer(version.own), made_up(version.contract, np.random.default_rng(0), 2).inputs).shape == (
        2,
        6,
    )
    assert "export" in BENCHMARKS
