"""``testudo-client ledger``: what it shows, what it writes down, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ledger_cases import DATA, DELTA, OTHER_DATA, PLAN, STEP, SUM, ceiling, in_folder, reserve
from testudo_client.cli import app
from testudo_client.ledger import ANCHOR_FILE, Adopted, NewData, Purpose, Reserved
from testudo_client.ledger.planned import plan_ceilings, round_spending
from testudo_client.ledger.summary import summarise
from testudo_client.ledger_command import show
from testudo_common.errors import LedgerError, UsageError
from testudo_common.plan.load import load_plan
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.privacy.events import SampledGaussian, Spending, Unit

PLAN_TEXT = """
name = "shops"
[data]
federation = "csv"
client = "shop"
target = "sales"
target_center = 10.0
target_scale = 5.0
[[data.columns]]
name = "price"
center = 2.0
scale = 1.0
[task]
kind = "regression"
[model]
name = "linear"
[inner]
steps = 5
learning_rate = 0.1
sample_rate = 0.1
[rounds]
count = 10
cohort_size = 2
max_participations = 4
[secure_aggregation]
mode = "plain"
[privacy]
unit = "example"
epsilon = 4.0
delta = 1e-5
accountant = "rdp"
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A plan, a table, and an owner's folder."""
    (tmp_path / "plan.toml").write_text(PLAN_TEXT, encoding="utf-8")
    rows = "\n".join(f"{1 + number % 7},{number % 11}" for number in range(40))
    (tmp_path / "mine.csv").write_text(f"price,sales\n{rows}\n", encoding="utf-8")
    (tmp_path / "owner").mkdir(mode=0o700)
    return {name: str(tmp_path / name) for name in ("plan.toml", "mine.csv", "owner")}


def told(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["ledger", *arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert isinstance(answer, dict)
    return answer


def test_an_empty_ledger_is_shown(files: dict[str, str]) -> None:
    answer = told(files["owner"])
    assert (answer["entries"], answer["accounts"], answer["ceilings"], answer["rounds_left"]) == (1, [], [], None)
    shown = CliRunner().invoke(app, ["ledger", files["owner"]])
    assert "Nothing is spent." in shown.stdout


def test_both_epsilons_of_both_units_are_shown_for_data_and_plan(files: dict[str, str]) -> None:
    ledger = in_folder(Path(files["owner"]))
    reserve(ledger, spending=STEP + SUM)
    reserve(ledger, 2, fingerprint=OTHER_DATA)
    answer = told(files["owner"])
    assert answer["head"] == ledger.head.hex()
    accounts = {
        (line["fingerprint"] or line["plan_digest"], line["unit"]): line["epsilons"] for line in answer["accounts"]
    }
    assert set(accounts) == {(key, unit) for key in (DATA, OTHER_DATA, PLAN) for unit in ("example", "client")}
    for accountant in ("prv", "rdp"):
        twice = epsilon_of(STEP.times(2).example, DELTA, accountant)  # type: ignore[arg-type]
        once = epsilon_of(SUM.client, DELTA, accountant)  # type: ignore[arg-type]
        assert accounts[DATA, "example"][accountant] == accounts[PLAN, "example"][accountant] == twice
        assert accounts[DATA, "client"][accountant] == once
    words = CliRunner().invoke(app, ["ledger", files["owner"]], env={"COLUMNS": "160"}).stdout
    assert "20 at noise 1.1, rate 0.05" in words
    assert f"{accounts[DATA, 'example']['prv']:.4g}" in words
    assert f"{accounts[DATA, 'example']['rdp']:.4g}" in words


def test_how_many_more_rounds_of_a_plan_fit(files: dict[str, str]) -> None:
    plan = load_plan(Path(files["plan.toml"]))
    one = round_spending(plan)
    assert [limit.where for limit in plan_ceilings(plan)] == ["privacy.epsilon"]
    arguments = [files["owner"], "--plan", files["plan.toml"], "--data", files["mine.csv"]]
    assert told(*arguments)["rounds_left"] == 4
    ledger = in_folder(Path(files["owner"]))
    for number in (1, 2, 3):
        reserve(ledger, number, plan=plan.digest, spending=one)
    answer = told(*arguments)
    assert answer["rounds_left"] == 1
    assert answer["ceilings"][0]["rounds"] == 1
    assert answer["ceilings"][0]["spent"] == epsilon_of(one.times(3).example, plan.privacy.delta, "rdp")
    life = ceiling(epsilon_of(one.times(3).example, DELTA, "rdp") + 1e-9, where="life")
    found = summarise(ledger.entries(), [life], delta=DELTA, plan=plan)
    assert (found.rounds, found.rooms[0].rounds, found.fingerprint) == (0, 0, DATA)
    words = CliRunner().invoke(app, ["ledger", *arguments]).stdout
    assert "1 more rounds of shops fit." in words


def test_the_participations_of_a_plan_are_counted_too(files: dict[str, str]) -> None:
    plan = load_plan(Path(files["plan.toml"]), ["rounds.max_participations=2", "privacy.epsilon=4"])
    ledger = in_folder(Path(files["owner"]))
    for number in (1, 2):
        reserve(ledger, number, plan=plan.digest, spending=STEP.times(0))
    assert summarise(ledger.entries(), [], delta=DELTA, plan=plan).rounds == 0


def test_new_data_is_declared_and_counts_nothing_earlier(files: dict[str, str]) -> None:
    ledger = in_folder(Path(files["owner"]))
    reserve(ledger, spending=STEP.times(50))
    arguments = [files["owner"], "--plan", files["plan.toml"], "--data", files["mine.csv"]]
    before = told(*arguments)["fingerprint"]
    answer = told(*arguments, "--new-data", " the year 2027 only ")
    assert answer["fingerprint"] == before
    assert ledger.entries()[-1].content == NewData(before, "the year 2027 only")
    assert ledger.spent(before) == Spending()
    assert ledger.spent(DATA) == STEP.times(50)


@pytest.mark.parametrize("unit", list(Unit))
def test_what_was_spent_elsewhere_is_charged(unit: Unit, files: dict[str, str]) -> None:
    told(files["owner"], "--charge-elsewhere", "1.1,0.01,2000", "--unit", unit.value)
    ledger = in_folder(Path(files["owner"]))
    content = ledger.entries()[-1].content
    assert isinstance(content, Reserved)
    assert content.occasion.purpose is Purpose.ELSEWHERE
    assert content.spending.of(unit) == (SampledGaussian(1.1, 0.01, 2000),)
    assert ledger.spent(DATA).of(unit) == content.spending.of(unit), "of data nobody named, so of any"


def test_a_copied_folder_is_adopted_with_a_reason(files: dict[str, str]) -> None:
    owner = Path(files["owner"])
    reserve(in_folder(owner))
    (owner / ANCHOR_FILE).unlink()
    with pytest.raises(LedgerError, match="--adopt"):
        told(files["owner"])
    told(files["owner"], "--adopt", "a new computer")
    assert in_folder(owner).entries()[-1].content == Adopted("a new computer", 0, "")


def test_the_last_entries_or_all(files: dict[str, str]) -> None:
    ledger = in_folder(Path(files["owner"]))
    for number in range(30):
        reserve(ledger, number)
    assert [entry["index"] for entry in told(files["owner"])["shown"]] == list(range(11, 31))
    assert [entry["index"] for entry in told(files["owner"], "--last", "2")["shown"]] == [29, 30]
    assert told(files["owner"], "--last", "0")["shown"] == []
    assert len(told(files["owner"], "--all")["shown"]) == 31


def test_infinite_epsilon_is_shown_as_such(files: dict[str, str]) -> None:
    reserve(in_folder(Path(files["owner"])), spending=Spending(example=(SampledGaussian(0.0, 0.1, 1),)))
    assert told(files["owner"])["accounts"][0]["epsilons"] == {"prv": "infinite", "rdp": "infinite"}


def test_names_move_no_cursor(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    ledger = in_folder(Path(files["owner"]))
    reserve(ledger, plan_name="evil\x1b[2J[red]\nname")
    show(Path(files["owner"]), ledger=ledger)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "[red]" in "".join(shown.split())


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["--data", "mine.csv"], "--data"),
        (["--new-data", "x", "--plan", "plan.toml"], "--new-data"),
        (["--new-data", " ", "--plan", "plan.toml", "--data", "mine.csv"], "--new-data"),
        (["--charge-elsewhere", "1.1,0.01"], "--charge-elsewhere"),
        (["--charge-elsewhere", "a,b,c"], "--charge-elsewhere"),
        (["--charge-elsewhere", "1.1,2,10"], "--charge-elsewhere"),
        (["--charge-elsewhere", "inf,0.1,10"], "--charge-elsewhere"),
        (["--charge-elsewhere", "1.1,0.1,0"], "--charge-elsewhere"),
        (["--charge-elsewhere", "1,0.1,1", "--unit", "row"], "--unit"),
        (["--adopt", " "], "--adopt"),
        (["--delta", "0"], "--delta"),
    ],
)
def test_options_that_do_not_fit_are_refused_and_nothing_is_written(
    arguments: list[str], where: str, files: dict[str, str]
) -> None:
    length = len(in_folder(Path(files["owner"])))
    with pytest.raises(UsageError) as refused:
        told(files["owner"], *(files.get(argument, argument) for argument in arguments))
    assert refused.value.where == where
    assert len(in_folder(Path(files["owner"]))) == length


def test_no_ledger_is_begun_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        told(str(tmp_path / "typo"))
    assert not (tmp_path / "typo").exists()
