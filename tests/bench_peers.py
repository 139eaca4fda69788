"""Peers for the benchmark of simulation that take no time: processes of their own import them. No tests in here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

MEGABYTES = 60
SPUN_SECONDS = 0.2


def heavy_start(_work: object, rounds: int, turn: Callable[[], None]) -> None:
    """Holds memory before its first round, and lets go of it."""
    block = bytearray(MEGABYTES * 1_000_000)
    block[:] = b"x" * len(block)
    del block
    for _ in range(1 + rounds):
        turn()


def spins_below(_work: object, rounds: int, turn: Callable[[], None]) -> None:
    """Each round's CPU time is spent in a process below, which ends with the round."""
    turn()
    for _ in range(rounds):
        program = f"import time\nwhile time.process_time() < {SPUN_SECONDS}: pass"
        subprocess.run([sys.executable, "-S", "-c", program], check=True)
        turn()


def says_who(work: Path, rounds: int, turn: Callable[[], None]) -> None:
    """Writes a line a round to the file ``work``."""
    turn()
    for number in range(rounds):
        with work.open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {number}\n")
        turn()


def fails(_work: object, _rounds: int, turn: Callable[[], None]) -> None:
    """Raises after its start."""
    turn()
    time.sleep(0.01)
    raise RuntimeError("the third client fell over")
