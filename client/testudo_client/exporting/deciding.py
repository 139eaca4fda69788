"""Which files an export keeps, and where the best of them is to run: rules over measured figures.

Pure functions. The figures are of this machine and of one thread; the rules are stated in docs/export.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testudo_client.exporting.results import ExportedFile, Latency, Recommendation

MAX_DIFFERENCE = 1e-4
"""Of a file in full precision from the version in use."""
MARGIN = 0.01
"""Share of right answers (of the error, for numbers) that a smaller file may lose; without the owner's rows, share of
answers that may differ."""
FASTER = 0.95  # of the time in full precision, at one batch size at least; at none may it take longer
EDGE_BYTES, EDGE_MEMORY, EDGE_SECONDS = 16 << 20, 256 << 20, 0.05


def fault_of_speed(candidate: Mapping[int, Latency], full: Mapping[int, Latency]) -> str:
    """Why a file in eight bits does not pay; empty where it does.

    Args:
        candidate: Rows a call -> what it takes.
        full: The same of the file in full precision, measured beside it.
    """
    ratios = {rows: candidate[rows].p50 / full[rows].p50 for rows in full}
    if max(ratios.values()) > 1 or min(ratios.values()) > FASTER:
        told = " and ".join(
            f"{ratio:.2f} at {rows} row{'s' if rows > 1 else ''} a call" for rows, ratio in ratios.items()
        )
        return f"not faster: its time over that in full precision is {told}"
    return ""


def fault_of_answers(candidate: ExportedFile, own: ExportedFile, margin: float = MARGIN) -> str:
    """Why a smaller file does not answer well enough; empty where it does.

    Args:
        candidate: With what was measured.
        own: The version in use, measured on the same rows.
        margin: See :data:`MARGIN`.
    """
    if candidate.accuracy is not None and own.accuracy is not None:
        lost = own.accuracy - candidate.accuracy
        return f"{100 * lost:.1f} points less accurate" if lost > margin else ""
    if candidate.mae is not None and own.mae is not None:
        grown = candidate.mae / own.mae - 1 if own.mae > 0 else float(candidate.mae > 0)
        return f"its error is {100 * grown:.1f} % larger" if grown > margin else ""
    agreed = candidate.agreement or 0.0
    return f"only {100 * agreed:.1f} % of its answers agree" if agreed < 1 - margin else ""


def recommend(files: Sequence[ExportedFile]) -> Recommendation | None:
    """The edge where a kept file fits one, else a server; there the fastest, the own model before a student.

    On the edge the fastest at one row a call counts, on a server at the most rows a call that were measured. A file
    that was not measured fits nowhere.
    """
    kept = [one for one in files if one.kept and one.latency]
    if not kept:
        return None
    fitting = [one for one in kept if _fits_the_edge(one)]
    limits = f"{EDGE_BYTES >> 20} MiB, {EDGE_MEMORY >> 20} MiB and {1000 * EDGE_SECONDS:g} ms"
    if fitting:
        best = min(fitting, key=lambda one: (one.model == "student", one.latency[1].p50))
        memory, longest = (best.memory_bytes or 0) / 2**20, 1000 * best.latency[1].p99
        told = f"{best.bytes / 1024:.0f} KiB on disk, {memory:.0f} MiB in memory and {longest:.2g} ms a row"
        return Recommendation(where="edge", file=best.file, reason=f"{told} are within {limits}")
    most = max(kept[0].latency)
    best = min(kept, key=lambda one: (one.model == "student", one.latency[most].p50))
    told = f"no file fits {limits}; this one answers {most / best.latency[most].p50:.3g} rows a second"
    return Recommendation(where="server", file=best.file, reason=told)


def _fits_the_edge(one: ExportedFile) -> bool:
    return (
        one.bytes <= EDGE_BYTES
        and one.memory_bytes is not None
        and one.memory_bytes <= EDGE_MEMORY
        and 1 in one.latency
        and one.latency[1].p99 <= EDGE_SECONDS
    )
