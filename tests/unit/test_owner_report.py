"""An owner's report against what lies in its folder: numbers by another way, no row, no key, and nothing claimed."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from audit_logs import audited_plan
from audited_folders import audited_folder
from own_models import CLINIC, NOON, SHOP, clinic_table, make_version, plan_of, store_with
from owner_folders import SECRET_ROW, clinic_versions, observe, shop, whole_clinic
from policies import make_home, private_plan, write_policy
from testudo_client.cli import app
from testudo_client.home import OwnerHome
from testudo_client.ledger.account import epsilons_of, spent_on
from testudo_client.observations import Observations
from testudo_client.preview import preview
from testudo_client.quality.card import FILE as CARD_FILE
from testudo_client.quality.profile import profile_of, write_profile
from testudo_client.reporting.gather import gather
from testudo_client.reporting.own_model import FEWEST, FEWEST_FORECASTS
from testudo_client.reporting.values import OwnerReport
from testudo_common.errors import UsageError
from testudo_common.learning.calibration import tempered
from testudo_common.learning.metrics import ClassificationSums
from testudo_common.plan.load import dump_plan
from testudo_common.privacy.events import Unit
from testudo_common.reporting.rmf import SUBCATEGORIES, Evidence, Kind, rmf_lines

CARD = """title = "Wards"
provenance = "own records"
consent_basis = "written consent"
contact = "ada@ward"
"""


OF_A_MODEL = {"GOVERN 1.6", "MAP 1.1", "MAP 2.2", "MANAGE 1.1", "MANAGE 2.4", "MANAGE 3.2"} | {
    f"MEASURE 2.{number}" for number in (1, 3, 5, 7, 9, 11)
}


def report_on(folder: Path) -> OwnerReport:
    return gather(folder, NOON, software="0")


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never changed."""
    return made(tmp_path_factory.mktemp("clinic"))


def made(folder: Path) -> Path:
    home = whole_clinic(folder)
    (folder / CARD_FILE).write_text(CARD)
    plan = plan_of(CLINIC)
    write_profile(home.state, profile_of(plan, plan.data, clinic_table()))  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def found(clinic: Path) -> OwnerReport:
    return report_on(clinic)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """One like it, to be changed; made anew, since a ledger knows a copy of itself."""
    return made(tmp_path / "copy")


def test_what_left_is_what_the_preview_said_would(clinic: Path, found: OwnerReport) -> None:
    (left,) = found.left
    leaves = preview(private_plan(), OwnerHome(clinic))["leaves"]["rounds"]["without_scores"]
    assert (left.rounds, left.attempts, left.scored) == (3, 3, 0)
    assert (left.bytes_up, left.bytes_down) == (3 * leaves["bytes_up"], 3 * leaves["bytes_down"])
    assert sum(kind.bytes for kind in left.kinds) == leaves["bytes_up"]
    assert "only inside sums over groups" in found.glance.left
    assert found.costs.attempts == 3


def test_what_was_spent_is_what_the_ledger_adds_up_to(clinic: Path, found: OwnerReport) -> None:
    home = OwnerHome(clinic)
    entries = home.ledger(home.policy()).entries()
    assert found.spent is not None
    (life,) = found.spent.ceilings
    (plan,) = found.spent.plans
    spent = epsilons_of(spent_on(entries, "5d" * 32), Unit.EXAMPLE, 1e-5)
    assert (life.spent, life.allowed, life.accountant) == (spent.rdp, 10.0, "rdp")
    assert (plan.spent, plan.accountant) == (spent.prv, "prv")
    assert found.spent.head == entries[-1].hash.hex()
    assert len(found.spent.statements) == 1


def test_what_turned_out_by_another_way(clinic: Path, found: OwnerReport) -> None:
    observations = Observations(clinic / "state")
    seen = observations.since(labelled=True)
    observations.close()
    assert found.model is not None
    outcomes, sure = found.model.outcomes, found.model.sure
    assert outcomes is not None
    assert sure is not None
    right = seen.outputs.argmax(axis=1) == seen.targets
    assert outcomes.answers == 300
    assert outcomes.metrics["accuracy"] == pytest.approx(right.mean())
    assert outcomes.bar == pytest.approx(max(np.mean(seen.targets == 0), np.mean(seen.targets == 1)))
    logits = np.log(seen.outputs) * 1.5  # the version's temperature, taken out again
    raw = ClassificationSums.of(tempered(logits, 1.0), seen.targets.astype(np.int64)).metrics()["ece"]
    assert outcomes.raw_ece == pytest.approx(raw, abs=1e-6)
    assert sum(one.answers for one in outcomes.bins) <= 300
    assert min(one.answers for one in outcomes.bins) >= FEWEST
    assert sure.sure + sure.likely + sure.not_sure == pytest.approx(1.0)
    assert sure.answers == 400


def test_no_row_no_key_and_no_contact_is_in_any_of_it(clinic: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["report", str(clinic), "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert said.exit_code == 0
    texts = [said.stdout, *(file.read_text() for file in (tmp_path / "out").iterdir())]
    assert len(texts) == 4
    private = (clinic / "identity.pem").read_text().split("-----")[2].strip()
    for text in texts:
        for secret in (f"{SECRET_ROW:g}"[:6], "5ec4e7", private, "ada@ward"):
            assert secret not in text
    assert all(file.stat().st_mode & 0o077 == 0 for file in [tmp_path / "out", *(tmp_path / "out").iterdir()])


def test_same_folder_same_moment_same_bytes_and_json_reads_back(clinic: Path, found: OwnerReport) -> None:
    assert report_on(clinic).model_dump_json() == found.model_dump_json()
    assert OwnerReport.model_validate_json(found.model_dump_json()) == found


# What comes first.


def test_a_business_reads_a_forecast_with_its_interval(tmp_path: Path) -> None:
    shop(tmp_path)
    told = report_on(tmp_path).glance
    assert told.headline.startswith("The last 12 forecasts of sold average ")
    assert "the ranges in which the truth should lie, 90 times of 100, average" in told.headline
    assert len(told.numbers) <= 5
    assert told.left.startswith("Nothing: no round of a federation was taken part in")


def test_the_bar_is_of_the_same_rows(clinic: Path, found: OwnerReport, tmp_path: Path) -> None:
    assert "on 300 answers whose outcome you told; always giving the most frequent answer gets" in found.glance.headline
    make_home(tmp_path / "new")
    store_with(tmp_path / "new", clinic_versions()[1])
    said = report_on(tmp_path / "new").glance.headline
    assert said == (
        "Your model answers ill: 85 of 100 answers are right, on 40 of your rows that it was not trained on; "
        "always giving the most frequent answer gets 60."
    )


def test_of_a_few_answers_nothing_is_said(tmp_path: Path) -> None:
    make_home(tmp_path)
    version = make_version(1)
    store_with(tmp_path, version)
    observe(tmp_path, version, FEWEST - 1, told=FEWEST - 1)  # of classes
    model = report_on(tmp_path).model
    assert model is not None
    assert (model.sure, model.outcomes, model.forecast) == (None, None, None)


def test_two_forecasts_are_not_taken_together_and_three_are(tmp_path: Path) -> None:
    make_home(tmp_path)
    version = make_version(1, SHOP)
    store_with(tmp_path, version)
    observe(tmp_path, version, FEWEST_FORECASTS - 1, told=0)
    assert report_on(tmp_path).glance.headline.endswith("how well has not been measured.")
    observe(tmp_path, version, 1, told=0, seed=1)
    model = report_on(tmp_path).model
    assert model is not None
    assert model.forecast is not None
    assert (model.forecast.answers, model.sure) == (3, None)


def test_an_owner_without_anything_yet(tmp_path: Path) -> None:
    make_home(tmp_path)
    found = report_on(tmp_path)
    assert found.glance.headline == "No model of your own is in use yet."
    assert found.card is None
    filled = {line.id for line in found.rmf if line.evidence}
    assert filled == {"GOVERN 1.2", "GOVERN 1.4", "GOVERN 6.1", "MAP 1.5"}, "a policy is all there is"


def test_another_versions_evaluation_is_shown_and_claims_nothing(copy: Path) -> None:
    file = copy / "evaluation.json"
    other = json.loads(file.read_text())
    other["model"]["version"] = 1
    file.write_text(json.dumps(other))
    found = report_on(copy)
    assert found.evaluation_of_other
    assert not any(piece.kind is Kind.EVALUATION for line in found.rmf for piece in line.evidence)
    assert found.card is not None
    assert "new.csv" not in found.card.model_dump_json()


# Evidence.


def evidence_in(found: OwnerReport) -> dict[str, list[str]]:
    return {line.id: [piece.kind.value for piece in line.evidence] for line in found.rmf}


@pytest.mark.parametrize(
    ("removed", "lines"),
    [
        ("evaluation.json", {"MEASURE 2.1", "MEASURE 2.11", "MEASURE 2.7"}),
        ("models", OF_A_MODEL),  # the evaluation is of a model that is there no more
        ("data-card.toml", {"MAP 4.1"}),
        ("owner.log", {"MANAGE 4.3"}),
        ("approved", {"MAP 2.1", "MANAGE 1.4"}),
    ],
)
def test_removing_the_evidence_empties_the_line(copy: Path, found: OwnerReport, removed: str, lines: set[str]) -> None:
    before = evidence_in(found)
    assert all(before[line] for line in lines)
    path = copy / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    after = evidence_in(report_on(copy))
    assert {line for line in before if before[line] and not after[line]} == lines


def test_what_a_damaged_file_would_have_shown_is_no_evidence(copy: Path) -> None:
    (copy / "models" / "2" / "model.safetensors").write_bytes(b"junk")
    (copy / "evaluation.json").write_text("{}")
    (copy / "state" / "ledger.db").write_bytes(b"junk" * 1000)
    (copy / CARD_FILE).write_text("title = 1")
    found = report_on(copy)
    parts = [one.part for one in found.problems]
    assert parts == ["evaluation", "the model in use", "data card", "ledger"]
    after = evidence_in(found)
    assert not any(after[line] for line in ("MEASURE 2.1", "MEASURE 2.9", "MEASURE 2.10", "MAP 4.1"))
    assert found.glance.headline == "Version 2 of your own model is in use, and cannot be read."
    assert found.glance.left.startswith("Not known")
    assert found.glance.advice[-1] == f"Parts of the folder could not be read: {', '.join(parts)}."


def test_a_plan_that_is_not_what_its_name_says_is_no_evidence(copy: Path) -> None:
    (file,) = (copy / "approved").iterdir()
    file.write_text(dump_plan(private_plan("rounds.count=21")))
    found = report_on(copy)
    assert not evidence_in(found)["MAP 2.1"]
    assert (found.left[0].bytes_up, found.left[0].kinds) == (None, ())
    assert "not known, since no copy of the plan is kept" in found.glance.left


def test_a_roster_that_nobody_signed_is_no_evidence(copy: Path) -> None:
    (copy / "roster.json").write_text("{}")
    (copy / "federation.pub").write_text("1" * 64)
    found = report_on(copy)
    assert [one.part for one in found.problems] == ["roster"]
    assert evidence_in(found)["GOVERN 6.1"] == ["policy"]


@pytest.mark.parametrize("own", [True, False])
def test_roles_are_apart_only_with_another_key(copy: Path, own: bool) -> None:
    key = OwnerHome(copy).key() if own else Ed25519PrivateKey.generate()
    write_policy(copy / "policy.toml", f'pins.approvals="{key.public_key().public_bytes_raw().hex()}"')
    found = report_on(copy)
    assert bool(evidence_in(found)["GOVERN 2.1"]) != own
    assert ("one key for both" in found.roles["Operator of the node"]) == own


def test_without_the_policy_nobody_claims_that_nothing_left(copy: Path) -> None:
    (copy / "policy.toml").unlink()
    found = report_on(copy)
    assert [one.part for one in found.problems] == ["ledger"]
    assert found.glance.left.startswith("Not known")


def test_every_kind_bears_on_a_line_and_no_line_is_filled_by_another_kind() -> None:
    assert {kind for one in SUBCATEGORIES for kind in one.kinds} == set(Kind)
    assert not any(line.evidence for line in rmf_lines([]))
    for kind in Kind:
        filled = {line.id for line in rmf_lines([Evidence(kind=kind, says="a thing")]) if line.evidence}
        assert filled == {one.id for one in SUBCATEGORIES if kind in one.kinds}


def test_the_page_of_documentation_names_every_line_and_no_other() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    rows = "\n".join(re.findall(r"^\| ([A-Z][^|]*\d) \|", page, re.MULTILINE))
    named = {
        f"{function} {number}"
        for function, numbers in re.findall(r"(GOVERN|MAP|MEASURE|MANAGE)((?:,? \d\.\d+)+)", rows)
        for number in re.findall(r"\d\.\d+", numbers)
    }
    assert named == {one.id for one in SUBCATEGORIES}
    assert len(SUBCATEGORIES) == 30


def test_digests_are_of_the_files_as_they_are(clinic: Path, found: OwnerReport) -> None:
    pieces = [piece for line in found.rmf for piece in line.evidence if piece.file and not piece.file.endswith(".db")]
    assert len(pieces) > 10
    for piece in pieces:
        assert piece.file is not None
        assert piece.digest == hashlib.sha256((clinic / piece.file).read_bytes()).hexdigest(), piece.file


def test_an_empty_data_card_is_no_evidence_and_is_shown_empty(copy: Path) -> None:
    (copy / CARD_FILE).write_text('title = "Wards"\n')
    found = report_on(copy)
    assert not evidence_in(found)["MAP 4.1"]
    assert found.data_card is not None
    assert [part.facts for part in found.data_card.parts] == [()] * len(found.data_card.parts)


# The audit log.


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return audited_folder(audited_plan("rounds.cohort_size=5"), tmp_path_factory.mktemp("watched"))


def test_the_log_is_verified_while_the_report_is_made(watched: Path) -> None:
    found = report_on(watched)
    (log,) = found.logs
    assert (log.holds, log.rounds, log.receipts) == (True, 3, 2)
    assert evidence_in(found)["MEASURE 2.8"] == ["audit log", "receipts"]


def test_a_log_that_does_not_hold_is_said_to(watched: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(watched, tmp_path / "mine"))
    receipts = sorted(folder.glob("receipts/*/*.tlog-proof"))
    receipts[0].write_bytes(receipts[1].read_bytes()[:-10] + b"AAAAAAAA\n\n")
    found = report_on(folder)
    assert not found.logs[0].holds
    assert any("does not hold" in line for line in found.glance.advice)
    says = next(piece.says for line in found.rmf for piece in line.evidence if piece.kind is Kind.AUDIT_LOG)
    assert "DOES NOT HOLD" in says


# The command.


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["report", *map(str, words)])
    if isinstance(result.exception, UsageError):
        raise result.exception
    return result.exit_code, result.stdout


def test_json_is_the_report_and_nothing_else(clinic: Path, tmp_path: Path) -> None:
    status, said = run(clinic, "--out", tmp_path, "--json")
    assert status == 0
    assert OwnerReport.model_validate_json(said).owner == "ada"


def not_a_folder(folder: Path) -> tuple[object, ...]:
    return (folder / "nowhere",)


def not_an_owners(folder: Path) -> tuple[object, ...]:
    (folder / "empty").mkdir()
    return (folder / "empty",)


def no_evaluation(folder: Path) -> tuple[object, ...]:
    return folder, "--evaluation", folder / "missing.json"


def not_an_evaluation(folder: Path) -> tuple[object, ...]:
    (folder / "other.json").write_text('{"version": 1}')
    return folder, "--evaluation", folder / "other.json"


@pytest.mark.parametrize("fault", [not_a_folder, not_an_owners, no_evaluation, not_an_evaluation])
def test_bad_input_leaves_the_last_report_as_it_was(copy: Path, fault: Callable[[Path], tuple[object, ...]]) -> None:
    out = copy / "report"
    out.mkdir()
    (out / "report.json").write_text("the last one")
    with pytest.raises(UsageError) as told:
        run(*fault(copy), "--out", out)
    assert told.value.remedy
    assert [file.name for file in out.iterdir()] == ["report.json"]
    assert (out / "report.json").read_text() == "the last one"


def test_a_place_that_cannot_be_written(clinic: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        run(clinic, "--out", tmp_path / "file" / "in")
