"""Whom a robust rule keeps outvoting: found among groups drawn anew, and nobody where all are honest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers import make_plan
from robust_rows import grouped_rounds
from testudo_server.robust import outvoted
from testudo_server.store import RoundRecord

FLIPS = 5
NAME = f"owner-{FLIPS:02d}"


def groups_of_three(rule: str | None = None) -> list[str]:
    listed = '["nnm", "trimmed_mean"]' if rule is None else f'["{rule}"]'
    return [
        "rounds.cohort_size=24",
        "robust_aggregation.corruption=0.05",
        "secure_aggregation.mode=secure",
        "secure_aggregation.group_size=3",
        "secure_aggregation.min_group=3",
        "secure_aggregation.dropout=0",
        f"robust_aggregation.rule={listed}",
    ]


# rule -> rounds after which a client that flips its sign, one of 24 in groups of 3, was named: measured for 30 seeds,
# always 6 under nnm + trimmed_mean and under caf, 9 to 36 under the median, which bars no row from every coordinate
NAMED_WITHIN = {None: 6, "caf": 6, "median": 36}


@pytest.mark.parametrize(("rule", "within"), NAMED_WITHIN.items(), ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_client_that_flips_its_sign_in_a_group_is_named_and_nobody_else(
    rule: str | None, within: int, seed: int
) -> None:
    records = grouped_rounds(make_plan(*groups_of_three(rule)), seed, count=within + 10, f=1, flips=FLIPS)
    assert outvoted(records[:3]) == (), "three rounds are not enough for anything"
    assert NAME in outvoted(records[:within])
    assert outvoted(records) == (NAME,)


@pytest.mark.parametrize("rule", NAMED_WITHIN, ids=str)
def test_honest_federation_names_nobody(rule: str | None) -> None:
    plan = make_plan(*groups_of_three(rule))
    found = [outvoted(grouped_rounds(plan, 1000 + seed, count=30, f=1, d=40)) for seed in range(25)]
    assert found == [()] * 25


def test_rule_that_is_run_against_nobody_outvotes_nobody() -> None:
    """Then what is left out is no matter of being bad."""
    records = grouped_rounds(make_plan(*groups_of_three()), 0, count=8, f=1, flips=FLIPS)
    assert outvoted(records) == (NAME,)
    assert outvoted(replace(record, withstood=0) for record in records) == ()
    assert outvoted([]) == ()


def test_less_than_half_of_an_even_share_is_little_and_half_is_not() -> None:
    def records(share: float) -> list[RoundRecord]:
        found = grouped_rounds(make_plan(*groups_of_three()), 0, count=12, f=1)
        return [
            replace(
                record,
                influence=tuple(
                    (members, share if NAME in members else (1 - share) / 7) for members, _ in record.influence
                ),
            )
            for record in found
        ]

    assert outvoted(records(0.0624)) == (NAME,)
    assert outvoted(records(0.0625)) == ()
