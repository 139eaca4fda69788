"""What is measured, and in which order: training alone, whole rounds, secure rounds, and the digits scenario."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from testudo_simulations.benchmarks.simulation.children import Cost, in_turn
from testudo_simulations.benchmarks.simulation.growth import Growth, fit_growth
from testudo_simulations.benchmarks.simulation.peers import DIGITS, ROUNDS, SECURE, TRAINING, Contender

TRAINED_CLIENTS = 100
_SIZES = (10, 30, 100, 300, 1000, 3000, 10_000)
_SECURE_SIZES = (16, 100, 300, 1000, 3000, 10_000)
_LONG_SECONDS = 5.0  # a round that is expected to take longer is measured once
_LIMIT_SECONDS = 60.0  # and one of over a minute at its first round, or, of a peer, not at all


@dataclass(frozen=True, slots=True)
class NotRun:
    """Why there is no figure."""

    reason: str


Cell = Cost | NotRun
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """All that was measured.

    Attributes:
        repeats: Rounds that each figure is a median of.
        training: What is trained -> label -> cost; ours first.
        rounds: Kind of round -> clients -> label -> cost; ours first.
        secure: Clients -> label -> cost.
        digits: Label -> cost.
    """

    repeats: int
    training: Mapping[str, Mapping[str, Cell]] = field(default_factory=dict)
    rounds: Mapping[str, Mapping[int, Mapping[str, Cell]]] = field(default_factory=dict)
    secure: Mapping[int, Mapping[str, Cell]] = field(default_factory=dict)
    digits: Mapping[str, Cell] = field(default_factory=dict)


def measure(repeats: int, clients: int, parts: Sequence[str], say: Say) -> Measured:
    """Measure the parts named.

    Args:
        repeats: Rounds that each figure is a median of; of long ones there are fewer.
        clients: The most in a round; the sizes of ours that are smaller are run too.
        parts: Of ``training``, ``rounds``, ``secure`` and ``digits``.
        say: Told what is being measured.

    Raises:
        UsageError: A peer failed.
    """
    training: dict[str, Mapping[str, Cell]] = {}
    if "training" in parts:
        for name, contenders in TRAINING.items():
            say(f"training, {name}")
            training[name] = _at(TRAINED_CLIENTS, contenders, dict.fromkeys(contenders, repeats))
    rounds: Mapping[str, Mapping[int, Mapping[str, Cell]]] = {}
    if "rounds" in parts:
        rounds = _over_sizes(ROUNDS, [size for size in _SIZES if size <= clients], repeats, say)
    secure: Mapping[int, Mapping[str, Cell]] = {}
    if "secure" in parts:
        sizes = [size for size in _SECURE_SIZES if size <= clients]
        secure = _over_sizes({"secure rounds": SECURE}, sizes, repeats, say)["secure rounds"]
    digits: Mapping[str, Cell] = {}
    if "digits" in parts:
        say("the digits scenario")
        digits = _at(0, DIGITS, dict.fromkeys(DIGITS, repeats))
    return Measured(repeats, training, rounds, secure, digits)


def _over_sizes(
    kinds: Mapping[str, Sequence[Contender]], sizes: Sequence[int], repeats: int, say: Say
) -> dict[str, dict[int, Mapping[str, Cell]]]:
    """From the smallest size on, each telling how long the next will take."""
    found: dict[str, dict[int, Mapping[str, Cell]]] = {kind: {} for kind in kinds}
    expected: dict[Contender, float] = {}  # seconds a client
    for size in sizes:
        everybody = [contender for contenders in kinds.values() for contender in contenders]
        ahead = {contender: size * expected.get(contender, 0.0) for contender in everybody}
        left_out = {
            contender: NotRun(f"not run: about {seconds:.0f} s")
            for contender, seconds in ahead.items()
            if seconds > _LIMIT_SECONDS and not contender.ours
        }
        say(f"{', '.join(kinds)}: {size:,} clients")
        cells = _at(size, everybody, {each: _repeats_of(ahead[each], repeats) for each in everybody}, left_out)
        for contender in everybody:
            cell = cells[contender.label]
            if isinstance(cell, Cost):
                expected[contender] = cell.seconds / size
        for kind, contenders in kinds.items():
            found[kind][size] = {each.label: cells[each.label] for each in contenders}
    return found


def _repeats_of(seconds: float, repeats: int) -> int:
    if seconds > _LIMIT_SECONDS:
        return 0
    return 1 if seconds > _LONG_SECONDS else repeats


def _at(
    clients: int,
    contenders: Sequence[Contender],
    repeats: Mapping[Contender, int],
    left_out: Mapping[Contender, NotRun] | None = None,
) -> dict[str, Cell]:
    """One size: who can be run there takes turns."""
    cells: dict[str, Cell] = {}
    running = []
    for contender in contenders:
        if reason := contender.hindrance(clients):
            cells[contender.label] = NotRun(reason)
        elif left_out and contender in left_out:
            cells[contender.label] = left_out[contender]
        else:
            running.append(contender)
    costs = in_turn([(each.peer, each.work(clients), repeats[each]) for each in running])
    cells.update({each.label: cost for each, cost in zip(running, costs, strict=True)})
    return {contender.label: cells[contender.label] for contender in contenders}


def growths(by_size: Mapping[int, Mapping[str, Cell]]) -> dict[str, Growth]:
    """How each one's CPU seconds grow, where there are sizes enough."""
    labels = next(iter(by_size.values()), {})
    fits = {
        label: fit_growth(
            {size: cell.cpu_seconds for size, cells in by_size.items() if isinstance(cell := cells[label], Cost)}
        )
        for label in labels
    }
    return {label: fit for label, fit in fits.items() if fit is not None}
