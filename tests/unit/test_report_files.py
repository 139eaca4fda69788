"""The report on disk: it comes back as it was, and a damaged one is one clear error."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from report_factory import (
    arm,
    page_of_two_seeds,
    report,
    run,
    two_seeds,
    with_scores,
)

from testudo_common.errors import UsageError
from testudo_simulations.report import read_report, write_report
from testudo_simulations.results import FORMAT_VERSION


def test_round_trip(tmp_path: Path) -> None:
    json_path, html_path = write_report(two_seeds(), tmp_path / "runs" / "one")
    assert read_report(json_path) == two_seeds()
    assert read_report(json_path.parent) == two_seeds()
    assert html_path.read_text(encoding="utf-8") == page_of_two_seeds()
    assert sorted(path.name for path in json_path.parent.iterdir()) == ["report.html", "report.json"]


def test_scores_of_training_clients_come_back(tmp_path: Path) -> None:
    found = report(with_scores(run([arm("adapted", (0.5,))])))
    json_path, _ = write_report(found, tmp_path)
    assert read_report(json_path) == found
    assert read_report(json_path).runs[0].rounds[1].metrics["after"]["accuracy"] == 0.75


def test_numbers_that_are_not_finite_come_back_as_nan(tmp_path: Path) -> None:
    found = report(run([arm("adapted", (0.5, math.inf)), arm("scratch", (0.5, math.nan))]))
    json_path, _ = write_report(found, tmp_path)
    json.loads(json_path.read_text(encoding="utf-8"), parse_constant=pytest.fail)  # strict JSON: null, no NaN
    back = read_report(json_path).runs[0]
    assert math.isnan(back.arms[0].scores[1].metrics["accuracy"])
    assert back.arms[0].scores[0] == found.runs[0].arms[0].scores[0]
    assert back.arms[0].share_hurt is None


def _cut(text: str) -> str:
    return text[: len(text) // 2]


def _no_seed(text: str) -> str:
    return text.replace('"seed"', '"sede"', 1)


def _text_for_a_number(text: str) -> str:
    return text.replace('"parameters": 1234', '"parameters": "many"', 1)


def _newer(text: str) -> str:
    return text.replace(f'"version": {FORMAT_VERSION}', f'"version": {FORMAT_VERSION + 1}', 1)


def _older(text: str) -> str:
    """As before secure aggregation: of the earlier version, and without what came with it."""
    content = json.loads(text)
    content["version"] = 1
    for one in content["runs"]:
        del one["secure"]
        for record in one["rounds"]:
            del record["metrics"]
    return json.dumps(content)


def _no_secure(text: str) -> str:
    return text.replace('"secure": {', '"sure": {', 1)


def _null_for_a_count(text: str) -> str:
    return text.replace('"parameters": 1234', '"parameters": null', 1)


def _null_and_no_seed(text: str) -> str:
    return _no_seed(text).replace('"before": 0.1', '"before": null', 1)


def _a_list(text: str) -> str:
    return "[]"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_cut, "it is not JSON"),
        (_no_seed, "damaged at runs.0.seed"),
        (_text_for_a_number, "damaged at runs.0.parameters"),
        (_null_for_a_count, "damaged at runs.0.parameters"),
        (_null_and_no_seed, "damaged at runs.0.seed"),
        (_newer, f"of version {FORMAT_VERSION + 1}, and this program reads version {FORMAT_VERSION}"),
        (_older, f"of version 1, and this program reads version {FORMAT_VERSION}"),
        (_no_secure, "damaged at runs.0.secure"),
        (_a_list, "damaged at (whole file)"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, damage: object, said: str) -> None:
    assert callable(damage)
    json_path, _ = write_report(two_seeds(), tmp_path)
    json_path.write_text(damage(json_path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_report(json_path)
    assert said in str(caught.value)
    assert str(json_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_bytes_that_are_no_text_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_report(tmp_path / "report.json")
    (tmp_path / "report.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not JSON"):
        read_report(tmp_path)


def test_a_folder_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be written"):
        write_report(two_seeds(), tmp_path / "taken")


def test_a_write_that_fails_leaves_the_old_report_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    json_path, _ = write_report(two_seeds(), tmp_path)
    before = json_path.read_bytes()

    def no_space(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(UsageError, match="No space left"):
        write_report(report(), tmp_path)
    assert json_path.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_reading_a_report_needs_neither_matplotlib_nor_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys, testudo_simulations.report, testudo_simulations.report.terminal; "
        "print(sorted({'matplotlib', 'torch', 'flwr', 'opacus'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
