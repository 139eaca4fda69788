"""What an exported file takes: time a call, beside the others in turn, and memory in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from testudo_client.exporting.files import Ask
from testudo_client.exporting.results import Latency
from testudo_common.learning.tasks import Inputs

BATCHES = (1, 64)
REPEATS = 200
_CHILD_SECONDS = 120.0


def latencies(
    asked: Mapping[str, Ask], rows: Inputs, rng: np.random.Generator, repeats: int = REPEATS
) -> dict[str, dict[int, Latency]]:
    """Name -> rows a call -> what it takes; in every repeat all of them in a new order, so that each meets the same
    machine.

    Args:
        asked: By name.
        rows: ``float32[n, *input_shape]``, one or more; repeated to fill a call.
        rng: Of the order.
        repeats: Calls of each.
    """
    found: dict[str, dict[int, Latency]] = {name: {} for name in asked}
    for size in BATCHES:
        inputs = np.ascontiguousarray(np.resize(rows, (size, *rows.shape[1:])))
        wall: dict[str, list[float]] = {name: [] for name in asked}
        cpu: dict[str, list[float]] = {name: [] for name in asked}
        for ask in asked.values():
            ask(inputs)  # the first call makes what later ones use
        for _ in range(repeats):
            for name in rng.permutation(list(asked)):
                began, worked = time.perf_counter(), time.process_time()
                asked[name](inputs)
                cpu[name].append(time.process_time() - worked)
                wall[name].append(time.perf_counter() - began)
        for name in asked:
            p50, p99 = np.percentile(wall[name], [50, 99]).tolist()
            found[name][size] = Latency(p50=p50, p99=p99, cpu=float(np.mean(cpu[name])))
    return found


def memory_of(path: Path, shape: Sequence[int]) -> int | None:
    """Peak bytes of a process that loads the file and answers 64 rows; None where that fails."""
    command = [sys.executable, "-m", "testudo_client.exporting.child", str(path), *map(str, shape)]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_CHILD_SECONDS, check=True)  # noqa: S603
        return int(ran.stdout)
    except (subprocess.SubprocessError, ValueError):
        return None
