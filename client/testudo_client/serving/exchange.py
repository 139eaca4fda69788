"""Puts the version that ``models/current`` names in use while the server answers: loaded whole, warmed up, exchanged.

A version that is damaged, or that may not be answered where this server listens, is logged and not used; the one
before stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from testudo_client.personal.personalizer import Personalizer
from testudo_client.personal.versions import CURRENT, VersionRecord, VersionStore
from testudo_client.serving.core import Core
from testudo_common.errors import TestudoError

EVERY_SECONDS = 0.2
_WARM_ROWS = (1, 8, 64)
_log = logging.getLogger("testudo.serve")


@dataclass(frozen=True, slots=True)
class Source:
    """Where versions come from.

    Attributes:
        store: Of the owner.
        level: Nominal coverage of their answers.
        check: Raises for a version that may not be answered here.
    """

    store: VersionStore
    level: float
    check: Callable[[VersionRecord], None]

    def load(self) -> Personalizer:
        """The version in use, warmed up.

        Raises:
            TestudoError: There is none, it is damaged, or may not be answered here.
        """
        version = self.store.current()
        self.check(version.record)
        own = Personalizer(version, self.level)
        for rows in _WARM_ROWS:  # what is compiled or allocated at the first use is, now
            own.answer(np.zeros((rows, *(version.own.plan.model.inputs or ())), dtype=np.float32))
        return own

    def mark(self) -> tuple[int, int] | None:
        """Changes whenever ``models/current`` is replaced; None while there is none."""
        try:
            found = (self.store.models / CURRENT).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns


async def follow(core: Core, source: Source, mark: tuple[int, int] | None) -> None:
    """Exchange the core's version whenever another is put in use; until cancelled.

    Args:
        core: Answers.
        source: Where versions come from.
        mark: Of :meth:`Source.mark`, from before the core's version was loaded.
    """
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        now = source.mark()
        if now is None or now == mark:
            continue
        mark = now
        before = core.own.version.record.id
        try:
            own = await asyncio.to_thread(source.load)
        except TestudoError as error:
            core.counts.swaps.labels("refused").inc()
            _log.error("version %d stays in use: %s", before, error)  # the sentence says it all
        except Exception as error:
            core.counts.swaps.labels("refused").inc()
            _log.error("version %d stays in use: %s", before, type(error).__name__)  # may hold data
        else:
            core.exchange(own)
            core.counts.swaps.labels("exchanged").inc()
            _log.info("version %d is in use, after %d", own.version.record.id, before)
