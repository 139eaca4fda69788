"""Where an owner's process dies, as by a power cut: at the moment that a file names. No tests in here.

The file holds ``before KIND`` or ``after KIND``: before a message of that kind is answered, or once its answer is made
and what belongs to it is on disk, before it leaves. Kinds are the classes of the wire, and of secure aggregation.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any


def watch(file: Path) -> None:
    """Let this process die there."""
    from testudo_client import app
    from testudo_common.flower_records import from_records

    answer = app._answer

    def answer_or_die(message: Any, *more: Any) -> Any:
        kind = kind_of(from_records(message.content))
        die_at(file, f"before {kind}")
        reply = answer(message, *more)
        die_at(file, f"after {kind}")
        return reply

    vars(app)["_answer"] = answer_or_die


def kind_of(message: Any) -> str:
    """The name of what a message holds."""
    from testudo_common.secagg.messages import MESSAGES
    from testudo_common.wire import SecureMessage

    return type(MESSAGES.decode(message.body) if isinstance(message, SecureMessage) else message).__name__


def die_at(file: Path, point: str) -> None:
    """Kill this process and its children at once, if it is this point that the file names; the file is gone then."""
    with suppress(FileNotFoundError):
        if file.read_text() != point:
            return
        file.unlink()
        for task in Path("/proc/self/task").iterdir():
            for child in (task / "children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
