"""Where an owner's process dies, as by a power cut, and what left it before. No tests in here.

A file names the point: ``before KIND`` or ``after KIND``, before a message of that kind is answered, or once its answer
is made and what belongs to it is on disk, before it leaves. Kinds are the classes of the wire and of secure
aggregation; an ``Opening`` is the log shown at the beginning of an attempt. Masks and vectors that left stand in a file
beside it, a line each.
"""

from __future__ import annotations

import hashlib
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any


def watch(file: Path) -> None:
    """Let this process die there."""
    from testudo_client import app
    from testudo_common.flower_records import from_records

    answer, before = app._answer, [""]

    def answer_or_die(message: Any, *more: Any) -> Any:
        kind = kind_of(from_records(message.content))
        if kind == "LogUpdate" and before[0] != "CommitmentList":
            kind = "Opening"
        before[0] = kind
        die_at(file, f"before {kind}")
        reply = answer(message, *more)
        die_at(file, f"after {kind}")
        with file.with_suffix(".left").open("a") as left:
            left.write("".join(f"{line}\n" for line in lines_of(reply)))
        return reply

    vars(app)["_answer"] = answer_or_die


def kind_of(message: Any) -> str:
    """The name of what a message holds."""
    from testudo_common.secagg.messages import MESSAGES
    from testudo_common.wire import SecureMessage

    return type(MESSAGES.decode(message.body) if isinstance(message, SecureMessage) else message).__name__


def lines_of(reply: Any) -> list[str]:
    """What must not leave twice: keys of masks, and the vector of an attempt."""
    from testudo_common.secagg.messages import MESSAGES, Advertisement
    from testudo_common.wire import SecureMessage

    if not isinstance(reply, SecureMessage):
        return []
    said = MESSAGES.decode(reply.body)
    if isinstance(said, Advertisement):
        secrets = (said.mask_key, said.channel_key, said.seed_digest, said.nonce)
        named = [f"secret {hashlib.sha256(secret).hexdigest()}" for secret in secrets]
        return [f"advertised {reply.round} {reply.attempt}", *named]
    return [] if reply.masked is None else [f"vector {reply.round} {reply.attempt}"]


def die_at(file: Path, point: str) -> None:
    """Kill this process and its children at once, if it is this point that the file names; the file is gone then."""
    try:
        if file.read_text() != point:
            return
    except FileNotFoundError:
        return
    file.unlink()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread may end meanwhile
            for child in (task / "children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
