"""Work for other processes, which import it from here. No tests in here."""

from __future__ import annotations

import os
import time
from pathlib import Path

from testudo_simulations.workers import Forward


def square(item: int, forward: Forward) -> tuple[int, int]:
    """Its square, and in which process; the first is the slowest."""
    forward("squaring", 0, 2)
    time.sleep(0.2 if item == 0 else 0.0)
    forward("squaring", 1, 2)
    forward("squared", 2, 2)
    return item * item, os.getpid()


def failing(item: tuple[Path, int], forward: Forward) -> int:
    """The first is long at work, the second fails at once, and any other leaves a trace."""
    folder, number = item
    forward("failing", 0, 1)
    if number == 0:
        time.sleep(1.5)
    elif number == 1:
        raise ValueError(f"item {number} failed")
    else:
        (folder / f"{number}").touch()
        time.sleep(0.15)
    return number
