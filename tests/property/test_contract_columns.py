"""A row is read the same way alone and among others: column by column is only faster."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from own_models import CLINIC, SHOP, make_version
from testudo_common.errors import ContractError

ODD = st.one_of(
    st.none(), st.booleans(), st.text(max_size=4), st.floats(), st.integers(),
    st.sampled_from([10**400, -(10**400), "east", 1e39]),
)  # fmt: skip


def rows_of(good: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Mostly good ones, a few with a field that is odd, unknown or left out."""
    fine = st.fixed_dictionaries(good)
    odd = st.tuples(fine, st.sampled_from([*good, "other"]), ODD).map(lambda one: {**one[0], one[1]: one[2]})
    without = st.tuples(fine, st.sampled_from([*good])).map(
        lambda one: {k: v for k, v in one[0].items() if k != one[1]}
    )
    several = st.lists(fine, min_size=8, max_size=20)
    return several | st.tuples(several, st.lists(odd | without, max_size=2)).map(lambda two: two[0] + two[1])


PATIENTS = rows_of(
    {
        "age": st.floats(-40, 150) | st.integers(0, 120),
        "pressure": st.none() | st.floats(30, 200),
        "ward": st.sampled_from(["east", "west"]),
    }
)
WEEKS = rows_of({"price": st.floats(0.5, 5.0) | st.integers(1, 5), "display": st.floats(-0.5, 1.5)})


def check(tables: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    contract = make_version(tables=tables).contract
    alone: list[Any] = []
    for place, row in enumerate(rows):
        try:
            alone.append(contract.encode([row]))
        except ContractError as error:
            alone.append((place, error.faults))
    first = next((one for one in alone if isinstance(one, tuple)), None)
    try:
        together = contract.encode(rows)
    except ContractError as error:
        assert (error.row, error.faults) == first
    else:
        assert first is None
        np.testing.assert_array_equal(together, np.concatenate(alone))


@settings(max_examples=50)
@given(PATIENTS)
def test_patients_are_read_alike_alone_and_together(rows: list[dict[str, Any]]) -> None:
    check(CLINIC, rows)


@settings(max_examples=50)
@given(WEEKS)
def test_weeks_with_a_logarithm_are_read_alike_alone_and_together(rows: list[dict[str, Any]]) -> None:
    check(SHOP, rows)
