"""What an aggregation costs the server: our chains against ByzFL, on PyTorch and on NumPy, and against Flower.

All get the same rows and as many bad ones to withstand, all on one thread. ByzFL's and Flower's geometric medians,
Krum's neighbours and CAF's eigenvectors differ from ours (see tests/interop/test_byzfl.py): three steps against a
converged iteration, one random step of a power iteration against an exact eigenproblem. A peer that takes longer than
``_SLOW_SECONDS`` is measured once, and its name says so. Memory is what is allocated on top of the input, as a share
of it. Two threads are compared with one on the wall, the chain being the one that the plan recommends.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable
from itertools import cycle
from types import ModuleType
from typing import Any

import numpy as np

from testudo_server.aggregate import Settings, Work, chain
from testudo_server.aggregate.base import Rows
from testudo_simulations.benchmarks.byzfl_peer import byzfl_aggregators
from testudo_simulations.benchmarks.measure import Measurement, Seconds, median_seconds, median_seconds_in_turn

_N = 50
_F = _N // 5
_SIZES = (100_000, 1_000_000)
_SLOW_SECONDS = 3.0
_MEMORY_N, _MEMORY_D = 100, 1_000_000
_MEMORY_LIMIT = 0.05
_RECOMMENDED = ("dedupe", "nnm", "trimmed_mean")
_CHAINS = (
    ("mean",),
    ("median",),
    ("trimmed_mean",),
    ("krum",),
    ("multi_krum",),
    ("geometric_median",),
    ("centred_clipping",),
    ("caf",),
    ("nnm", "trimmed_mean"),
    ("arc", "mean"),
    ("clip", "mean"),
    ("bucketing", "mean"),
    ("bucketing", "trimmed_mean"),
    ("arc", "nnm", "trimmed_mean"),
    _RECOMMENDED,
)
_RADIUS = 100.0  # of centred clipping, one step of it
_MDA_N, _MDA_F = 16, 3  # ByzFL tries all sets

Works = dict[str, Callable[[], object]]


def measure_robust(repeats: int) -> list[Measurement]:
    """CPU seconds of every chain beside its peers, wall seconds of two threads beside one, and the peak of extra memory
    at 100 rows of a million."""
    found: list[Measurement] = []
    for d in _SIZES:
        rows = _rows(_N, d)
        for names in _CHAINS:
            found += _compared(names, rows, _F, repeats)
        found += _compared(("mda",), rows[:_MDA_N], _MDA_F, repeats)
        found.append(_threads(rows, repeats))
    return [*found, *_memory()]


def _rows(n: int, d: int) -> Rows:
    return np.random.default_rng(0).standard_normal(size=(n, d), dtype=np.float32)


def _settings(d: int) -> Settings:
    """Clipping shortens about half of such rows."""
    return Settings(radius=_RADIUS, iterations=1, max_norm=float(np.sqrt(d)))


def _compared(names: tuple[str, ...], rows: Rows, f: int, repeats: int) -> list[Measurement]:
    rule, rng = chain(names, f=f, settings=_settings(rows.shape[1])), np.random.default_rng(0)
    peers = _flower(names, rows, f) | _byzfl(names, rows, f, repeats + 2)  # once to see how slow, once to warm up
    with _one_thread():
        once = {name: _seconds_once(work) for name, work in peers.items()}
        quick = {name: work for name, work in peers.items() if once[name].cpu <= _SLOW_SECONDS}
        ours, *theirs = median_seconds_in_turn([lambda: rule(rows, rng=rng), *quick.values()], repeats)
    measured = dict(zip(quick, theirs, strict=True))
    measured |= {f"{name}, once": seconds for name, seconds in once.items() if name not in quick}
    case = f"{' + '.join(names)}, n={len(rows)}, f={f}, d={rows.shape[1]}"
    if not measured:
        return [Measurement(case, "cpu_seconds", "s", ours.cpu, None, "none: no peer is installed, or has it")]
    return [Measurement(case, "cpu_seconds", "s", ours.cpu, each.cpu, name) for name, each in measured.items()]


def _seconds_once(work: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def _threads(rows: Rows, repeats: int) -> Measurement:
    rule = chain(_RECOMMENDED, f=_F)
    with _one_thread():  # of BLAS, so that only our own differ
        one = median_seconds(lambda: rule(rows, work=Work(threads=1)), repeats)
        two = median_seconds(lambda: rule(rows, work=Work(threads=2)), repeats)
    case = f"{' + '.join(_RECOMMENDED)}, two threads, n={_N}, f={_F}, d={rows.shape[1]}"
    return Measurement(case, "wall_seconds", "s", two.wall, one.wall, "ours, one thread")


def _byzfl(names: tuple[str, ...], rows: Rows, f: int, calls: int) -> Works:
    """Clipping and ARC write into their input, and would find nothing to shorten in it again: each call has its own.

    There is no dedupe.
    """
    peer = byzfl_aggregators()
    if peer is None or "dedupe" in names:
        return {}
    import torch

    def run(given: Any) -> object:
        for step in _byzfl_steps(peer, names, f, rows.shape[1]):  # made anew: centred clipping keeps its last result
            given = step(given)
        return given

    copies = calls if {"arc", "clip"} & set(names) else 1
    arrays = cycle([rows.copy() for _ in range(copies)])
    tensors = cycle([torch.from_numpy(rows.copy()) for _ in range(copies)])
    return {"ByzFL, PyTorch": lambda: run(next(tensors)), "ByzFL, NumPy": lambda: run(next(arrays))}


def _byzfl_steps(peer: ModuleType, names: tuple[str, ...], f: int, d: int) -> list[Callable[[Any], Any]]:
    made: dict[str, Callable[[], Callable[[Any], Any]]] = {
        "mean": peer.Average,
        "median": peer.Median,
        "trimmed_mean": lambda: peer.TrMean(f),
        "krum": lambda: peer.Krum(f),
        "multi_krum": lambda: peer.MultiKrum(f),
        "geometric_median": peer.GeometricMedian,
        "centred_clipping": lambda: peer.CenteredClipping(L=1, tau=_RADIUS),
        "caf": lambda: peer.CAF(f),
        "mda": lambda: peer.MDA(f),
        "nnm": lambda: peer.NNM(f),
        "arc": lambda: peer.ARC(f),
        "clip": lambda: peer.Clipping(_settings(d).max_norm),
        "bucketing": lambda: peer.Bucketing(_settings(d).bucket_size),
    }
    return [made[name]() for name in names]


def _flower(names: tuple[str, ...], rows: Rows, f: int) -> Works:
    try:
        from flwr.server.strategy import aggregate as flower
    except ImportError:
        return {}
    results = [([row], 1) for row in rows]
    works: dict[tuple[str, ...], Callable[[], object]] = {
        ("mean",): lambda: flower.aggregate(results),
        ("median",): lambda: flower.aggregate_median(results),
        ("trimmed_mean",): lambda: flower.aggregate_trimmed_avg(results, f / len(rows)),
        ("krum",): lambda: flower.aggregate_krum(results, f, 0),
        ("multi_krum",): lambda: flower.aggregate_krum(results, f, len(rows) - f),
    }
    return {"Flower": works[names]} if names in works else {}


def _memory() -> list[Measurement]:
    """As NumPy reports to tracemalloc what it allocates; the buffers of BLAS, of fixed size, are not in it."""
    rows = _rows(_MEMORY_N, _MEMORY_D)
    found = []
    for names in (*_CHAINS, ("mda",)):
        f = _MDA_F if names == ("mda",) else _MEMORY_N // 5
        rule = chain(names, f=f, settings=_settings(_MEMORY_D))
        tracemalloc.start()
        with _one_thread():
            rule(rows, rng=np.random.default_rng(0))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        case = f"{' + '.join(names)}, n={_MEMORY_N}, f={f}, d={_MEMORY_D}"
        found.append(
            Measurement(case, "extra_memory", "of the input", peak / rows.nbytes, _MEMORY_LIMIT, "our own limit")
        )
    return found


def _one_thread() -> Any:
    """Of BLAS and of PyTorch, if it is loaded."""
    from threadpoolctl import threadpool_limits

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    return threadpool_limits(1)
