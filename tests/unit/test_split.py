"""Which half an example falls into depends on it and on the key, and on no other example."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import make_examples
from testudo_client.split import KEY_BYTES, support_and_query
from testudo_common.learning.tasks import Examples

KEY = bytes(range(KEY_BYTES))


def rows_of(examples: Examples) -> list[bytes]:
    return [x.tobytes() + y.tobytes() for x, y in zip(examples.inputs, examples.targets, strict=True)]


@given(st.integers(0, 60), st.booleans(), st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_every_example_is_in_one_half_and_the_order_it_was_given_in_makes_no_difference(
    size: int, regression: bool, most: int, seed: int
) -> None:
    examples = make_examples(size, regression=regression)
    support, query = support_and_query(examples, KEY, size + 1)
    assert sorted(rows_of(support) + rows_of(query)) == sorted(rows_of(examples))
    shuffled = examples.take(np.random.default_rng(seed).permutation(size))
    again = support_and_query(shuffled, KEY, most)
    assert rows_of(again[0]) == rows_of(support)
    assert rows_of(again[1]) == rows_of(query)[:most], "fewer queries are the first ones"


def test_equal_examples_are_in_the_same_half() -> None:
    one = make_examples(8)
    twice = Examples(np.concatenate([one.inputs, one.inputs]), np.concatenate([one.targets, one.targets]))
    support, query = support_and_query(twice, KEY, 99)
    assert not set(rows_of(support)) & set(rows_of(query))


def test_one_example_more_displaces_one_query_at_most() -> None:
    examples, others = make_examples(40), make_examples(30, seed=1)
    _, query = support_and_query(examples, KEY, 10)
    displaced = set()
    for row in range(30):
        more = Examples(*(np.append(a, b[row : row + 1], axis=0) for a, b in (
            (examples.inputs, others.inputs), (examples.targets, others.targets)
        )))  # fmt: skip
        _, now = support_and_query(more, KEY, 10)
        left = set(rows_of(query)) - set(rows_of(now))
        assert len(left) <= 1 and len(set(rows_of(now)) - set(rows_of(query))) == len(left)
        displaced |= left
    assert displaced == {rows_of(query)[-1]}, "the last one, and never another"


def test_halves_are_about_equal_and_another_key_gives_others() -> None:
    examples = make_examples(2000)
    support, _ = support_and_query(examples, KEY, 2000)
    assert abs(len(support) - 1000) < 5 * np.sqrt(500)
    other, _ = support_and_query(examples, bytes(KEY_BYTES), 2000)
    assert 0.4 < len(set(rows_of(support)) & set(rows_of(other))) / len(support) < 0.6


def test_what_counts_first_is_no_sample_of_early_or_of_easy_examples() -> None:
    """The half and the order come from one HMAC: its first bit must not say what its order is."""
    examples = make_examples(4000)
    examples.inputs[:, 0] = np.arange(4000)
    _, query = support_and_query(examples, KEY, 512)
    assert abs(query.inputs[:, 0].mean() - 2000) < 5 * 4000 / np.sqrt(12 * 512)
