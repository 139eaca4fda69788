"""The same work on many items, in processes side by side, with the progress of each. Does not know what the work is."""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

OnJobProgress = Callable[[int, str, int, int], None]
"""Told (number of the item, what is being done, steps done, steps in all)."""

Item = TypeVar("Item")
Result = TypeVar("Result")

_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Forward:
    """Progress of one item to where it is drawn: a function here, or a queue to the parent process."""

    number: int
    function: OnJobProgress | None
    channel: queue.Queue[tuple[int, str, int, int]] | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` steps of ``what`` are done."""
        if self.function is not None:
            self.function(self.number, what, done, total)
        if self.channel is not None:
            self.channel.put((self.number, what, done, total))


def run_in_workers(
    work: Callable[[Item, Forward], Result], items: Sequence[Item], *, workers: int, on_progress: OnJobProgress
) -> list[Result]:
    """``work`` on every item, ``workers`` at once; results in the order of the items.

    Args:
        work: A function of a module, since other processes import it.
        items: They travel to those processes, and the results back.
        workers: Processes; 1: all in this one.
        on_progress: Called in this process.

    Raises:
        Exception: The first that any work raised; what had begun is finished, and nothing else is begun.
    """
    if min(workers, len(items)) <= 1:
        return [work(item, Forward(number, on_progress)) for number, item in enumerate(items)]
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(min(workers, len(items)), mp_context=context) as pool,
    ):
        channel: queue.Queue[tuple[int, str, int, int]] = manager.Queue()
        futures = [pool.submit(work, item, Forward(number, None, channel)) for number, item in enumerate(items)]
        try:
            for message in _messages(channel, futures):
                on_progress(*message)
            for failed in filter(_has_failed, futures):
                failed.result()  # raises it
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)  # else processes lose their channel, and print tracebacks
            raise


def _messages(
    channel: queue.Queue[tuple[int, str, int, int]], futures: Sequence[Future[Result]]
) -> Iterator[tuple[int, str, int, int]]:
    """Progress until all are done, or one has failed."""
    while not any(map(_has_failed, futures)):
        try:
            yield channel.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            if all(future.done() for future in futures):
                return


def _has_failed(future: Future[Any]) -> bool:
    return future.done() and future.exception() is not None
