"""What a benchmark measures, and how a median of several is taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure beside its reference.

    Attributes:
        case: What was done.
        metric: Such as ``wall_seconds``, ``cpu_seconds`` or ``test_accuracy``.
        unit: Such as ``s``.
        ours: Ours, a median; of accuracies the mean over seeds.
        reference: The peer's or the limit's, a median of the same run; or as published; None where there is none.
        reference_name: Whose.
    """

    case: str
    metric: str
    unit: str
    ours: float
    reference: float | None
    reference_name: str

    @property
    def ratio(self) -> float | None:
        """ours / reference."""
        return None if not self.reference else self.ours / self.reference

    def as_dict(self) -> dict[str, str | float | None]:
        """For JSON, the ratio included."""
        return {**asdict(self), "ratio": self.ratio}


@dataclass(frozen=True, slots=True)
class Seconds:
    """Median seconds of some work: on the wall, and of this process's CPU."""

    wall: float
    cpu: float


def median_seconds(work: Callable[[], object], repeats: int) -> Seconds:
    """Do ``work`` once to warm up and then ``repeats`` times; medians of the latter."""
    return median_seconds_in_turn([work], repeats)[0]


def median_seconds_in_turn(works: Sequence[Callable[[], object]], repeats: int) -> list[Seconds]:
    """The same for several works that are compared: in turn, so that a machine that slows down slows all of them."""
    for work in works:
        work()
    walls: list[list[float]] = [[] for _ in works]
    cpus: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for number, work in enumerate(works):
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            walls[number].append(time.perf_counter() - wall)
            cpus[number].append(time.process_time() - cpu)
    return [Seconds(statistics.median(w), statistics.median(c)) for w, c in zip(walls, cpus, strict=True)]


def compared(case: str, ours: Seconds, reference: Seconds | None, reference_name: str) -> list[Measurement]:
    """Wall and CPU seconds of both, as measurements."""
    return [
        Measurement(case, "wall_seconds", "s", ours.wall, reference.wall if reference else None, reference_name),
        Measurement(case, "cpu_seconds", "s", ours.cpu, reference.cpu if reference else None, reference_name),
    ]
