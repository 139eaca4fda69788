"""What everything is bound to: each part of it changes the context, and numbers that hide nobody are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from secure_round import terms_of
from testudo_common.errors import Breach, ProtocolError
from testudo_common.secagg.messages import Advertisement, DirectoryEntry
from testudo_common.secagg.quantize import Layout
from testudo_common.secagg.terms import Member, Parameters, group_context, members_of

TERMS = terms_of(["ada", "bob", "cyd"])
CHANGED: dict[str, Any] = {
    "federation": "another",
    "roster_digest": b"s" * 32,
    "plan_digest": b"q" * 32,
    "round_number": 2,
    "attempt": 1,
    "model_digest": b"n" * 32,
}


def test_the_context_depends_on_each_part() -> None:
    found = {replace(TERMS, **{name: value}).round_context for name, value in CHANGED.items()}
    found |= {TERMS.round_context, replace(TERMS, round_number=0, attempt=1).round_context}
    assert len(found) == len(CHANGED) + 2
    assert {len(context) for context in found} == {32}


def test_the_same_terms_have_the_same_context() -> None:
    """The roster's keys and the parameters enter by their digests alone: those of the roster and of the plan."""
    assert replace(TERMS).round_context == TERMS.round_context
    assert replace(TERMS, roster={}).round_context == TERMS.round_context


def test_the_roster_is_not_printed() -> None:
    """It may be long; it is no secret."""
    assert "ada" not in repr(TERMS)


def member(name: str, fill: int) -> Member:
    return Member(name, bytes((fill,)) * 32, bytes((fill + 1,)) * 32, bytes((fill + 2,)) * 32)


MEMBERS = (member("ada", 1), member("bob", 11), member("cyd", 21))


def test_a_groups_context_depends_on_each_part() -> None:
    context = TERMS.round_context
    ada, bob, cyd = MEMBERS
    found = {
        group_context(context, 0, MEMBERS),
        group_context(bytes(32), 0, MEMBERS),
        group_context(context, 1, MEMBERS),
        group_context(context, 0, (ada, bob)),
        group_context(context, 0, (ada, cyd, bob)),
        group_context(context, 0, (ada, bob, replace(cyd, client_id="eve"))),
        group_context(context, 0, (ada, bob, replace(cyd, channel_key=bytes(32)))),
        group_context(context, 0, (ada, bob, replace(cyd, mask_key=bytes(32)))),
        group_context(context, 0, (ada, bob, replace(cyd, seed_digest=bytes(32)))),
        group_context(context, 0, (ada, bob, replace(cyd, channel_key=cyd.mask_key, mask_key=cyd.channel_key))),
    }
    assert len(found) == 10


def test_members_stand_in_the_order_of_their_group() -> None:
    keys = [bytes((fill,)) * 32 for fill in range(4)]
    entries = {name: DirectoryEntry(name, Advertisement(*keys, bytes(64))) for name in ("ada", "bob", "cyd")}
    entries["cyd"] = DirectoryEntry("cyd", Advertisement(*reversed(keys), bytes(64)))
    assert members_of(entries, ("cyd", "ada")) == (Member("cyd", *keys[:0:-1]), Member("ada", *keys[:3]))


# Parameters.

PARAMETERS = Parameters(
    group_size=6,
    min_cohort=10,
    min_group=4,
    corruption=0.05,
    dropout=0.05,
    max_left_out=0.5,
    layout=Layout(10, 1.0, 16),
)


@pytest.mark.parametrize(
    ("min_group", "group_size", "min_cohort"), [(3, 3, 3), (3, 100, 3), (4, 4, 100), (100, 100, 100), (3, 200, 50)]
)
def test_numbers_that_fit_together(min_group: int, group_size: int, min_cohort: int) -> None:
    replace(PARAMETERS, min_group=min_group, group_size=group_size, min_cohort=min_cohort).check(100)


@pytest.mark.parametrize(
    ("min_group", "group_size", "min_cohort", "words"),
    [
        (2, 6, 10, "a sum of 2 does not hide its members"),
        (1, 1, 10, "a sum of 1 does not hide its members"),
        (0, 6, 10, "a sum of 0 does not hide its members"),
        (7, 6, 10, "groups of 6 cannot keep 7 survivors"),
        (3, 2, 10, "groups of 2 cannot keep 3 survivors"),
        (4, 6, 3, "a cohort of 100 cannot keep to 3 clients at the least"),
        (4, 6, 101, "a cohort of 100 cannot keep to 101 clients at the least"),
    ],
)
def test_numbers_that_hide_nobody(min_group: int, group_size: int, min_cohort: int, words: str) -> None:
    with pytest.raises(ProtocolError, match=words) as caught:
        replace(PARAMETERS, min_group=min_group, group_size=group_size, min_cohort=min_cohort).check(100)
    assert caught.value.breach is Breach.TOO_FEW
    assert caught.value.remedy


def test_the_budget_is_that_of_the_largest_group() -> None:
    """21 bits are enough for 1024 members: a group of 512 may grow to 1023, one of 513 to 1025."""
    parameters = replace(PARAMETERS, group_size=512, layout=Layout(10, 1.0, 21))
    parameters.check(10_000)
    larger = replace(parameters, group_size=513)
    with pytest.raises(ProtocolError) as caught:
        larger.check(10_000)
    assert caught.value.breach is Breach.RANGE
    larger.check(1024)  # a group is never larger than its cohort
