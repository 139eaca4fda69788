"""What holds for every wish: choices are possible by counting again, and refusals name the nearest possible ones."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from robustness_oracle import by_counting, half_bad
from testudo_common.errors import PlannerError
from testudo_common.robustness import Wish, bad_rows, choose
from testudo_common.robustness.planner import hides, is_possible
from testudo_common.robustness.shares import share_of_count
from testudo_common.robustness.tails import groups_of

percents = st.integers(0, 49).map(lambda count: count / 100)
max_failures = st.sampled_from([1e-6, 1e-3, 1e-2, 0.2])


@st.composite
def wishes(draw: st.DrawFn, most: int) -> Wish:
    clients = draw(st.integers(1, most))
    return Wish(
        clients=clients,
        cohort=draw(st.integers(1, clients)),
        corruption=draw(percents),
        dropout=draw(percents),
        min_group=draw(st.sampled_from([1, 3, 3, 4, 4, 5, 7])),
        max_failure=draw(max_failures),
    )


@given(wishes(24))
@settings(max_examples=150, deadline=None)
def test_a_choice_is_possible_and_a_refused_wish_is_not(wish: Wish) -> None:
    """By counting placements: no float, no shortcut."""
    chances = {m: half_bad(groups_of(wish.cohort, m), wish.poisoned, wish.clients) for m in range(1, wish.cohort + 1)}
    robust = [m for m, chance in chances.items() if chance <= wish.max_failure]
    allowed = [m for m in robust if hides(wish, m)]
    try:
        choice = choose(wish)
    except PlannerError:
        assert not allowed
        return
    assert choice.group_size == min(allowed)
    assert choice.largest_group_size == max(robust)
    assert 2 * choice.f < choice.groups
    assert choice.spare_groups >= 0
    more = by_counting(groups_of(wish.cohort, choice.group_size), wish.poisoned, wish.clients)
    assert sum(more[choice.f + 1 :]) <= wish.max_failure
    assert choice.f == 0 or sum(more[choice.f :]) > wish.max_failure


@given(st.integers(1, 200), st.data(), percents, percents, max_failures)
@settings(max_examples=150, deadline=None)
def test_more_corruption_never_lowers_f(
    clients: int, data: st.DataObject, one: float, other: float, max_failure: float
) -> None:
    cohort = data.draw(st.integers(1, clients))
    group_size = data.draw(st.integers(1, cohort))
    low, high = (bad_rows(clients, cohort, share, group_size, max_failure) for share in sorted((one, other)))
    assert low <= high


@given(wishes(40))
@settings(max_examples=150, deadline=None)
def test_a_refusal_names_the_nearest(wish: Wish) -> None:
    """What is named is possible; whatever lies between it and the wish is not; and what is not named never is."""
    try:
        choose(wish)
        return
    except PlannerError as error:
        nearest = error.nearest
    between: dict[str, list[Wish]] = {
        "corruption": [
            replace(wish, corruption=share_of_count(bad, wish.clients)) for bad in range(wish.poisoned - 1, -1, -1)
        ],
        "min_group": [
            replace(wish, min_group=least) for least in [*range(wish.min_group - 1, 2, -1), 1] if wish.min_group > 1
        ],
        "cohort": [replace(wish, cohort=cohort) for cohort in range(wish.cohort + 1, wish.clients + 1)],
        "dropout": [replace(wish, dropout=count / 100) for count in range(round(100 * wish.dropout) - 1, -1, -1)],
    }
    for name, others in between.items():
        first = next((getattr(other, name) for other in others if is_possible(other)), None)
        assert nearest.get(name) == first, name
