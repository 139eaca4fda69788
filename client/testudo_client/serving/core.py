"""The core that both faces ask: the version in use, and requests that come together answered together.

Requests are checked one by one, so that one which breaks the contract spoils no other; what has come in meanwhile is
then put through the model at once. Nobody waits for company: a batch is what arrived while the one before was being
answered. All of it happens in the event loop, since a small batch takes less time than handing it to a thread; a large
request goes to a thread, alone.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from testudo_client.personal.contract import Value
from testudo_client.personal.personalizer import Personalizer, Prediction
from testudo_client.serving.counts import Counts
from testudo_client.serving.limits import MAX_BATCH_ROWS, MAX_ROWS, MAX_WAITING_ROWS
from testudo_client.serving.recorder import Answered, Recorder
from testudo_client.serving.refusals import Reason, RefusalError, refusal_of
from testudo_common.errors import ContractError
from testudo_common.learning.tasks import Inputs

Outputs = npt.NDArray[np.float32]
_KEY_BYTES = 12


@dataclass(frozen=True, slots=True)
class Question:
    """Rows to answer.

    Attributes:
        rows: Field -> value.
        keys: One a row, under which an outcome may be told later; empty: none was given.
        level: Nominal coverage, in (0, 1); None: the server's.
    """

    rows: Sequence[Mapping[str, Value]] = field(repr=False)
    keys: Sequence[str] = ()
    level: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """Answers to all rows of a question, by one version."""

    version: int
    level: float
    keys: Sequence[str]
    predictions: Sequence[Prediction] = field(repr=False)


@dataclass(slots=True)
class _Waiting:
    own: Personalizer
    inputs: Inputs
    level: float
    keys: Sequence[str]
    future: asyncio.Future[list[Prediction]]

    def like(self, other: _Waiting) -> bool:
        """Whether both can be answered at once."""
        return self.own is other.own and self.level == other.level


class Core:
    """The version in use, and its answers. To be used in one event loop.

    Args:
        own: The version to begin with.
        counts: What is counted.
        recorder: Keeps what is answered; None: nothing is kept.
        max_waiting_rows: More are turned away.
    """

    def __init__(
        self, own: Personalizer, counts: Counts, recorder: Recorder | None = None, *,
        max_waiting_rows: int = MAX_WAITING_ROWS,
    ) -> None:  # fmt: skip
        self.counts, self.recorder = counts, recorder
        self._max_waiting_rows = max_waiting_rows
        self._waiting: deque[_Waiting] = deque()
        self._rows = 0
        self._due = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="answers")
        self.own = own
        counts.version.set(own.version.record.id)

    def exchange(self, own: Personalizer) -> None:
        """From now on, ``own`` is asked; what was asked before is answered by the one before."""
        self.own = own
        self.counts.version.set(own.version.record.id)

    async def ask(self, question: Question) -> Reply:
        """Answers, in the order of the rows.

        Raises:
            RefusalError: A row breaks the contract, there are too many rows, or too much waits already.
        """
        own, rows = self.own, len(question.rows)
        level = own.level if question.level is None else question.level
        self._admit(rows, level)
        keys = self._keys(question)
        self._rows += rows
        self.counts.waiting.set(self._rows)
        try:
            if rows > MAX_BATCH_ROWS:
                predictions = await self._alone(own, question.rows, level, keys)
            else:
                predictions = await self._together(own, question.rows, level, keys)
        except ContractError as error:
            raise refusal_of(error) from error
        finally:
            self._rows -= rows
            self.counts.waiting.set(self._rows)
        self.counts.rows.inc(rows)
        return Reply(own.version.record.id, level, keys, predictions)

    def close(self) -> None:
        """Answer nothing more."""
        self._thread.shutdown()

    def _admit(self, rows: int, level: float) -> None:
        if rows > MAX_ROWS:
            raise RefusalError(Reason.TOO_LARGE, f"{rows} rows", remedy=f"Send at most {MAX_ROWS} at a time")
        if not 0.0 < level < 1.0:
            raise RefusalError(Reason.MALFORMED, "level is not between 0 and 1", remedy="Send 0.9, say, or nothing")
        if self._rows + rows > self._max_waiting_rows:
            raise RefusalError(Reason.BUSY, "too many rows wait for their answer", remedy="Ask again in a moment")

    def _keys(self, question: Question) -> Sequence[str]:
        given = question.keys or [""] * len(question.rows)
        return given if self.recorder is None else [key or secrets.token_hex(_KEY_BYTES) for key in given]

    async def _together(
        self, own: Personalizer, rows: Sequence[Mapping[str, Value]], level: float, keys: Sequence[str]
    ) -> list[Prediction]:
        inputs = own.version.contract.encode(rows)
        if not rows:
            return []
        loop = asyncio.get_running_loop()
        waiting = _Waiting(own, inputs, level, keys, loop.create_future())
        self._waiting.append(waiting)
        if not self._due:
            self._due = True
            loop.call_soon(self._answer_next)
        return await waiting.future

    async def _alone(
        self, own: Personalizer, rows: Sequence[Mapping[str, Value]], level: float, keys: Sequence[str]
    ) -> list[Prediction]:
        def work() -> tuple[Inputs, list[Prediction], Outputs]:
            inputs = own.version.contract.encode(rows)
            return inputs, *own.answer(inputs, level)

        inputs, predictions, outputs = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        self._keep(own, inputs, outputs, keys)
        return predictions

    def _answer_next(self) -> None:
        """Answer what waits, up to a batch; what asks another version or level is the next batch."""
        batch = [self._waiting.popleft()]
        rows = len(batch[0].inputs)
        while self._waiting and self._waiting[0].like(batch[0]):
            rows += len(self._waiting[0].inputs)
            if rows > MAX_BATCH_ROWS:
                break
            batch.append(self._waiting.popleft())
        self._due = bool(self._waiting)
        if self._due:
            asyncio.get_running_loop().call_soon(self._answer_next)
        self._answer(batch)

    def _answer(self, batch: list[_Waiting]) -> None:
        own = batch[0].own
        inputs = np.concatenate([one.inputs for one in batch])
        try:
            predictions, outputs = own.answer(inputs, batch[0].level)
        except Exception as error:
            if len(batch) > 1:  # one may be to blame: each by itself
                for one in batch:
                    self._answer([one])
            elif not batch[0].future.done():
                batch[0].future.set_exception(error)
            return
        self._keep(own, inputs, outputs, [key for one in batch for key in one.keys])
        start = 0
        for one in batch:
            end = start + len(one.inputs)
            if not one.future.done():  # whoever asked may be gone
                one.future.set_result(predictions[start:end])
            start = end

    def _keep(self, own: Personalizer, inputs: Inputs, outputs: Outputs, keys: Sequence[str]) -> None:
        self.counts.batch_rows.observe(len(inputs))
        if self.recorder is not None:
            self.recorder.add(Answered(own.version.record.id, keys, inputs, outputs))
