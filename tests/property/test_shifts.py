"""Named shifts: what they leave alone, what no severity does, and what each is said to do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from own_models import CLINIC, SHOP, clinic_table, plan_of, shop_table
from testudo_client.data import examples_of_rows
from testudo_common.errors import DataError
from testudo_common.learning.columns import InputColumn, columns_of_table, input_columns
from testudo_common.learning.shifts import SHIFTS
from testudo_common.learning.tasks import Examples
from testudo_common.plan.sections import TableData

NOTHING = {"noise": 0.0, "scale": 1.0, "spread": 1.0, "mean_shift": 0.0, "missing": 0.0, "swap": 0.0}
CLINIC_COLUMNS = input_columns(plan_of(CLINIC))
SHOP_COLUMNS = input_columns(plan_of(SHOP))


def clinic(rows: int = 60) -> Examples:
    data = plan_of(CLINIC).data
    assert isinstance(data, TableData)
    return examples_of_rows(data, "classification", clinic_table(rows))


def shop() -> Examples:
    data = plan_of(SHOP).data
    assert isinstance(data, TableData)
    return examples_of_rows(data, "regression", shop_table())


def test_columns_say_where_the_inputs_of_a_table_lie() -> None:
    assert [(one.name, one.start, one.stop) for one in CLINIC_COLUMNS] == [
        ("age", 0, 1),
        ("pressure", 1, 3),
        ("ward", 3, 5),
    ]
    table = shop_table()
    price = SHOP_COLUMNS[0]
    assert np.allclose(price.in_own_unit(shop().inputs[:, price.values])[:, 0], table.numbers("price"), rtol=1e-5)


@given(name=st.sampled_from(sorted(NOTHING)), seed=st.integers(0, 1000))
def test_a_shift_of_no_severity_changes_nothing(name: str, seed: int) -> None:
    before = clinic()
    after = SHIFTS[name](before, CLINIC_COLUMNS, np.random.default_rng(seed), NOTHING[name])
    assert np.allclose(after.inputs, before.inputs, atol=1e-5)
    assert np.array_equal(after.targets, before.targets)


@given(name=st.sampled_from(sorted(SHIFTS)), seed=st.integers(0, 1000))
def test_a_shift_keeps_the_shape_and_what_it_was_given(name: str, seed: int) -> None:
    before = clinic()
    kept = before.inputs.copy()
    after = SHIFTS[name](before, CLINIC_COLUMNS, np.random.default_rng(seed))
    assert after.inputs.shape == before.inputs.shape
    assert after.inputs.dtype == np.float32
    assert np.isfinite(after.inputs).all()
    assert np.array_equal(before.inputs, kept)
    ward = after.inputs[:, 3:5]
    assert np.array_equal(np.sort(ward, axis=1), np.tile([0.0, 1.0], (len(ward), 1)))  # one category a row, still


def test_empty_cells_stay_empty_under_noise() -> None:
    before = clinic()
    before.inputs[:20, 1:3] = [0.0, 1.0]
    after = SHIFTS["noise"](before, CLINIC_COLUMNS, np.random.default_rng(0))
    assert np.array_equal(after.inputs[:20, 1:3], before.inputs[:20, 1:3])
    assert not np.array_equal(after.inputs[20:, 1], before.inputs[20:, 1])


def test_scale_is_in_the_columns_own_unit() -> None:
    price = SHOP_COLUMNS[:1]
    after = SHIFTS["scale"](shop(), price, np.random.default_rng(0), 1.2)
    assert np.allclose(price[0].in_own_unit(after.inputs[:, :1])[:, 0], 1.2 * shop_table().numbers("price"), rtol=1e-5)


def test_swap_puts_two_numbers_into_each_others_place_in_their_own_units() -> None:
    before = clinic()
    columns = CLINIC_COLUMNS[:2]
    after = SHIFTS["swap"](before, columns, np.random.default_rng(0))
    age, pressure = (one.in_own_unit(before.inputs[:, one.values]) for one in columns)
    new_age, new_pressure = (one.in_own_unit(after.inputs[:, one.values]) for one in columns)
    assert np.allclose(new_age, pressure, rtol=1e-5)
    assert np.allclose(new_pressure, age, rtol=1e-5)


def test_missing_codes_a_cell_as_empty_where_it_may_be_and_else_as_the_mean() -> None:
    before = clinic()
    coded = SHIFTS["missing"](before, CLINIC_COLUMNS[1:2], np.random.default_rng(0), 1.0)
    assert np.array_equal(coded.inputs[:, 1:3], np.tile(np.float32([0.0, 1.0]), (60, 1)))
    meant = SHIFTS["missing"](before, CLINIC_COLUMNS[:1], np.random.default_rng(0), 1.0)
    assert np.allclose(meant.inputs[:, 0], before.inputs[:, 0].mean())


def test_labels_changes_how_often_a_class_comes_and_no_row() -> None:
    before = clinic(400)
    after = SHIFTS["labels"](before, CLINIC_COLUMNS, np.random.default_rng(0), 9.0)
    rows = {(*row, target) for row, target in zip(before.inputs.tolist(), before.targets.tolist(), strict=True)}
    assert {(*row, target) for row, target in zip(after.inputs.tolist(), after.targets.tolist(), strict=True)} <= rows
    assert max(np.bincount(after.targets)) / len(after) > 0.8


def test_what_is_no_table_is_one_column_an_input_and_an_image_one() -> None:
    image = InputColumn("image", 0, width=16)
    pictures = Examples(np.random.default_rng(0).random((5, 1, 4, 4), dtype=np.float32), np.zeros(5, dtype=np.int64))
    after = SHIFTS["noise"](pictures, [image], np.random.default_rng(1))
    assert after.inputs.shape == (5, 1, 4, 4)
    with pytest.raises(DataError, match="needs 2 columns of numbers"):
        SHIFTS["swap"](pictures, [image], np.random.default_rng(1))
    assert columns_of_table(()) == ()
