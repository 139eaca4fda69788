"""What an aggregation costs the server: our chains against ByzFL, on PyTorch and on NumPy, and against Flower.

All get the same rows and as many bad ones to withstand, all on one thread. ByzFL's and Flower's geometric medians,
Krum's neighbours and CAF's eigenvectors differ from ours (see tests/interop/test_byzfl.py): three steps against a
converged iteration, one random step of a power iteration against an exact eigenproblem. Memory is what is allocated on
top of the input, as a share of it.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from testudo_server.aggregate import Settings, chain
from testudo_server.aggregate.base import Rows
from testudo_simulations.benchmarks.byzfl_peer import byzfl_aggregators
from testudo_simulations.benchmarks.measure import Measurement, median_seconds_in_turn

_N, _D = 50, 100_000
_F = _N // 5
_MEMORY_N, _MEMORY_D = 100, 1_000_000
_MEMORY_LIMIT = 0.05
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
)
_RADIUS = 100.0  # of centred clipping, one step of it
_MDA_N, _MDA_F = 16, 3  # ByzFL tries all sets
_MEMORY_CHAINS = (("median",), ("geometric_median",), ("caf",), ("nnm", "trimmed_mean"))

Works = dict[str, Callable[[], object]]


def measure_robust(repeats: int) -> list[Measurement]:
    """CPU seconds of every chain beside its peers, and the peak of extra memory at 100 rows of a million."""
    rows = np.random.default_rng(0).normal(size=(_N, _D)).astype(np.float32)
    found: list[Measurement] = []
    for names in _CHAINS:
        found += _compared(names, rows, _F, repeats)
    found += _compared(("mda",), rows[:_MDA_N], _MDA_F, repeats)
    return [*found, *_memory()]


def _compared(names: tuple[str, ...], rows: Rows, f: int, repeats: int) -> list[Measurement]:
    rule = chain(names, f=f, settings=Settings(radius=_RADIUS, iterations=1))
    peers = _flower(names, rows, f) | _byzfl(names, rows, f)
    with _one_thread():
        ours, *theirs = median_seconds_in_turn([lambda: rule(rows), *peers.values()], repeats)
    case = f"{' + '.join(names)}, n={len(rows)}, f={f}, d={rows.shape[1]}"
    if not peers:
        return [Measurement(case, "cpu_seconds", "s", ours.cpu, None, "none: no peer is installed, or has it")]
    return [
        Measurement(case, "cpu_seconds", "s", ours.cpu, seconds.cpu, name)
        for name, seconds in zip(peers, theirs, strict=True)
    ]


def _byzfl(names: tuple[str, ...], rows: Rows, f: int) -> Works:
    """ARC writes into its input, which is a copy; shortened rows are shortened again each time, at the same cost."""
    peer = byzfl_aggregators()
    if peer is None:
        return {}
    import torch

    def run(given: Any) -> object:
        for step in _byzfl_steps(peer, names, f):  # made anew: centred clipping keeps its last result
            given = step(given)
        return given

    tensor, array = torch.from_numpy(rows.copy()), rows.copy()
    return {"ByzFL, PyTorch": lambda: run(tensor), "ByzFL, NumPy": lambda: run(array)}


def _byzfl_steps(peer: ModuleType, names: tuple[str, ...], f: int) -> list[Callable[[Any], Any]]:
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
    rows = np.random.default_rng(0).standard_normal(size=(_MEMORY_N, _MEMORY_D), dtype=np.float32)
    found = []
    for names in _MEMORY_CHAINS:
        rule = chain(names, f=_MEMORY_N // 5)
        tracemalloc.start()
        with _one_thread():
            rule(rows)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        case = f"{' + '.join(names)}, n={_MEMORY_N}, d={_MEMORY_D}"
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
