"""Own models: contract, versions, personalizer and observations."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from own_models import CLINIC_ROWS, NOON, SHOP, SHOP_ROWS, clinic_table, make_version, plan_of, store_with
from testudo_client.data import examples_of_rows
from testudo_client.observations import Observations
from testudo_client.personal.contract import FeatureContract
from testudo_client.personal.personalizer import Personalizer
from testudo_common.errors import ContractError, UsageError
from testudo_common.plan.sections import TableData


def test_a_request_and_a_training_row_become_the_same_input() -> None:
    version, table = make_version(), clinic_table()
    data = version.own.plan.data
    assert isinstance(data, TableData)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    asked = [{"age": float(row["age"]), "pressure": float(row["pressure"]), "ward": row["ward"]} for row in rows]
    expected = examples_of_rows(data, "classification", table).inputs
    np.testing.assert_array_equal(version.contract.encode(asked), expected)


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"age": None}, "age", "missing"),
        ({"age": "30"}, "age", "not a number"),
        ({"age": True}, "age", "not a number"),
        ({"age": math.nan}, "age", "not a finite number"),
        ({"age": math.inf}, "age", "not a finite number"),
        ({"age": 10**400}, "age", "not a finite number"),
        ({"age": 4000.0}, "age", "out of its range"),
        ({"ward": "north"}, "ward", "not one of its categories"),
        ({"ward": 3}, "ward", "not one of its categories"),
        ({"Age": 30.0}, "Age", "not a field of the contract"),
    ],
)
def test_a_broken_request_names_the_field(change: dict[str, object], field: str, problem: str) -> None:
    contract = make_version().contract
    with pytest.raises(ContractError) as refused:
        contract.encode([CLINIC_ROWS[0], {**CLINIC_ROWS[0], **change}])  # type: ignore[dict-item]
    assert refused.value.row == 1
    assert [(fault.key, fault.problem) for fault in refused.value.faults] == [(field, problem)]


def test_a_contract_has_one_digest_and_another_when_a_range_changes() -> None:
    contract = make_version().contract
    again = FeatureContract.model_validate_json(contract.model_dump_json())
    assert again == contract and again.digest == contract.digest
    wider = contract.fields[0].model_copy(update={"high": 1e6})
    assert contract.model_copy(update={"fields": (wider, *contract.fields[1:])}).digest != contract.digest


def test_a_version_is_read_as_it_was_written_and_rolled_back(tmp_path: Path) -> None:
    first, second = make_version(1), make_version(2, sharpness=2.0)
    store = store_with(tmp_path, first, second)
    assert store.ids() == [1, 2] and store.current_id() == 2 and store.before_current() == 1
    read = store.load(2)
    assert read.record.model_copy(update={"files": {}}) == second.record
    assert (read.contract, read.own) == (second.contract, second.own)
    np.testing.assert_array_equal(read.own.parameters, second.own.parameters)
    np.testing.assert_array_equal(read.own.conformal.scores, second.own.conformal.scores)
    with store.changing():
        store.use(1, "rolled back", NOON)
    assert store.current_id() == 1 and store.before_current() is None


@pytest.mark.parametrize("name", ["model.safetensors", "contract.json"])
def test_a_version_that_was_changed_is_refused(tmp_path: Path, name: str) -> None:
    store = store_with(tmp_path, make_version(1))
    file = tmp_path / "models/1" / name
    file.write_bytes(file.read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(UsageError, match="damaged"):
        store.current()


def test_answers_say_how_sure_they_are() -> None:
    own = Personalizer(make_version())
    for one in own.predict(CLINIC_ROWS):
        assert one.label in {"no", "yes"} and sum(one.probabilities.values()) == pytest.approx(1, abs=1e-6)
        assert (one.sure == "sure") == (one.possible == (one.label,))


def test_an_interval_of_a_logarithmic_target_is_around_the_value_and_above_zero() -> None:
    version = make_version(tables=SHOP)
    for one in Personalizer(version).predict(SHOP_ROWS):
        assert one.value is not None and one.low is not None and one.high is not None
        assert 0 < one.low < one.value < one.high
        assert one.value**2 == pytest.approx(one.low * one.high)
    assert plan_of(SHOP).digest == version.record.plan_digest


def test_observations_come_back_with_their_outcomes(tmp_path: Path) -> None:
    kept = Observations(tmp_path, most=3)
    inputs, outputs = np.arange(8, dtype=np.float32).reshape(4, 2), np.eye(4, 2, dtype=np.float32)
    kept.add(1, ["a", "b", "c", None], inputs, outputs)
    assert not kept.tell("a", 1.0), "the oldest is gone"
    assert kept.tell("c", 1.0) and not kept.tell("x", 1.0)
    found = kept.since()
    np.testing.assert_array_equal(found.inputs, inputs[1:])
    np.testing.assert_array_equal(found.outputs, outputs[1:])
    np.testing.assert_array_equal(found.targets, [np.nan, 1.0, np.nan])
    assert kept.since(found.last).last == 0
    assert len(kept.since(labelled=True).targets) == 1
    assert (tmp_path / "observations.db").stat().st_mode & 0o777 == 0o600
    kept.close()
