"""What both faces offer, once: predict, feedback, adapt, the model card; counted, and with every failure a refusal."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from testudo_client.personal.contract import Value
from testudo_client.serving.core import Core, Question, Reply
from testudo_client.serving.outcomes import targets_of
from testudo_client.serving.refusals import Reason, RefusalError
from testudo_common.errors import TestudoError

_log = logging.getLogger("testudo.serve")


@dataclass(frozen=True, slots=True)
class Adapted:
    """What came of an adaptation.

    Attributes:
        promoted: Whether the gate put the new version in use.
        version: Its number.
        reason: Why, or why not, in a sentence.
    """

    promoted: bool
    version: int
    reason: str


class Service:
    """The operations, for one server.

    Args:
        core: Answers.
        adapt: Adapts anew, in a thread; None: nothing was given to adapt from.
    """

    def __init__(self, core: Core, adapt: Callable[[], Adapted] | None = None) -> None:
        self.core, self._adapt = core, adapt
        self._adapting = asyncio.Lock()

    async def predict(self, question: Question, face: str) -> Reply:
        """Answers to all rows.

        Raises:
            RefusalError: See :meth:`Core.ask`.
        """
        began = time.perf_counter()
        reply = await self.core.ask(question)
        self.core.counts.seconds.labels(face).observe(time.perf_counter() - began)
        return reply

    async def feedback(self, outcomes: Mapping[str, Value]) -> list[str]:
        """Take what turned out to be true; the keys that nothing is remembered of.

        Raises:
            RefusalError: Answers are not recorded, or a value is none that the target can have.
        """
        if self.core.recorder is None:
            raise RefusalError(Reason.NOT_CONFIGURED, "answers are not recorded", remedy="Serve without --no-record")
        unknown = await self.core.recorder.tell(targets_of(self.core.own.version.own, outcomes))
        self.core.counts.outcomes.labels("told").inc(len(outcomes) - len(unknown))
        self.core.counts.outcomes.labels("unknown").inc(len(unknown))
        return unknown

    async def adapt(self) -> Adapted:
        """Adapt the meta-model anew; the version that comes of it is put in use as every other is.

        Raises:
            RefusalError: There is nothing to adapt from, or an adaptation is going on, or it failed.
        """
        if self._adapt is None:
            problem = "this server was given no table to adapt to"
            raise RefusalError(Reason.NOT_CONFIGURED, problem, remedy="Serve with --data and --meta-model")
        if self._adapting.locked():
            raise RefusalError(Reason.BUSY, "an adaptation is going on", remedy="Wait for it")
        async with self._adapting:
            try:
                return await asyncio.to_thread(self._adapt)
            except TestudoError as error:  # says what to do, and holds no value of a cell
                _log.warning("the adaptation failed: %s", type(error).__name__)
                raise RefusalError(Reason.FAILED, error.problem, remedy=error.remedy) from error

    @contextmanager
    def counted(self, face: str, method: str) -> Iterator[None]:
        """Count a request by what comes of it.

        Raises:
            RefusalError: In place of whatever else is raised inside, which is told by its kind alone, to the log.
        """
        outcome = "gone"  # cancelled: whoever asked went away
        try:
            yield
            outcome = "answered"
        except RefusalError as refusal:
            outcome = refusal.reason.value
            raise
        except Exception as error:
            outcome = Reason.FAILED.value
            _log.error("%s %s failed: %s", face, method, type(error).__name__)  # a traceback may hold data
            raise RefusalError(Reason.FAILED, "it could not be answered", remedy="See the server's log") from error
        finally:
            self.core.counts.requests.labels(face, method, outcome).inc()
