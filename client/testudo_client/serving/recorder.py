"""Keeps what was asked and answered for watching, in batches and beside the requests, and takes outcomes for it.

A batch is written up to a fifth of a second after its answers: a process that is killed has lost those for watching,
and no answer. What cannot be kept, since the disk is full or the requests are too many, is counted and not kept.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from testudo_client.observations import MOST, Observations

EVERY_SECONDS = 0.2
_log = logging.getLogger("testudo.serve")


@dataclass(frozen=True, slots=True)
class Answered:
    """Rows that one version answered.

    Attributes:
        version: Which.
        keys: One a row.
        inputs: ``float32[n, d]``, as the plan encodes them.
        outputs: ``float32[n, C]`` calibrated probabilities, or ``float32[n, 1]`` predictions in the scaled target.
    """

    version: int
    keys: Sequence[str]
    inputs: npt.NDArray[np.float32] = field(repr=False)
    outputs: npt.NDArray[np.float32] = field(repr=False)


class Recorder:
    """Writes in one thread of its own; everything else is called in the event loop.

    Args:
        observations: Where to; closed by :meth:`close`.
        unrecorded: Told how many rows could not be kept.
    """

    def __init__(self, observations: Observations, unrecorded: Callable[[int], object]) -> None:
        self._observations, self._unrecorded = observations, unrecorded
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recorder")
        self._waiting: list[Answered] = []
        self._rows = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing: Future[None] | None = None

    def add(self, answered: Answered) -> None:
        """Keep it, soon."""
        if self._rows + len(answered.keys) > MOST:
            self._unrecorded(len(answered.keys))
            return
        self._waiting.append(answered)
        self._rows += len(answered.keys)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY_SECONDS, self._begin_in_turn)

    async def tell(self, outcomes: Mapping[str, float]) -> list[str]:
        """Take outcomes, of answers that were given just now too.

        Args:
            outcomes: Key -> class number or scaled target.

        Returns:
            Keys that belong to nothing that is kept.
        """
        self._begin()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._tell, dict(outcomes))

    async def close(self) -> None:
        """Write what waits, and leave the file."""
        self._begin()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._observations.close)
        self._thread.shutdown()

    def _begin_in_turn(self) -> None:
        """Write, unless the disk is still busy with what came before: then more comes together, up to a bound."""
        self._timer = None
        if self._writing is None or self._writing.done():
            self._begin()
        else:
            self._timer = asyncio.get_running_loop().call_later(EVERY_SECONDS, self._begin_in_turn)

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            waiting, self._waiting, self._rows = self._waiting, [], 0
            self._writing = self._thread.submit(self._write, waiting)

    def _write(self, waiting: list[Answered]) -> None:
        for version in dict.fromkeys(one.version for one in waiting):
            these = [one for one in waiting if one.version == version]
            keys = [key for one in these for key in one.keys]
            try:
                inputs, outputs = (np.concatenate([getattr(one, name) for one in these]) for name in _ARRAYS)
                self._observations.add(version, keys, inputs, outputs)
            except (sqlite3.Error, OSError, ValueError) as error:
                self._unrecorded(len(keys))
                _log.warning("%d answers could not be kept for watching: %s", len(keys), type(error).__name__)

    def _tell(self, outcomes: dict[str, float]) -> list[str]:
        return [key for key, target in outcomes.items() if not self._observations.tell(key, target)]


_ARRAYS = ("inputs", "outputs")
