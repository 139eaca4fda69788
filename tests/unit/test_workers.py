"""Work on many items, in this process and in others: order, progress, and the first error."""

from __future__ import annotations

import os
import queue
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from testudo_common.errors import UsageError
from testudo_simulations import workers as pool
from testudo_simulations.workers import run_in_workers
from worker_jobs import failing, square

Told = list[tuple[int, str, int, int]]
STEPS = [("squaring", 0, 2), ("squaring", 1, 2), ("squared", 2, 2)]


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_in_the_order_of_the_items_and_all_progress_is_told(workers: int) -> None:
    told: Told = []
    found = run_in_workers(square, [0, 1, 2], workers=workers, on_progress=lambda *step: told.append(step))
    assert [value for value, _ in found] == [0, 1, 4], "though the first was done last"
    for number in range(3):
        assert [tuple(step) for which, *step in told if which == number] == STEPS
    assert len(told) == 9
    assert ({process for _, process in found} == {os.getpid()}) is (workers == 1)


def test_one_item_needs_no_other_process() -> None:
    ((_, process),) = run_in_workers(square, [3], workers=8, on_progress=lambda *step: None)
    assert process == os.getpid()


def test_no_items_are_no_results() -> None:
    assert run_in_workers(square, [], workers=4, on_progress=lambda *step: None) == []


def test_error_in_this_process_ends_the_work(tmp_path: Path) -> None:
    items = [(tmp_path, number) for number in (2, 1, 3)]
    with pytest.raises(ValueError, match="item 1 failed"):
        run_in_workers(failing, items, workers=1, on_progress=lambda *step: None)
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def test_error_in_another_process_ends_the_work_and_begins_no_more(tmp_path: Path) -> None:
    """While the first item is still at work; two more may have been handed to a process by then."""
    items = [(tmp_path, number) for number in range(12)]
    with pytest.raises(ValueError, match="item 1 failed"):
        run_in_workers(failing, items, workers=2, on_progress=lambda *step: None)
    assert len(list(tmp_path.iterdir())) <= 4


def test_error_of_who_draws_the_progress_ends_the_work(tmp_path: Path) -> None:
    def interrupted(number: int, what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    items = [(tmp_path, number) for number in (*range(2, 14), 0)]
    with pytest.raises(KeyboardInterrupt):
        run_in_workers(failing, items, workers=2, on_progress=interrupted)
    assert len(list(tmp_path.iterdir())) < 12


def drained(futures: list[Future[Any]], *messages: tuple[int, str, int, int]) -> list[tuple[int, str, int, int]]:
    channel: queue.Queue[tuple[int, str, int, int]] = queue.Queue()
    for message in messages:
        channel.put(message)
    return list(pool._messages(channel, futures))


def test_progress_of_workers_is_told_until_all_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_POLL_SECONDS", 0.001)
    done: Future[Any] = Future()
    done.set_result(1)
    assert drained([done, done], (0, "a", 1, 2), (1, "a", 1, 2)) == [(0, "a", 1, 2), (1, "a", 1, 2)]


def test_progress_ends_at_once_with_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_POLL_SECONDS", 0.001)
    failed: Future[Any] = Future()
    failed.set_exception(UsageError("no"))
    assert drained([Future(), failed]) == []
