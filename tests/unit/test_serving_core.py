"""The core of a server: together what comes together, alone what is at fault, and one version for each request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from own_models import CLINIC_ROWS, NOON, SHOP, SHOP_ROWS, make_version, store_with
from testudo_client.observations import Observations
from testudo_client.personal.personalizer import Personalizer
from testudo_client.personal.versions import VersionRecord
from testudo_client.serving import exchange
from testudo_client.serving.core import Core, Question, Reply
from testudo_client.serving.counts import Counts
from testudo_client.serving.limits import MAX_BATCH_ROWS, MAX_ROWS
from testudo_client.serving.recorder import Recorder
from testudo_client.serving.refusals import Reason, RefusalError
from testudo_common.errors import ModelError, UsageError


def counted(counts: Counts, name: str) -> float:
    """A sample by its full name, summed over labels."""
    families = text_string_to_metric_families(counts.exposed().decode())
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


def in_a_loop(work: Callable[[Core], Coroutine[Any, Any, Any]], **given: Any) -> Any:
    async def run() -> Any:
        core = Core(given.pop("own", None) or Personalizer(make_version()), Counts(), **given)
        try:
            return await work(core)
        finally:
            core.close()

    return asyncio.run(run())


def alike(reply: Reply, own: Personalizer, rows: list[dict[str, Any]]) -> bool:
    """Up to what another batch rounds in the last place."""
    expected = own.predict(rows)
    return all(
        (one.label, one.sure, one.possible) == (two.label, two.sure, two.possible)
        and np.allclose(list(one.probabilities.values()), list(two.probabilities.values()), atol=1e-6)
        for one, two in zip(reply.predictions, expected, strict=True)
    )


def test_what_comes_together_is_answered_at_once_and_each_gets_its_own_rows() -> None:
    async def work(core: Core) -> None:
        asked = [CLINIC_ROWS[:1], CLINIC_ROWS, CLINIC_ROWS[1:]] * 5
        replies = await asyncio.gather(*(core.ask(Question(rows)) for rows in asked))
        assert all(alike(reply, core.own, rows) for reply, rows in zip(replies, asked, strict=True))
        assert counted(core.counts, "testudo_serve_batch_rows_count") == 1
        assert (
            counted(core.counts, "testudo_serve_batch_rows_sum")
            == 20
            == counted(core.counts, "testudo_serve_rows_total")
        )

    in_a_loop(work)


def test_a_request_alone_waits_for_nobody() -> None:
    """It is answered in the next turn of the loop: no timer is set for it."""

    async def work(core: Core) -> None:
        asking = asyncio.create_task(core.ask(Question(CLINIC_ROWS)))
        for _ in range(4):  # begin, answer, wake, return
            await asyncio.sleep(0)
        assert asking.done()

    in_a_loop(work)


def test_no_more_rows_than_a_batch_are_answered_at_once_and_more_by_themselves() -> None:
    async def work(core: Core) -> None:
        half = CLINIC_ROWS * (MAX_BATCH_ROWS // 4 + 1)
        large = CLINIC_ROWS * MAX_BATCH_ROWS
        replies = await asyncio.gather(*(core.ask(Question(rows)) for rows in (half, half, large)))
        assert [len(reply.predictions) for reply in replies] == [len(half), len(half), len(large)]
        assert alike(replies[2], core.own, large)
        assert counted(core.counts, "testudo_serve_batch_rows_count") == 3

    in_a_loop(work)


def test_one_that_breaks_the_contract_spoils_no_other() -> None:
    async def work(core: Core) -> None:
        bad = [CLINIC_ROWS[0], {**CLINIC_ROWS[1], "ward": "north"}]
        replies = await asyncio.gather(
            core.ask(Question(CLINIC_ROWS)), core.ask(Question(bad)), core.ask(Question(CLINIC_ROWS)),
            return_exceptions=True,
        )  # fmt: skip
        refused = replies[1]
        assert isinstance(refused, RefusalError) and refused.reason is Reason.CONTRACT and refused.row == 1
        assert [fault.key for fault in refused.faults] == ["ward"]
        assert isinstance(replies[0], Reply) and isinstance(replies[2], Reply)

    in_a_loop(work)


def test_one_that_the_model_cannot_answer_spoils_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(core: Core) -> None:
        raw = core.own.answerer.raw

        def broken(inputs: np.ndarray) -> np.ndarray:
            outputs = raw(inputs).copy()
            outputs[inputs[:, -1] == 1.0] = np.nan  # of patients in the ward west
            return outputs

        monkeypatch.setattr(core.own.answerer, "raw", broken)
        good, bad = await asyncio.gather(
            core.ask(Question(CLINIC_ROWS[:1])), core.ask(Question(CLINIC_ROWS[1:])), return_exceptions=True
        )
        assert isinstance(good, Reply) and isinstance(bad, ModelError)

    in_a_loop(work)


def test_what_was_asked_before_an_exchange_is_answered_by_the_version_before() -> None:
    async def work(core: Core) -> None:
        first, second = core.own, Personalizer(make_version(2, sharpness=6.0))
        asking = asyncio.create_task(core.ask(Question(CLINIC_ROWS)))
        await asyncio.sleep(0)  # it has begun
        core.exchange(second)
        after = await core.ask(Question(CLINIC_ROWS))
        before = await asking
        assert (before.version, after.version) == (1, 2)
        assert alike(before, first, CLINIC_ROWS) and alike(after, second, CLINIC_ROWS)
        assert counted(core.counts, "testudo_serve_version") == 2

    in_a_loop(work)


def test_too_many_waiting_rows_are_turned_away_and_room_comes_back() -> None:
    async def work(core: Core) -> None:
        asked = [core.ask(Question(CLINIC_ROWS)) for _ in range(4)]
        replies = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(reply, Reply) for reply in replies] == [True, True, False, False]
        assert all(one.reason is Reason.BUSY for one in replies if isinstance(one, RefusalError))
        assert isinstance(await core.ask(Question(CLINIC_ROWS)), Reply)
        assert counted(core.counts, "testudo_serve_waiting_rows") == 0

    in_a_loop(work, max_waiting_rows=4)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (Question(CLINIC_ROWS * MAX_ROWS), Reason.TOO_LARGE),
        (Question(CLINIC_ROWS, level=1.0), Reason.MALFORMED),
        (Question(CLINIC_ROWS, level=float("nan")), Reason.MALFORMED),
    ],
)
def test_what_no_server_answers_is_refused(question: Question, reason: Reason) -> None:
    with pytest.raises(RefusalError) as refused:
        in_a_loop(lambda core: core.ask(question))
    assert refused.value.reason is reason


def test_no_rows_have_no_answers() -> None:
    assert in_a_loop(lambda core: core.ask(Question([]))).predictions == []


def test_a_level_of_its_own_changes_the_interval_and_not_the_value() -> None:
    async def work(core: Core) -> None:
        wide, narrow = await asyncio.gather(
            core.ask(Question(SHOP_ROWS, level=0.9)), core.ask(Question(SHOP_ROWS, level=0.5))
        )
        for one, two in zip(wide.predictions, narrow.predictions, strict=True):
            assert one.value == two.value and one.low is not None and two.low is not None and one.low < two.low

    in_a_loop(work, own=Personalizer(make_version(tables=SHOP)))


def test_answers_are_kept_and_outcomes_of_just_now_find_them(tmp_path: Path) -> None:
    async def work() -> None:
        counts, observations = Counts(), Observations(tmp_path)
        core = Core(Personalizer(make_version()), counts, Recorder(observations, counts.unrecorded.inc))
        reply = await core.ask(Question(CLINIC_ROWS, keys=["a", ""]))
        assert reply.keys[0] == "a" and len(reply.keys[1]) == 24, "the second was made"
        assert core.recorder is not None
        assert await core.recorder.tell({"a": 1.0, "nobody": 0.0}) == ["nobody"]
        found = observations.since()
        np.testing.assert_array_equal(found.inputs, core.own.version.contract.encode(CLINIC_ROWS))
        np.testing.assert_array_equal(found.targets, [1.0, np.nan])
        np.testing.assert_allclose(found.outputs, [list(one.probabilities.values()) for one in reply.predictions])
        await core.recorder.close()
        core.close()

    asyncio.run(work())


def test_what_cannot_be_kept_is_counted_and_answered_all_the_same(tmp_path: Path) -> None:
    async def work() -> None:
        counts, observations = Counts(), Observations(tmp_path)
        core = Core(Personalizer(make_version()), counts, Recorder(observations, counts.unrecorded.inc))
        observations._database.execute("DROP TABLE observed")
        assert len((await core.ask(Question(CLINIC_ROWS))).predictions) == 2
        assert core.recorder is not None
        await core.recorder.close()
        core.close()
        assert counted(counts, "testudo_serve_unrecorded_rows_total") == 2

    asyncio.run(work())


def test_versions_are_followed_and_one_that_cannot_be_used_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "EVERY_SECONDS", 0.001)
    store = store_with(tmp_path, make_version(1), make_version(2), make_version(3), make_version(4))
    (tmp_path / "models/2/model.safetensors").write_bytes(b"no model")

    def check(record: VersionRecord) -> None:
        if record.id == 3:
            raise UsageError("not here")

    async def work() -> list[int]:
        source = exchange.Source(store, 0.9, check)
        mark = source.mark()
        core = Core(source.load(), Counts())
        following = asyncio.create_task(exchange.follow(core, source, mark))
        seen = []
        for number, outcome in ((2, "refused"), (3, "refused"), (1, "exchanged"), (4, "exchanged")):
            before = swaps(core.counts, outcome)
            with store.changing():
                store.use(number, "promoted", NOON)
            while swaps(core.counts, outcome) == before:
                await asyncio.sleep(0.001)
            seen.append(core.own.version.record.id)
        following.cancel()
        core.close()
        return seen

    assert asyncio.run(work()) == [4, 4, 1, 4]


def swaps(counts: Counts, outcome: str) -> str:
    """The line of the metrics."""
    lines = counts.exposed().decode().splitlines()
    return "".join(line for line in lines if line.startswith(f'testudo_serve_swaps_total{{outcome="{outcome}"}}'))
