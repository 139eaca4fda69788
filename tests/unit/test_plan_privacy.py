"""A plan's privacy of whole clients and of scores: what no account covers is refused, with what to write instead."""

from __future__ import annotations

import pytest

from helpers import make_plan
from testudo_common.errors import PlanError

EXAMPLE = 'privacy.unit="example"'
SECURE = ('secure_aggregation.mode="secure"', "rounds.cohort_size=10")

# (what is wrong, changes that are wrong, the key of the one fault, a word of it, changes that are right)
CASES: list[tuple[str, list[str], str, str, list[str]]] = [
    (
        "noise on scores that are not private",
        ["evaluation.federated_every_rounds=5", "evaluation.federated_noise_multiplier=2"],
        "evaluation.federated_noise_multiplier",
        "hides nothing",
        ["evaluation.federated_every_rounds=5"],
    ),
    (
        "noise on scores that nobody asks for",
        ["evaluation.federated_noise_multiplier=2"],
        "evaluation.federated_noise_multiplier",
        "never asked for",
        [],
    ),
    (
        "client-level privacy in the open",
        ["client_privacy.epsilon=8", 'secure_aggregation.mode="plain"'],
        "client_privacy",
        "inside a secure sum",
        ["client_privacy.epsilon=8"],
    ),
    (
        "client-level privacy twice",
        ["client_privacy.epsilon=8", "client_privacy.noise_multiplier=1"],
        "client_privacy.epsilon",
        "both",
        ["client_privacy.noise_multiplier=1"],
    ),
    (
        "clipping that follows what nothing hides",
        ['client_privacy.clipping="adaptive"'],
        "client_privacy.clipping",
        "exact counts",
        ['client_privacy.clipping="adaptive"', "client_privacy.epsilon=8"],
    ),
    (
        "counts that spend it all",
        ['client_privacy.clipping="adaptive"', "client_privacy.noise_multiplier=2", "client_privacy.count_noise=1"],
        "client_privacy.count_noise",
        "more than the whole",
        ['client_privacy.clipping="adaptive"', "client_privacy.noise_multiplier=2"],
    ),
    (
        "weights under client-level privacy",
        ["client_privacy.epsilon=8", "secure_aggregation.max_weight=4"],
        "secure_aggregation.max_weight",
        "not covered",
        ["client_privacy.epsilon=8"],
    ),
    (
        "scores under client-level privacy",
        ["client_privacy.epsilon=8", "evaluation.federated_every_rounds=5"],
        "evaluation.federated_every_rounds",
        "a whole client",
        ["client_privacy.epsilon=8"],
    ),
    (
        "scores under privacy",
        [EXAMPLE, "privacy.epsilon=8", "evaluation.federated_every_rounds=5"],
        "evaluation.federated_every_rounds",
        "no noise",
        [EXAMPLE, "privacy.epsilon=8"],
    ),
]


@pytest.mark.parametrize(
    ("wrong", "key", "word", "right"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_refused_with_what_to_write_instead(wrong: list[str], key: str, word: str, right: list[str]) -> None:
    with pytest.raises(PlanError) as caught:
        make_plan(*SECURE, *wrong)
    ((found, problem),) = [(fault.key, fault.problem) for fault in caught.value.faults]
    assert found == key
    assert word in problem
    make_plan(*SECURE, *right)
