"""The warm executor: answers a SuperNode's messages with the code installed here, one at a time, in one process.

Takes nothing from the app bundle but its digest, which it computes itself, and nothing from the run's configuration or
from Flower's state of a client: which folder, plan and data are used was said by who started it. What goes wrong is
answered with one fixed sentence, since Flower carries an exception's text to the server.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import httpx
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from testudo_client.deployment.runtime_api import RuntimeApi, Task, TaskInput
from testudo_client.owner_log import OwnerLog
from testudo_common.errors import TestudoError

_LOG = logging.getLogger("testudo.client")

FAILED = "the owner's node could not answer"
"""All that the server is told, whatever went wrong."""
BEAT_SECONDS = 10.0
"""A claimed task is given to nobody else for 30 s after a sign of life at first, and for 60 s later."""
_PAUSE = (0.05, 1.0)
"""Seconds between two questions for a task: the shortest and the longest; a tenth of the time since the last one."""

AppOf = Callable[[str], ClientApp]
"""The installed ClientApp for the digest of a bundle, hex."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What an executor did so far.

    Attributes:
        answered: Messages that the installed code answered; refusals too, which are answers.
        failed: Messages that were answered with an error.
        last_poll: When a SuperNode answered last, by ``time.monotonic``; 0: never.
        busy: Whether a message is worked on now.
    """

    answered: int = 0
    failed: int = 0
    last_poll: float = 0.0
    busy: bool = False


class Executor:
    """Answers messages until it is told to stop.

    Args:
        connect: Opens a connection to the SuperNode as it runs now; None: none runs.
        app_of: Finds the installed ClientApp.
        node_config: ``owner``, ``plan`` and ``data``: all that the ClientApp is told of its node.
        log: The owner's own.
    """

    def __init__(
        self, connect: Callable[[], RuntimeApi | None], app_of: AppOf, node_config: dict[str, str], log: OwnerLog
    ) -> None:
        self._connect, self._app_of, self._node_config, self._log = connect, app_of, node_config, log
        self._stopping, self._woken = threading.Event(), threading.Event()
        self._counts = Counts()

    @property
    def counts(self) -> Counts:
        """What it did so far."""
        return self._counts

    def wake(self) -> None:
        """A message has come: ask for it now."""
        self._woken.set()

    def stop(self) -> None:
        """End after the message that is worked on now."""
        self._stopping.set()
        self._woken.set()

    def run(self) -> None:
        """Answer messages until :meth:`stop`."""
        api: RuntimeApi | None = None
        last_task = time.monotonic()
        while not self._stopping.is_set():
            try:
                api = api or self._connect()
                if api is not None and self._answer_one(api):
                    last_task = time.monotonic()
                    continue
            except Exception as error:  # the SuperNode has ended, or is not there yet; or a task could not be had
                _LOG.debug("no answer from the node: %s", type(error).__name__)
                _close(api)
                api = None
            shortest, longest = _PAUSE
            pause = min(longest, max(shortest, (time.monotonic() - last_task) / 10))
            if self._woken.wait(pause):
                self._woken.clear()
                last_task = time.monotonic()
        _close(api)

    def _answer_one(self, api: RuntimeApi) -> bool:
        task = api.acquire()
        self._counts = replace(self._counts, last_poll=time.monotonic())
        if task is None:
            return False
        self._counts = replace(self._counts, busy=True)
        beats = _Beats(api)
        try:
            self._work(api, task)
        finally:
            beats.end()
            self._counts = replace(self._counts, busy=False, last_poll=time.monotonic())
        return True

    def _work(self, api: RuntimeApi, task: Task) -> None:
        started = time.monotonic()
        try:
            given = api.pull(task)
        except Exception as error:
            # The task is left unfinished: once its signs of life stop, the SuperNode answers the message with an error.
            # It makes no answer for one that is finished without, and would wait for it for ever.
            self._failed(task, error)
            raise
        reply, answered = self._reply(task, given)
        try:
            api.push(task, reply, given.node_id)
        except Exception as error:
            self._failed(task, error)
            raise
        api.finish(answered=answered)
        before = self._counts
        self._counts = replace(before, answered=before.answered + answered, failed=before.failed + (not answered))
        _LOG.info(
            "run %d: a message %s after %.2f s",
            task.run_id, "answered" if answered else "refused", time.monotonic() - started,
        )  # fmt: skip

    def _reply(self, task: Task, given: TaskInput) -> tuple[Message, bool]:
        """The reply, and whether the installed code made it."""
        try:
            if not task.for_client_app:
                raise LookupError("a task of another kind")
            app = self._app_of(hashlib.sha256(given.bundle).hexdigest())
            # Nothing of the context that came: neither the run's configuration nor what Flower kept as state.
            context = Context(
                run_id=task.run_id,
                node_id=given.node_id,
                node_config=dict(self._node_config),
                state=RecordDict(),
                run_config={},
                series_id=given.series_id,
            )
            return app(given.message, context), True
        except Exception as error:
            self._failed(task, error)
            error_for_server = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, FAILED)
            return Message(error_for_server, reply_to=given.message), False

    def _failed(self, task: Task, error: Exception) -> None:
        kind = str(error) if isinstance(error, TestudoError) else type(error).__name__
        _LOG.error("run %d: a message could not be answered: %s", task.run_id, kind)
        with suppress(TestudoError):  # a full disk must not end the node
            self._log.refused(error, reason="not_answered")


class _Beats:
    """Signs of life for the claimed task, from a thread of their own."""

    def __init__(self, api: RuntimeApi) -> None:
        self._api, self._over = api, threading.Event()
        self._thread = threading.Thread(target=self._run, name="task heartbeat", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """The task is over."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                if not self._api.beat():
                    return  # nobody waits for the answer any more; pushing it will fail
            except (httpx.HTTPError, OSError):
                continue


def _close(api: RuntimeApi | None) -> None:
    if api is not None:
        with suppress(httpx.HTTPError, OSError):
            api.close()
