"""Rounds with a robust rule: what is kept of them, bad rows that were caught, rounds that are none. Never a mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import make_plan, request_for
from robust_rows import Brings, Send, plain_exchange, reply_to, single, updates
from testudo_common.errors import PlannerError, RoundError
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector, vector_digest
from testudo_common.wire import Message, Refusal, RefusalReason, TrainRequest
from testudo_server.aggregate import chain
from testudo_server.aggregate.base import Rows
from testudo_server.coordinator import Coordinator
from testudo_server.exchange import Collected, Exchange, GroupMean, GroupRecord, fault_of_reply
from testudo_server.robust import Reckoning, aggregate
from testudo_server.store import RoundRecord, RunStore

TEN = tuple(f"client-{number}" for number in range(10))
START = np.zeros(8, dtype=np.float32)
OF_TEN = ("rounds.cohort_size=10", "rounds.count=2", "robust_aggregation.corruption=0.2", "outer.step_size=1.0")
DEDUPED = 'robust_aggregation.rule=["dedupe", "nnm", "trimmed_mean"]'
MEDIAN = 'robust_aggregation.rule=["median"]'
HONEST = updates(np.random.default_rng(0), 10, 8)


def honest(client: str, request: TrainRequest) -> Message | str | None:
    return reply_to(request, HONEST[TEN.index(client)])


def coordinator(folder: Path, exchange: Exchange, plan: FederationPlan) -> Coordinator:
    return Coordinator(plan, exchange, RunStore(folder, durable=False))


def first_round(folder: Path, plan: FederationPlan, send: Send) -> RoundRecord:
    exchange, _ = plain_exchange(plan, send)
    runner = coordinator(folder, exchange, plan)
    runner.run_round(runner.begin(START, TEN))
    (record,) = RunStore(folder).records()
    return record


# --- what is kept


def test_rule_f_influence_and_copies_are_kept_and_come_back(tmp_path: Path) -> None:
    """Three send the same row, and count as one; their row may still be bad, so that f is one less."""
    plan = make_plan(*OF_TEN, DEDUPED, "robust_aggregation.corruption=0.3", "model.inputs=[300]")
    honest = updates(np.random.default_rng(1), 10, 602)
    rows = np.stack([honest[7] if number in (2, 5) else row for number, row in enumerate(honest)])
    told: list[RoundRecord] = []
    exchange, _ = plain_exchange(plan, lambda client, request: reply_to(request, rows[TEN.index(client)]))
    store = RunStore(tmp_path, durable=False)
    runner = Coordinator(plan, exchange, store, on_round=lambda state, record: told.append(record))
    state = runner.run_round(runner.begin(np.zeros(602, dtype=np.float32), TEN))
    (record,) = RunStore(tmp_path).records()
    assert told == [record], "what is read back is what was told"
    assert record.rule == ("dedupe", "nnm", "trimmed_mean")
    assert record.withstood == 2, "of three"
    assert record.merged == ((("client-2",), ("client-5",), ("client-7",)),)
    assert [members for members, _ in record.influence] == [(name,) for name in TEN]
    assert sum(share for _, share in record.influence) == pytest.approx(1.0)
    copies = sum(share for (name,), share in record.influence if name in ("client-2", "client-5", "client-7"))
    assert copies < 0.2, "three of ten have the influence of one of eight"
    expected = chain(plan.robust_rule, f=3)(rows)
    np.testing.assert_allclose(state.model, expected.vector, rtol=0, atol=1e-6)
    assert record.mean_update_norm == pytest.approx(float(np.linalg.norm(expected.vector)), rel=1e-6)


def test_mean_is_kept_with_even_shares_and_nobody_withstood(tmp_path: Path) -> None:
    record = first_round(tmp_path, make_plan("rounds.cohort_size=10"), honest)
    assert (record.rule, record.withstood, record.merged) == (("mean",), 0, ())
    assert dict(record.influence) == {(name,): pytest.approx(0.1) for name in TEN}


def test_only_the_mean_weighs_groups_by_who_is_behind_them() -> None:
    rows = updates(np.random.default_rng(2), 4, 8)
    groups = tuple(GroupMean((f"{number}",), row, votes=1 + 8 * (number == 0)) for number, row in enumerate(rows))
    found = aggregate(make_plan(), Collected(groups, ()), 0)
    np.testing.assert_allclose(found.influence, [0.75, 1 / 12, 1 / 12, 1 / 12])
    np.testing.assert_allclose(found.vector, found.influence @ rows, atol=1e-6)
    plan = make_plan("rounds.cohort_size=4", "robust_aggregation.corruption=0.25")
    robust = aggregate(plan, Collected(groups, ()), 1)
    unweighted = tuple(replace(group, votes=1) for group in groups)
    again = aggregate(plan, Collected(unweighted, ()), 1)
    assert robust.vector.tobytes() == again.vector.tobytes(), "else a poisoner would want a large group"


def test_line_of_a_round_names_members_of_groups(tmp_path: Path) -> None:
    plan = make_plan(*OF_TEN, "rounds.cohort_size=10", MEDIAN)
    first_round(tmp_path, plan, honest)
    (line,) = (tmp_path / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    kept = json.loads(line)
    assert kept["rule"] == ["median"]
    assert kept["withstood"] == 2
    assert [members for members, _ in kept["influence"]] == [[name] for name in TEN]


# --- what was caught is no longer among the rows

LONG = np.full(8, 11.0, dtype=np.float32)
NAN = np.full(8, np.nan, dtype=np.float32)

# what two clients send -> (why they are set aside, f of 2 that is left)
CAUGHT: dict[str, tuple[Callable[[TrainRequest], Message | str | None], str, int]] = {
    "too long": (lambda request: reply_to(request, LONG), "update longer than the plan allows", 0),
    "not finite": (lambda request: reply_to(request, NAN), "update not finite", 0),
    "of another shape": (lambda request: reply_to(request, NAN[:3]), "update shape (3,) instead of (8,)", 0),
    "silent": (lambda request: None, "no reply before the deadline", 2),
    "an error": (lambda request: "Flower error 2", "Flower error 2", 2),
    "refused": (
        lambda request: Refusal(request.plan_digest, request.round, 0, RefusalReason.DATA_UNUSABLE),
        "refused: data_unusable",
        2,
    ),
}


@pytest.mark.parametrize(("send", "reason", "left"), CAUGHT.values(), ids=CAUGHT)
def test_bad_rows_that_were_caught_are_not_reckoned_with_again(
    tmp_path: Path, send: Callable[[TrainRequest], Message | str | None], reason: str, left: int
) -> None:
    """Who is silent may be honest, so that as many bad ones may still be among the others."""

    def answer(client: str, request: TrainRequest) -> Message | str | None:
        return send(request) if client in TEN[3:5] else honest(client, request)

    record = first_round(tmp_path, make_plan(*OF_TEN, MEDIAN), answer)
    assert record.excluded == tuple((name, reason) for name in TEN[3:5])
    assert record.withstood == left
    assert len(record.influence) == 8


def test_no_more_are_caught_than_are_reckoned_with(tmp_path: Path) -> None:
    def answer(client: str, request: TrainRequest) -> Message | str | None:
        return reply_to(request, LONG) if client in TEN[:4] else honest(client, request)

    assert first_round(tmp_path, make_plan(*OF_TEN, MEDIAN), answer).withstood == 0


def test_longest_update_that_passes_is_the_one_that_an_honest_client_clips_to() -> None:
    plan = make_plan("outer.max_update_norm=2.0")
    request = request_for(plan)
    unit = np.full(8, 8**-0.5, dtype=np.float64)

    def fault(norm: float) -> str | None:
        return fault_of_reply(reply_to(request, (norm * unit).astype(np.float32)), request, 2.0)

    assert fault(2.0) is None
    assert fault(2.0 * (1 + 1e-6)) is None, "of float32, after clipping"
    assert fault(2.0 * (1 + 1e-4)) == "update longer than the plan allows"
    largest: Vector = np.full(8, np.finfo(np.float32).max, dtype=np.float32)
    assert fault_of_reply(reply_to(request, largest), request, 2.0) == "update longer than the plan allows"


def test_plain_exchange_of_a_plan_takes_its_limit(tmp_path: Path) -> None:
    """One update as long as the default allows, under a plan that allows half of it."""
    rows = np.zeros(8, dtype=np.float32)
    rows[0] = 5.0

    def answer(client: str, request: TrainRequest) -> Message | str | None:
        return reply_to(request, rows) if client == TEN[0] else honest(client, request)

    plan = make_plan("rounds.cohort_size=10", "outer.max_update_norm=10.0")
    assert first_round(tmp_path / "a", plan, answer).excluded == ()
    plan = make_plan("rounds.cohort_size=10", "outer.max_update_norm=2.5")
    assert first_round(tmp_path / "b", plan, answer).excluded == ((TEN[0], "update longer than the plan allows"),)


def test_barred_clients_and_blamed_groups_are_not_reckoned_with_again() -> None:
    plan = make_plan(*OF_TEN, "robust_aggregation.corruption=0.3")
    nothing = Collected((), ())
    assert Reckoning(plan, 10, 0).bad_rows(nothing, 10) == 3
    assert Reckoning(plan, 10, 2).bad_rows(nothing, 8) == 1
    assert Reckoning(plan, 10, 2).bad_rows(replace(nothing, bad=1), 8) == 0
    assert Reckoning(plan, 10, 3).bad_rows(replace(nothing, bad=2), 7) == 0
    assert Reckoning(plan, 10, 0).rows_needed(3) == 7


# --- rounds that are none


def test_round_with_too_few_rows_is_none_and_never_a_mean(tmp_path: Path) -> None:
    """f is 2, and the median needs 5 rows; min_replies alone would be content with 1."""
    plan = make_plan(*OF_TEN, MEDIAN)

    def answering(count: int) -> Send:
        return lambda client, request: honest(client, request) if client in TEN[:count] else None

    assert first_round(tmp_path / "five", plan, answering(5)).withstood == 2
    folder = tmp_path / "four"
    exchange, _ = plain_exchange(plan, answering(4))
    runner = coordinator(folder, exchange, plan)
    with pytest.raises(RoundError) as caught:
        runner.run(runner.begin(START, TEN))
    assert caught.value.problem.startswith(
        "round 1 brought 4 usable updates, and the rule needs 5 to outvote those that may be bad (client-4: no reply"
    )
    assert caught.value.where == "robust_aggregation"
    assert "never a plain mean" in caught.value.remedy
    assert RunStore(folder).records() == ()
    kept = RunStore(folder).load(plan.digest)
    assert (kept.round, vector_digest(kept.model)) == (0, vector_digest(START)), "the model has not moved"


def test_rule_decides_how_few_rows_are_too_few(tmp_path: Path) -> None:
    def six(client: str, request: TrainRequest) -> Message | str | None:
        return honest(client, request) if client in TEN[:6] else None

    assert first_round(tmp_path / "a", make_plan(*OF_TEN, MEDIAN), six).withstood == 2
    with pytest.raises(RoundError, match="the rule needs 7"):
        first_round(tmp_path / "b", make_plan(*OF_TEN, 'robust_aggregation.rule=["krum"]'), six)
    with pytest.raises(RoundError, match="the rule needs 9"):
        first_round(tmp_path / "c", make_plan(*OF_TEN, 'robust_aggregation.rule=["bucketing", "median"]'), six)


SECURE = (
    "rounds.cohort_size=30",
    "rounds.count=1",
    "robust_aggregation.corruption=0.1",
    "secure_aggregation.mode=secure",
    "secure_aggregation.group_size=3",
    "secure_aggregation.min_group=3",
    "secure_aggregation.max_attempts=3",
)
THIRTY = tuple(f"owner-{number:02d}" for number in range(30))


def in_threes(opened: Callable[[int], int], blamed: int = 0) -> Brings:
    """Ten groups, of which an attempt opens the first few; of the others so many must have cheated."""

    def bring(request: TrainRequest, cohort: tuple[str, ...]) -> Collected:
        drawn = [cohort[start : start + 3] for start in range(0, len(cohort), 3)]
        count = opened(request.attempt)
        means = updates(np.random.default_rng(request.attempt), len(drawn), 8)
        return Collected(
            tuple(GroupMean(group, row, 3) for group, row in zip(drawn[:count], means, strict=False)),
            tuple((client, "lost") for group in drawn[count:] for client in group),
            tuple(GroupRecord(request.attempt, group, group if n < count else ()) for n, group in enumerate(drawn)),
            bad=blamed,
        )

    return Brings(bring, max_attempts=3)


def secure_round(folder: Path, exchange: Brings) -> RoundRecord:
    plan = make_plan(*SECURE)
    runner = coordinator(folder, exchange, plan)
    runner.run(runner.begin(START, THIRTY))
    (record,) = RunStore(folder).records()
    return record


def test_too_few_groups_are_a_new_attempt(tmp_path: Path) -> None:
    """f is 3, so that 7 groups are needed; 18 clients in six groups are more than min_replies asks for."""
    exchange = in_threes(lambda attempt: (6, 0, 7)[attempt])
    record = secure_round(tmp_path, exchange)
    assert [attempt for _, attempt, _ in exchange.asked] == [0, 1, 2]
    assert (record.withstood, record.rule, len(record.influence)) == (3, ("caf",), 7)
    assert record.influence[0][0] == THIRTY[:3]


def test_attempts_that_all_bring_too_few_groups_are_no_round(tmp_path: Path) -> None:
    exchange = in_threes(lambda attempt: 6)
    with pytest.raises(RoundError, match="6 usable groups, and the rule needs 7"):
        secure_round(tmp_path, exchange)
    assert len(exchange.asked) == 3
    assert RunStore(tmp_path).records() == ()


def test_blamed_group_is_a_bad_row_less(tmp_path: Path) -> None:
    exchange = in_threes(lambda attempt: 6, blamed=1)
    record = secure_round(tmp_path, exchange)
    assert len(exchange.asked) == 1, "2 bad ones among 6 are outvoted by the other 4"
    assert record.withstood == 2


# --- at the start, with as many clients as there are


def test_run_is_refused_where_more_clients_than_a_round_asks_may_bring_more_bad_ones(tmp_path: Path) -> None:
    """2 of 10 are outvoted for sure where all ten are asked; of 1000 a cohort of 10 may be half poisoned."""
    plan = make_plan(*OF_TEN)
    exchange, senders = plain_exchange(plan, honest)
    runner = coordinator(tmp_path / "ten", exchange, plan)
    assert runner.run(runner.begin(START, TEN)).round == 2
    assert len(senders.asked) == 2
    crowd = coordinator(tmp_path / "crowd", exchange, plan)
    with pytest.raises(PlannerError) as caught:
        crowd.run(crowd.begin(START, [f"client-{number}" for number in range(1000)]))
    assert len(senders.asked) == 2, "nobody was asked"
    assert "200 of 1000 clients" in caught.value.problem
    cohort = int(caught.value.nearest["cohort"])
    assert f"aise the cohort from 10 to {cohort} clients" in caught.value.remedy
    make_plan(*OF_TEN, f"rounds.cohort_size={cohort}").check_withstood(1000)
    with pytest.raises(PlannerError):
        make_plan(*OF_TEN, f"rounds.cohort_size={cohort - 1}").check_withstood(1000)


# --- buckets


def test_buckets_are_drawn_from_what_arrived() -> None:
    listed = 'robust_aggregation.rule=["bucketing", "krum"]'
    plan = make_plan("rounds.cohort_size=14", "robust_aggregation.corruption=0.1", listed)
    rows = updates(np.random.default_rng(3), 14, 40)
    names = tuple(f"{number:02d}" for number in range(14))

    def buckets(rows: Rows) -> tuple[int, ...]:
        """Whose mean Krum took."""
        found = aggregate(plan, Collected(single(rows, names), ()), 1)
        return tuple(int(row) for row in np.flatnonzero(found.influence))

    np.random.seed(1)  # nothing may draw from it
    first = buckets(rows)
    assert len(first) == 2
    np.random.seed(2)
    assert [buckets(rows.copy()) for _ in range(3)] == [first] * 3, "anybody can repeat it"
    others = set()
    for number in range(12):
        changed = rows.copy()
        changed[number, 0] = np.nextafter(changed[number, 0], np.float32(2.0))
        others.add(buckets(changed))
    assert len(others) > 3, "and no sender foresees its bucket: the last bit of one row draws all of them anew"
