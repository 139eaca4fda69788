"""A server that shows two histories: how many colluders it needs, by playing every split and by the formula."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testudo_common.audit.checkpoints import colluders_found, default_quorum
from testudo_common.errors import AuditError, AuditFault
from testudo_simulations.split_views import (
    ForkedLog,
    Split,
    absent_allowed,
    chance_of_waiting,
    split,
    worst_split,
)

MOST = 12


@cache
def forked(witnesses: int) -> ForkedLog:
    return ForkedLog(witnesses)


def splits(witnesses: int, colluders: int) -> list[Split]:
    """Every split of the honest witnesses, by how many are shown each branch."""
    log = forked(witnesses)
    guilty, honest = log.names[:colluders], log.names[colluders:]
    return [split(log, honest[:one], honest[one:], guilty) for one in range(len(honest) + 1)]


@pytest.mark.parametrize("witnesses", range(1, MOST + 1))
def test_simulation_and_formula_agree_on_every_split(witnesses: int) -> None:
    for colluders in range(witnesses + 1):
        played = splits(witnesses, colluders)
        worst = worst_split(forked(witnesses), colluders)
        for quorum in range(1, witnesses + 1):
            outcomes = [one.under(quorum) for one in played]
            for one in outcomes:
                assert one.found == (min(one.honest) + colluders < quorum), one
                assert one.refusing == sum(count for count in one.honest if count + colluders < quorum)
            expected = colluders <= colluders_found(witnesses, quorum)
            assert all(one.found for one in outcomes) == expected
            assert worst.under(quorum).found == expected, "no split is harder to find than the worst"


def test_ten_witnesses_turn_where_the_formula_says() -> None:
    log = forked(10)
    assert [worst_split(log, colluders).under(7).found for colluders in range(6)] == [True] * 4 + [False] * 2
    assert [worst_split(log, colluders).under(6).found for colluders in range(3)] == [True, True, False]
    assert default_quorum(10) == 7
    assert colluders_found(10, 7) == 3
    three, four = (worst_split(log, colluders).under(7) for colluders in (3, 4))
    assert (three.cosignatures, three.accepted, three.refusing) == ((7, 6), (True, False), 3)
    assert (four.cosignatures, four.accepted, four.refusing) == ((7, 7), (True, True), 0)


@given(st.data())
def test_who_is_on_which_side_makes_no_difference(data: st.DataObject) -> None:
    witnesses = data.draw(st.integers(2, MOST))
    sides = data.draw(st.lists(st.sampled_from("ABCX"), min_size=witnesses, max_size=witnesses))  # X: absent
    quorum = data.draw(st.integers(1, witnesses))
    log = forked(witnesses)
    one, other, guilty = (
        [name for name, side in zip(log.names, sides, strict=True) if side == which] for which in "ABC"
    )
    found = split(log, one, other, guilty).under(quorum)
    assert found.cosignatures == (len(one) + len(guilty), len(other) + len(guilty))
    assert found.found == (min(found.cosignatures) < quorum)
    if len(guilty) <= colluders_found(witnesses, quorum):
        assert found.found


def test_honest_witness_cosigns_one_branch_only() -> None:
    log = forked(4)
    witness = log.witness(log.names[0])
    notes = [log.show(branch, log.names[1:], ()) for branch in (0, 1)]
    assert witness.cosign((b"one model",), notes[0]).name == log.names[0]
    for new in ((b"another model",), ()):
        with pytest.raises(AuditError, match="another history") as caught:
            witness.cosign(new, notes[1])
        assert caught.value.fault is AuditFault.SPLIT_VIEW
    assert log.cosigners(notes[0]) == set(log.names[1:])


@pytest.mark.parametrize(("witnesses", "quorum"), [(10, 7), (10, 6), (3, 3), (1, 1)])
def test_as_many_may_be_absent_as_the_quorum_leaves(witnesses: int, quorum: int) -> None:
    log = forked(witnesses)
    for absent in range(witnesses + 1):
        one_view = split(log, log.names[absent:], (), ()).under(quorum)
        assert one_view.accepted[0] == (absent <= absent_allowed(witnesses, quorum))


def test_rounds_wait_as_often_as_too_many_are_absent() -> None:
    assert chance_of_waiting(2, 2, 0.5) == pytest.approx(0.75)
    assert chance_of_waiting(2, 1, 0.5) == pytest.approx(0.25)
    assert chance_of_waiting(2, 2, 0.5, window=2) == pytest.approx(1 - 0.75**2), "absent twice in a row"
    assert chance_of_waiting(10, 7, 0.0) == 0
    assert chance_of_waiting(10, 7, 1.0) == 1
