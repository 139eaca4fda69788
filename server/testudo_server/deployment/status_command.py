"""``testudo-server status`` and ``stop``: what a run's folder says of it, and the signal that ends it in order."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from testudo_common.errors import UsageError
from testudo_server.deployment.run_lock import holder_of
from testudo_server.deployment.run_status import RunStatus, read_status

_OVER = ("finished", "failed", "stopped")
_LOOK_SECONDS = 0.1


def killed(folder: Path, status: RunStatus) -> bool:
    """Whether the run's server ended without a word: its status says that it is on, and no process holds its folder."""
    return status.state not in _OVER and holder_of(folder) is None


def status_lines(folder: Path) -> list[str]:
    """A run, in words.

    Raises:
        UsageError: See :func:`read_status`.
    """
    status = read_status(folder)
    state = "not running any more; testudo-server run ... --resume goes on" if killed(folder, status) else status.state
    lines = [f"{status.federation}: {status.plan}, {state}", f"round {status.round} of {status.rounds}"]
    if status.state == "waiting":
        lines.append(f"{status.connected} of {status.expected} owners are connected")
    if status.round_seconds:
        last = f"last round: {status.counted} of {status.asked} counted, {status.round_seconds[-1]:.1f} s"
        lines.append(f"{last}; {status.bytes_down} bytes down, {status.bytes_up} up so far")
    if status.log_size:
        lines.append(f"audit log: {status.log_size} entries, {status.cosigned_by} cosigned, {status.quorum} have to")
    lines += [f"epsilon for one {unit}, at the most: {value:.4g}" for unit, value in status.epsilon.items()]
    if status.error:
        lines.append(f"error: {status.error}")
    return lines


def stop(folder: Path, *, timeout_seconds: float) -> bool:
    """End the server of a run in order, and wait until it has ended; finished rounds are kept.

    Returns:
        Whether there was one.

    Raises:
        UsageError: It has not ended in time, or is another user's.
    """
    read_status(folder)
    holder = holder_of(folder)
    if holder is None:
        return False
    try:
        os.kill(holder, signal.SIGTERM)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise UsageError("it is another user's", where=f"process {holder}", remedy="stop it as that user") from error
    ends = time.monotonic() + timeout_seconds
    while holder_of(folder) == holder:
        if time.monotonic() > ends:
            raise UsageError(
                f"process {holder} has not ended after {timeout_seconds:.0f} s",
                where=str(folder),
                remedy="stop it again, which ends it at once",
            )
        time.sleep(_LOOK_SECONDS)
    return True
