"""Scores of a round at the server: exact or with the noise that the secure sums really carry, and said as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import CLASSIFICATION, make_examples, make_plan, without_noise
from secure_federation import Falling, Members, exchange_of, names_of, request_of, secure_plan
from testudo_client.participant import Participant
from testudo_client.store import ClientMemory
from testudo_common.secure_terms import metric_counts_of
from testudo_common.wire import TrainRequest
from testudo_server.coordinator import Coordinator
from testudo_server.exchange import Collected, GroupMean, GroupRecord
from testudo_server.scores import RoundScores, _noise_of, scores_of
from testudo_server.store import RunStore

TEN = names_of(10)
SECURE = {
    **CLASSIFICATION,
    "rounds": {"count": 8, "cohort_size": 10},
    "secure_aggregation": {"mode": "secure", "group_size": 5, "min_group": 3},
}
SCORED = ("evaluation.federated_every_rounds=1",)
NOISY = (*SCORED, "privacy.unit=example", "privacy.noise_multiplier=0", "evaluation.federated_noise_multiplier=2.0")


def members_of(*settings: str, size: int = 60) -> Members:
    """Their training is deterministic, so that only the sum's own noise is random."""
    plan = make_plan(*settings, tables=SECURE)
    more: dict[str, Any] = {} if plan.privacy.unit == "none" else {"mechanism": without_noise}
    return Members(plan, TEN, examples=lambda place: make_examples(size, seed=place), **more)


def exact_counts(members: Members, collected: Collected) -> Any:
    """What the clients that were summed put in."""
    summed = [name for group in collected.groups for name in group.members]
    return sum(members.make(name)._counts_for(request_of(members)) for name in summed)


def collect(members: Members, when: Any = None) -> Collected:
    exchange, _ = exchange_of(members, Falling(members.participants, when or {}))
    return exchange.group_means(request_of(members), TEN)


# --- the noise


class Quick(Participant):
    """Counts the same each time and does not train, so that a test can look at many sums."""

    def _counts_for(self, request: TrainRequest) -> Any:
        counts = metric_counts_of(self.plan)
        own = np.arange(2 * counts.size) % 7 + len(self.client_id)
        return own.astype(np.int64)

    def _update_for(self, request: TrainRequest) -> Any:
        update = np.zeros(self._learner.size, dtype=np.float32)
        self._store.save(self.plan_digest, ClientMemory(request.round, request.model_digest, update))
        return update


@pytest.mark.parametrize("when", [{}, {TEN[0]: ("Deliveries", False)}], ids=["all", "one drops out"])
def test_noise_on_opened_sums_is_what_is_said_and_not_less_than_the_plans(when: Any) -> None:
    plan = make_plan(*NOISY, tables=SECURE)
    sigma, found = np.tile(metric_counts_of(plan).noise(2.0), 2), []
    for _ in range(12):
        members = Members(plan, TEN, kinds=dict.fromkeys(TEN, Quick))
        collected = collect(members, when)
        found.append((collected.counts - exact_counts(members, collected)) / sigma)
    spread = float(np.std(np.concatenate(found)))  # of 1200 draws: known to 2 %
    assert abs(float(np.mean(np.concatenate(found)))) < 5 * spread / np.sqrt(1200)
    sizes = [len(group.members) for group in collected.groups]
    honest = 3  # of five, one may drop out and one be corrupt
    assert spread == pytest.approx(np.sqrt(sum(size / honest for size in sizes)), rel=0.1)
    assert spread > np.sqrt(len(sizes)), "each group's sum has the plan's noise from its honest survivors alone"
    np.testing.assert_allclose(_noise_of(plan, 1, collected), sigma[:50] * np.sqrt(sum(sizes) / honest))


def test_two_attempts_at_one_round_have_other_noise() -> None:
    """Or their difference would be exact."""
    one, other = (collect(members_of(*NOISY, size=4)).counts for _ in range(2))
    assert (one != other).mean() > 0.9


def test_scores_under_noise_are_about_the_exact_ones_and_say_how_far_off() -> None:
    exact = scores_of((plain := members_of(*SCORED, size=200)).plan, 1, collect(plain))
    noisy = members_of(*NOISY, size=200)
    collected = collect(noisy)
    found = scores_of(noisy.plan, 1, collected)
    assert exact.noise == {}
    for when in ("before", "after"):
        assert 0 < found.noise[when]["accuracy"] < 0.1
        assert set(found.noise[when]) == {*found.metrics[when], "examples"}
        cell = _noise_of(noisy.plan, 1, collected)[0]
        both = pytest.approx(cell / np.sqrt(1 / 4 + 1 / 15))
        assert found.noise[when]["examples"] == both, "four cells and fifteen bins count the same examples"
    # before adapting nothing is random but the noise on the sums
    off = abs(found.metrics["before"]["accuracy"] - exact.metrics["before"]["accuracy"])
    assert off < 5 * found.noise["before"]["accuracy"]


# --- what is kept back


def test_small_classes_bins_and_federations_are_kept_back_from_exact_sums_too() -> None:
    few = members_of(*SCORED, "evaluation.min_cell=1000")
    assert scores_of(few.plan, 1, collect(few)) == RoundScores(
        withheld={"before": {"metrics": 7}, "after": {"metrics": 7}}
    )
    some = members_of(*SCORED, "evaluation.min_cell=50")
    found = scores_of(some.plan, 1, collect(some))
    assert found.withheld["before"]["bins"] > 0
    assert "classes" not in found.withheld["before"]
    assert set(found.metrics) == {"before", "after"}


def test_regression_with_few_examples_says_nothing() -> None:
    plan = secure_plan(*SCORED, "evaluation.min_cell=100")
    members = Members(plan)
    exchange, _ = exchange_of(members)
    found = scores_of(plan, 1, exchange.group_means(request_of(members), members.names))
    assert found == RoundScores(withheld={"before": {"metrics": 3}, "after": {"metrics": 3}})


def test_rounds_without_scores_and_rounds_without_sums_have_none() -> None:
    plan = secure_plan("evaluation.federated_every_rounds=2")
    assert scores_of(plan, 1, Collected((), ())) == RoundScores()
    assert scores_of(plan, 2, Collected((), ())) == RoundScores()


def test_exact_counts_that_contradict_themselves_give_none() -> None:
    plan = secure_plan(*SCORED)
    group = GroupMean(("a", "b"), np.zeros(8, dtype=np.float32))
    record = GroupRecord(0, ("a", "b"), ("a", "b"))
    counts = np.array([0, 1 << 20, 1 << 20] * 2)
    assert scores_of(plan, 1, Collected((group,), (), (record,), counts=counts)) == RoundScores()


# --- kept with the round


def test_a_run_keeps_scores_noise_and_what_was_withheld(tmp_path: Path) -> None:
    members = members_of(*NOISY, "rounds.count=1")
    exchange, _ = exchange_of(members)
    store = RunStore(tmp_path, durable=False)
    runner = Coordinator(members.plan, exchange, store)
    runner.run(runner.begin(members.learner.vector(), TEN))
    (record,) = store.records()
    assert record.metric_noise["after"].keys() == record.metrics["after"].keys() | {"examples"}
    assert record.withheld["after"]["bins"] > 0
    # a line as it was written before there was noise
    path = tmp_path / "rounds.jsonl"
    line = json.loads(path.read_text())
    del line["metric_noise"], line["withheld"]
    path.write_text(json.dumps(line) + "\n")
    (old,) = store.records()
    assert (old.metric_noise, old.withheld, old.metrics) == ({}, {}, record.metrics)
