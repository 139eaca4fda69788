"""The policy of watching: each edge, what holds on every path, and that each state survives being written down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from testudo_client.watching.policy import (
    Adapted,
    Answered,
    Checked,
    Due,
    Event,
    Proposed,
    State,
    Steady,
    Step,
    Warned,
    after,
)

FINE, DRIFT, WORSE = Checked(False, False), Checked(True, None), Checked(True, True)
SILENT = Checked(False, None)
STATES: TypeAdapter[State] = TypeAdapter(State)


@pytest.mark.parametrize(
    ("state", "event", "then", "step"),
    [
        (Steady(), FINE, Steady(), Step.NOTHING),
        (Steady(), DRIFT, Warned(flags=1), Step.WARN),
        (Steady(), Checked(True, False), Warned(flags=1), Step.WARN),
        (Steady(), WORSE, Due(flags=1), Step.READAPT),
        (Steady(), Checked(False, True), Due(flags=1), Step.READAPT),
        (Warned(flags=1), SILENT, Steady(), Step.NOTHING),
        (Warned(flags=1), DRIFT, Warned(flags=2), Step.WARN),
        (Warned(flags=2), DRIFT, Proposed(flags=3, number=8), Step.PROPOSE),
        (Warned(flags=1), WORSE, Due(flags=2), Step.READAPT),
        (Due(flags=1), FINE, Steady(), Step.NOTHING),
        (Due(flags=1), SILENT, Due(flags=1), Step.READAPT),
        (Due(flags=1), DRIFT, Due(flags=2), Step.READAPT),
        (Due(flags=1), Checked(True, False), Warned(flags=2), Step.WARN),
        (Due(flags=1), Adapted(True), Steady(), Step.NOTHING),
        (Due(flags=1), Adapted(False), Proposed(flags=1, number=8), Step.PROPOSE),
        (Warned(flags=1), Adapted(False), Warned(flags=1), Step.NOTHING),
        (Steady(), Adapted(False), Steady(), Step.NOTHING),
        (Proposed(flags=3, number=7), WORSE, Proposed(flags=4, number=7), Step.PROPOSE),
        (Proposed(flags=3, number=7), FINE, Proposed(flags=0, number=7), Step.PROPOSE),
        (Proposed(flags=3, number=7), Adapted(False), Proposed(flags=3, number=7), Step.NOTHING),
        (Proposed(flags=3, number=7), Adapted(True), Steady(), Step.NOTHING),
        (Proposed(flags=3, number=7), Answered(), Steady(), Step.NOTHING),
        (Steady(), Answered(), Steady(), Step.NOTHING),
    ],
)
def test_every_edge(state: State, event: Event, then: State, step: Step) -> None:
    assert after(state, event, 3, 7) == (then, step)


EVENTS = st.one_of(
    st.builds(Checked, st.booleans(), st.sampled_from([None, True, False])),
    st.builds(Adapted, st.booleans()),
    st.just(Answered()),
)


@given(events=st.lists(EVENTS, max_size=30), many=st.integers(1, 6))
def test_on_every_path_nothing_is_proposed_twice_or_without_a_cause(events: list[Event], many: int) -> None:
    state: State = Steady()
    proposals = flags = 0
    for event in events:
        before = state
        state, _ = after(before, event, many, proposals)
        assert STATES.validate_json(STATES.dump_json(state)) == state
        if isinstance(state, Proposed) and not isinstance(before, Proposed):
            flags = before.flags + (isinstance(event, Checked) and event.flagged)
            assert flags >= many or (isinstance(before, Due) and isinstance(event, Adapted))
            assert state.number == proposals + 1
            proposals += 1
        if isinstance(before, Proposed) and not isinstance(state, Proposed):
            assert isinstance(event, Answered) or event == Adapted(True)
        if isinstance(state, Steady) and isinstance(event, Checked):
            assert not event.flagged
