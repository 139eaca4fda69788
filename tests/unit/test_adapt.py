"""``testudo-client adapt``: from a table to a version in use, or a refusal that changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from own_models import CLINIC, NOON, SHOP, clinic_table, plan_of, shop_table, write_csv
from policies import policy_tables
from testudo_client.cli import app
from testudo_client.data import load_owner_examples
from testudo_client.home import OwnerHome
from testudo_client.personal.adapt_command import AdaptRequest, adapt, roll_back
from testudo_client.personal.adapting import candidates_for
from testudo_client.personal.few_shot import FewShot, first_shots, folds_of, out_of_fold
from testudo_client.personal.in_use import row_digests
from testudo_client.personal.personalizer import Personalizer
from testudo_client.personal.versions import VersionStore
from testudo_client.table import Table
from testudo_client.train import Mechanism
from testudo_common.errors import BudgetError, DataError, TestudoError, UsageError
from testudo_common.learning.learner import Learner
from testudo_common.learning.tasks import Examples
from testudo_common.publication import PublishedModel, read_published, write_published

PRIVATE = ("privacy.unit=example", "privacy.noise_multiplier=1.5", "privacy.accountant=rdp", "inner.sample_rate=0.2")


def published(tables: dict[str, Any], *settings: str) -> PublishedModel:
    """A meta-model that has learnt nothing."""
    plan = plan_of(tables, "evaluation.steps=40", *settings)
    return PublishedModel(plan, plan.rounds.count, Learner(plan).vector())


def asked(folder: Path, tables: dict[str, Any], table: Table, *settings: str, **more: Any) -> AdaptRequest:
    file = folder / "meta.safetensors"
    write_published(file, published(tables, *settings))
    return AdaptRequest(file, folder / "mine", write_csv(folder / "mine.csv", table), **more)


@pytest.mark.parametrize(("tables", "table"), [(CLINIC, clinic_table()), (SHOP, shop_table())], ids=["clinic", "shop"])
def test_a_table_becomes_a_version_that_beats_what_could_be_used_instead(
    tmp_path: Path, tables: dict[str, Any], table: Table
) -> None:
    request = asked(tmp_path, tables, table)
    record = adapt(request, NOON).record
    assert record.promoted and record.kind == "adapted" and record.stays and not record.private
    by_name = {one.name: one.loss for one in record.contenders}
    assert by_name["adapted"] < by_name["initialisation"] and by_name["adapted"] < by_name["majority"]
    version = VersionStore(request.folder).current()
    assert version.record == record
    examples = load_owner_examples(version.own.plan, request.data)
    assert record.rows_digest == row_digests(request.folder, examples)
    assert len(Personalizer(version).answerer.raw(examples.inputs)) == len(examples)


def test_the_same_table_again_is_not_better_than_itself(tmp_path: Path) -> None:
    request = asked(tmp_path, CLINIC, clinic_table())
    adapt(request, NOON)
    again = adapt(request, NOON).record
    assert not again.promoted and again.id == 2
    assert VersionStore(request.folder).current_id() == 1


def test_spoilt_targets_are_refused_and_what_is_in_use_stays(tmp_path: Path) -> None:
    request = asked(tmp_path, CLINIC, clinic_table())
    adapt(request, NOON)
    table = clinic_table(60, seed=3)
    flipped = tuple((*row[:-1], "no" if row[-1] == "yes" else "yes") for row in table.rows)
    rng = np.random.default_rng(0)
    mixed = tuple(flipped[i] if rng.random() < 0.5 else table.rows[i] for i in range(len(flipped)))
    write_csv(request.data, replace(table, rows=mixed))
    record = adapt(request, NOON).record
    assert not record.promoted and VersionStore(request.folder).current_id() == 1


def test_more_rows_lead_to_another_version_and_back(tmp_path: Path) -> None:
    request = asked(tmp_path, CLINIC, clinic_table(12, seed=5), stays_here=False)
    adapt(request, NOON)
    write_csv(request.data, clinic_table(160, seed=6))
    second = adapt(request, NOON).record
    contender = {one.name: one for one in second.contenders}["in_use"]
    assert second.promoted and contender.examples == 160, second.reason
    assert roll_back(request.folder, None, NOON).id == 1
    assert VersionStore(request.folder).current_id() == 1
    with pytest.raises(UsageError, match="no earlier version"):
        roll_back(request.folder, None, NOON)
    assert roll_back(request.folder, 2, NOON).id == 2


def test_every_example_is_scored_by_a_model_that_did_not_meet_it() -> None:
    """Its own target changes nothing in its answer out of fold."""
    model = published(CLINIC)
    plan, learner = model.plan, Learner(model.plan)
    rng = np.random.default_rng(0)
    examples = Examples(rng.normal(size=(12, 5)).astype(np.float32), (np.arange(12) % 2).astype(np.int64))
    few = FewShot.of(plan)
    raw = out_of_fold(learner, model.model, examples, few)
    for row in (0, 7):
        targets = examples.targets.copy()
        inputs = examples.inputs.copy()
        same_class = np.flatnonzero(targets == targets[row])
        other = next(i for i in same_class if folds_of(examples)[i] != folds_of(examples)[row])
        inputs[other] += 1.0
        changed = out_of_fold(learner, model.model, Examples(inputs, targets), few)
        assert not np.array_equal(changed[row], raw[row]), "it is adapted on the others"
        inputs = examples.inputs.copy()
        mate = next(i for i in range(12) if i != row and folds_of(examples)[i] == folds_of(examples)[row])
        inputs[mate] += 1.0
        changed = out_of_fold(learner, model.model, Examples(inputs, targets), few)
        np.testing.assert_array_equal(changed[row], raw[row])


def test_folds_hold_some_of_each_class_and_every_example_once() -> None:
    targets = np.array([0] * 7 + [1] * 3 + [2], dtype=np.int64)
    places = folds_of(Examples(np.zeros((11, 1), dtype=np.float32), targets))
    assert set(places) == set(range(5))
    assert max(np.bincount(places[:7])) == 2 and len(set(places[7:10])) == 3
    with pytest.raises(DataError, match="two examples"):
        folds_of(Examples(np.zeros((1, 1), dtype=np.float32), np.zeros(1, dtype=np.int64)))


def test_the_first_shots_leave_half_of_a_small_class_to_be_asked_about() -> None:
    plan = published(CLINIC).plan
    targets = np.array([0, 0, 0, 0, 1, 1, 1], dtype=np.int64)
    support, query = first_shots(Examples(np.arange(7, dtype=np.float32)[:, None], targets), 3, plan)
    assert support.inputs[:, 0].tolist() == [0, 1, 4, 5] and query.inputs[:, 0].tolist() == [2, 3, 6]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text.replace(",", ";"), "separated by"),
        (lambda text: text.replace("pressure", "blood"), "no column 'pressure'"),
        (lambda text: text.replace("\nc1,", "\nc1,old", 1), "column 'age'"),
        (lambda text: text.replace(",yes", ",no"), "one class"),
        (lambda text: "\n".join(text.splitlines()[:4]), "rows"),
    ],
    ids=["wrong separator", "missing column", "text in a number column", "one class", "three rows"],
)
def test_a_bad_table_is_explained_and_nothing_is_overwritten(tmp_path: Path, spoil: Any, said: str) -> None:
    request = asked(tmp_path, CLINIC, clinic_table())
    adapt(request, NOON)
    store = VersionStore(request.folder)
    before = {path: path.read_bytes() for path in request.folder.rglob("*") if path.is_file()}
    request.data.write_text(spoil(request.data.read_text()))
    arguments = ["adapt", str(request.meta_model), str(request.folder), "--data", str(request.data)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1 and isinstance(done.exception, TestudoError)
    assert said in str(done.exception) and str(request.data) in str(done.exception)
    assert {path: path.read_bytes() for path in request.folder.rglob("*") if path.is_file()} == before
    assert store.ids() == [1]


def test_ten_rows_are_enough_to_try() -> None:
    model = published(CLINIC)
    examples = Examples(np.random.default_rng(0).normal(size=(10, 5)).astype(np.float32), np.arange(10) % 2)
    assert len(candidates_for(model, examples, FewShot.of(model.plan))[0].losses) == 10


def test_a_private_plan_is_charged_and_says_what_it_cost(tmp_path: Path) -> None:
    home = OwnerHome(tmp_path / "mine")
    home.folder.mkdir()
    request = asked(tmp_path, CLINIC, clinic_table(), *PRIVATE, "privacy.noise_multiplier=1.2")
    _policy(home)
    record = adapt(request, NOON).record
    assert record.private and not record.stays and record.epsilon is not None and record.epsilon > 0
    summary = CliRunner().invoke(app, ["ledger", str(home.folder)])
    assert "adaptation" in summary.output, summary.output
    with pytest.raises(BudgetError):
        for _ in range(20):
            adapt(request, NOON)
    assert VersionStore(home.folder).next_id() < 22


def test_a_private_adaptation_makes_nothing_but_the_model_from_the_rows() -> None:
    model = published(CLINIC, *PRIVATE)
    examples = Examples(np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32), np.arange(20) % 2)
    own = candidates_for(model, examples, FewShot.of(model.plan), Mechanism.from_os(1.0, 1.0))[0].own
    assert own is not None
    assert own.temperature == 1.0 and len(own.conformal.scores) == 0


def test_under_a_private_plan_without_a_policy_nothing_is_trained(tmp_path: Path) -> None:
    request = asked(tmp_path, CLINIC, clinic_table(), *PRIVATE)
    with pytest.raises(TestudoError, match="policy"):
        adapt(request, NOON)
    kept = adapt(replace(request, stays_here=True), NOON).record
    assert kept.stays and kept.epsilon is None


def test_a_version_that_predicts_something_else_is_not_compared(tmp_path: Path) -> None:
    request = asked(tmp_path, SHOP, shop_table())
    adapt(request, NOON)
    write_published(request.meta_model, published(SHOP, "data.target_scale=2.0"))
    with pytest.raises(UsageError, match="scales it otherwise"):
        adapt(request, NOON)


def test_the_commands_say_what_is_in_use(tmp_path: Path) -> None:
    request = asked(tmp_path, CLINIC, clinic_table())
    adapting = ["adapt", str(request.meta_model), str(request.folder), "--data", str(request.data)]
    first = CliRunner().invoke(app, adapting)
    assert first.exit_code == 0 and "Version 1 is in use" in first.output and "no mirror" in first.output
    again = CliRunner().invoke(app, [*adapting, "--json"])
    assert again.exit_code == 3
    told = json.loads(again.stdout)
    assert told["promoted"] is False and "rows_digest" not in told and "losses" not in told
    listed = CliRunner().invoke(app, ["models", str(request.folder), "--json"])
    assert json.loads(listed.stdout)["in_use"] == 1
    assert "in use   1" in CliRunner().invoke(app, ["models", str(request.folder)]).output
    assert CliRunner().invoke(app, ["rollback", str(request.folder), "--to", "2"]).exit_code == 0
    assert CliRunner().invoke(app, ["rollback", str(request.folder), "--to", "9"]).exit_code == 1


@pytest.mark.parametrize("spoil", ["cut", "another file", "gone"])
def test_a_damaged_meta_model_is_refused(tmp_path: Path, spoil: str) -> None:
    file = tmp_path / "meta.safetensors"
    write_published(file, published(CLINIC))
    whole = file.read_bytes()
    match spoil:
        case "cut":
            file.write_bytes(whole[:-10])
        case "another file":
            file.write_bytes(b"{}")
        case _:
            file.unlink()
    with pytest.raises(UsageError):
        read_published(file)


def _policy(home: OwnerHome) -> None:
    import tomli_w

    home.policy_file.write_text(tomli_w.dumps(policy_tables()), encoding="utf-8")
