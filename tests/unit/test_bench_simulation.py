"""The benchmark of simulation: that peers do equal work, that processes are measured whole, fits, and what is shown."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from opacus.optimizers import DPOptimizer
from rich.console import Console
from typer.testing import CliRunner

import bench_peers
from testudo_common.errors import UsageError
from testudo_common.learning.learner import initial_vector
from testudo_simulations import cli
from testudo_simulations.benchmarks.simulation import DEFAULT_CLIENTS, PARTS, measured, peers
from testudo_simulations.benchmarks.simulation.children import Cost, Peer, in_turn
from testudo_simulations.benchmarks.simulation.drawing import draw
from testudo_simulations.benchmarks.simulation.figures import measurements
from testudo_simulations.benchmarks.simulation.growth import fit_growth
from testudo_simulations.benchmarks.simulation.measured import Measured, NotRun, measure
from testudo_simulations.benchmarks.simulation.tables import print_tables
from testudo_simulations.benchmarks.simulation.workload import EXAMPLES, LOOP, Clients, Work, federation_of, plan_of
from testudo_simulations.engine import Engine

CLIENTS, ROUNDS = 4, 2
IMPORTED = "bench_peers"


# The work


def test_clients_hold_no_memory_of_their_own() -> None:
    clients = Clients(50, side=8)
    assert len(clients) == len(set(clients)) == 50
    assert list(clients) == sorted(clients)
    arrays = [clients[client].inputs for client in clients]
    assert {array.shape for array in arrays} == {(EXAMPLES, 1, 8, 8)}
    assert len({array.__array_interface__["data"][0] for array in arrays}) == 50, "no two have the same examples"
    assert len({id(array.base) for array in arrays}) == 1
    for unknown in ("client-000050", "client-1", "writer-000001", "client-x"):
        assert unknown not in clients


@pytest.mark.parametrize(("model", "size"), [("mlp", 6010), ("wide mlp", 99_985), ("conv net", 1986)])
def test_models_have_the_parameters_that_are_said(model: str, size: int) -> None:
    plan = plan_of(Work(100, model), 3)
    assert len(initial_vector(plan)) == size
    Engine(plan)  # or else rounds would be trained one by one
    assert plan.rounds.cohort_size == len(federation_of(Work(100, model), 3).training) == 100


STEPPERS: list[tuple[Peer, bool, int]] = [
    (peers.TRAINING["MLP"][1].peer, False, 3),
    (peers.TRAINING["MLP, DP-SGD"][1].peer, True, 3),
    (peers.TRAINING["MLP"][2].peer, False, 3),
]


@pytest.mark.parametrize(("peer", "private", "warm_up"), STEPPERS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_peer_takes_every_step_of_every_client(
    peer: Peer, private: bool, warm_up: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if peer is STEPPERS[2][0]:
        pytest.importorskip("pfl", reason="the extra 'bench' is not installed")
    taken = 0
    optimizer = DPOptimizer if private else torch.optim.SGD
    step = optimizer.step

    def counted(self: torch.optim.Optimizer, *args: object) -> object:
        nonlocal taken
        taken += self.param_groups[0]["lr"] == LOOP.learning_rate  # and not that of pfl's server
        return step(self, *args)

    monkeypatch.setattr(optimizer, "step", counted)
    at_turns: list[int] = []
    peer(Work(CLIENTS, private=private), ROUNDS, lambda: at_turns.append(taken))
    assert at_turns == [LOOP.steps * (warm_up + number * CLIENTS) for number in range(1 + ROUNDS)]


@pytest.mark.parametrize("private", [False, True])
def test_the_loops_learn(private: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds begin where the last one's average is, and every client at the same."""
    kind = "MLP, DP-SGD" if private else "MLP"
    seen: list[float] = []
    loss_of = torch.nn.functional.cross_entropy

    def watched(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = loss_of(outputs, targets)
        seen.append(loss.item())
        return loss

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", watched)
    torch.manual_seed(0)
    losses: list[float] = []

    def turn() -> None:
        losses.append(float(np.mean(seen)))
        seen.clear()

    peers.TRAINING[kind][1].peer(Work(CLIENTS, private=private), 4, turn)
    assert losses[-1] < losses[1] - 0.1


@pytest.mark.parametrize(
    ("peer", "work"),
    [
        (peers.TRAINING["MLP"][0].peer, Work(CLIENTS)),
        (peers.TRAINING["conv net, DP-SGD"][0].peer, Work(CLIENTS, "conv net", private=True)),
        (peers.ROUNDS["whole rounds"][0].peer, Work(CLIENTS)),
        (peers.ROUNDS["whole rounds, DP-SGD"][0].peer, Work(CLIENTS, private=True)),
        (peers.SECURE[1].peer, Work(CLIENTS, secure=True)),
    ],
    ids=["engine", "engine, DP-SGD on a conv net", "rounds", "rounds with DP-SGD", "mask-free"],
)
def test_ours_trains_every_client_by_the_engine(peer: Peer, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: Counter[int] = Counter()
    turns = 0
    train = Engine.train

    def counted(self: Engine, model: object, jobs: Sequence[object]) -> object:
        trained[turns] += len(jobs)
        assert all(len(job.rows) == LOOP.steps for job in jobs)
        assert all((job.mechanism is not None) == work.private for job in jobs)
        return train(self, model, jobs)

    def turn() -> None:
        nonlocal turns
        turns += 1

    monkeypatch.setattr(Engine, "train", counted)
    peer(work, ROUNDS, turn)
    assert turns == 1 + ROUNDS
    assert [trained[number] for number in range(1, 1 + ROUNDS)] == [CLIENTS] * ROUNDS


# Processes of their own


def test_memory_let_go_of_counts_and_nobody_elses_does() -> None:
    heavy, light = in_turn([(bench_peers.heavy_start, None, 1), (bench_peers.spins_below, None, 0)], IMPORTED)
    held = bench_peers.MEGABYTES * 1_000_000
    assert held < heavy.peak_bytes - heavy.idle_bytes < 3 * held
    assert light.peak_bytes - light.idle_bytes < held / 4


def test_processes_below_count() -> None:
    (cost,) = in_turn([(bench_peers.spins_below, None, 1)], IMPORTED)
    assert cost.cpu_seconds >= bench_peers.SPUN_SECONDS - 0.02  # told by the tick


def test_peers_take_turns(tmp_path: Path) -> None:
    log = tmp_path / "log"
    in_turn([(bench_peers.says_who, log, 3), (bench_peers.says_who, log, 2)], IMPORTED)
    lines = [line.split() for line in log.read_text().splitlines()]
    first, second = lines[0][0], lines[1][0]
    assert first != second
    assert lines == [[first, "0"], [second, "0"], [first, "1"], [second, "1"], [first, "2"]]


def test_a_peer_that_fails_is_named_with_what_it_said_last() -> None:
    with pytest.raises(UsageError, match=r"the third client fell over.*fails ended early"):
        in_turn([(bench_peers.fails, None, 1)], IMPORTED)


# The fit

SIZES = (10, 30, 100, 300, 1000, 3000)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.3, 2.0])
@pytest.mark.parametrize("fixed", [0.0, 0.01, 3.0])
def test_a_known_growth_is_found(exponent: float, fixed: float) -> None:
    growth = fit_growth({size: fixed + 0.004 * size**exponent for size in SIZES})
    assert growth is not None
    assert growth.exponent == pytest.approx(exponent, abs=0.01)
    assert growth.seconds_each == pytest.approx(0.004, rel=0.1)
    assert growth.fixed_seconds == pytest.approx(fixed, rel=0.05, abs=1e-3)
    assert growth.largest_deviation < 1e-3
    assert growth.name == {0.5: "less than linear", 1.0: "linear"}.get(exponent, "more than linear")


def test_a_fit_says_how_far_off_it_is() -> None:
    seconds = {size: 0.004 * size for size in SIZES}
    growth = fit_growth({**seconds, 100: 0.8})
    assert growth is not None
    assert 0.2 < growth.largest_deviation < 0.6


def test_three_sizes_are_no_growth() -> None:
    assert fit_growth({10: 1.0, 100: 10.0, 1000: 100.0}) is None


# What is run, and what is shown


def pretend(seconds_each: Callable[[str], float], runs: list[tuple[str, int, int]]) -> Callable[..., list[Cost]]:
    def run(cases: Sequence[tuple[Peer, Work, int]]) -> list[Cost]:
        runs.extend((peer.__name__, work.clients, rounds) for peer, work, rounds in cases)
        costs = [seconds_each(peer.__name__) * max(work.clients, 1) for peer, work, _ in cases]
        return [Cost(1.5, cost, 0.9 * cost, 400_000_000, 300_000_000) for cost in costs]

    return run


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Of a benchmark whose peers take 10 ms a client, and ours 1 ms; pfl is there, and Ray is not."""
    found: list[tuple[str, int, int]] = []
    monkeypatch.setattr(
        measured, "in_turn", pretend(lambda name: 0.01 if "loop" in name or "pfl" in name else 0.001, found)
    )
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None if name == "ray" else object())
    return found


def everything(clients: int = DEFAULT_CLIENTS) -> Measured:
    return measure(3, clients, PARTS, lambda _: None)


def test_long_rounds_are_run_once_or_at_their_first_and_peers_not_at_all(runs: list[tuple[str, int, int]]) -> None:
    found = everything(100_000)
    of = {(name, clients): rounds for name, clients, rounds in runs}
    assert [of["plain_loop", size] for size in (100, 300, 1000, 3000)] == [3, 3, 1, 1]
    assert ("plain_loop", 10_000) not in of
    assert found.rounds["whole rounds"][10_000]["PyTorch loop"] == NotRun("not run: about 100 s")
    assert [of["whole_rounds", size] for size in (1000, 3000)] == [3, 3]
    assert measured._repeats_of(61.0, 3) == 0


def test_who_is_not_installed_is_said_and_the_others_go_on(runs: list[tuple[str, int, int]]) -> None:
    found = everything()
    assert {name for name, _, _ in runs} == {
        *("plain_loop", "opacus_loop", "pfl_rounds", "engine_alone"),
        *("whole_rounds", "mask_free_rounds", "digits_in_process"),
    }
    assert found.digits["Flower on Ray"] == NotRun("not installed: pip install 'testudo-fl[ray]'")
    ray = [each for each in measurements(found) if "Flower on Ray" in each.reference_name]
    assert ray
    assert all(each.reference is None and "pip install" in each.reference_name for each in ray)


def test_ray_is_run_at_few_sizes(runs: list[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda _: object())
    everything()
    assert [clients for name, clients, _ in runs if name == "ray_rounds"] == [10, 100]


@pytest.mark.usefixtures("runs")
def test_every_figure_is_there_once_with_its_ratio() -> None:
    found = measurements(everything())
    assert len({(each.case, each.metric, each.reference_name) for each in found}) == len(found)
    assert all(each.ours > 0 for each in found if each.metric != "largest_deviation_of_fit")
    cpu = next(each for each in found if each.case == "train 100 clients, MLP" and each.metric == "cpu_seconds")
    assert (cpu.reference_name, cpu.ratio) == ("PyTorch loop", pytest.approx(0.1))
    exponents = {each.case.partition("clients, ")[2]: each.ours for each in found if each.metric == "exponent"}
    assert set(exponents) == {
        *("Testudo", "Testudo, DP-SGD", "PyTorch loop", "Opacus loop", "pfl-research", "with masks", "mask-free"),
    }
    assert all(value == pytest.approx(1.0, abs=0.01) for value in exponents.values())
    assert set(found[0].as_dict()) == {"case", "metric", "unit", "ours", "reference", "reference_name", "ratio"}


@pytest.mark.usefixtures("runs")
def test_tables_and_drawing_name_everybody() -> None:
    found = everything()
    console = Console(width=100, file=io.StringIO(), record=True)
    print_tables(found, console)
    text = console.export_text()
    svg = draw(found)
    assert svg is not None
    for name in (
        "Testudo",
        "Testudo, DP-SGD",
        "PyTorch loop",
        "Opacus loop",
        "pfl-research",
        "with masks",
        "mask-free",
    ):
        assert name in text
        assert f"{name}</text>" in svg
    assert "Flower on Ray: not installed: pip install 'testudo-fl[ray]'" in text
    assert "clients^1.00, linear" in text
    assert draw(measure(1, 100, ["digits"], lambda _: None)) is None


@pytest.mark.usefixtures("runs")
def test_the_command_keeps_drawing_and_data(tmp_path: Path) -> None:
    out = tmp_path / "bench"
    words = ["bench", "simulation", "--part", "rounds,digits", "--clients", "300", "--out", str(out), "--json"]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed == json.loads((out / "simulation.json").read_text())
    assert {each["case"].partition(",")[0] for each in printed} >= {"whole rounds", "a round of digits"}
    assert (out / "simulation.svg").read_text().startswith("<svg ")


def test_a_part_that_there_is_not_is_refused() -> None:
    done = CliRunner().invoke(cli.app, ["bench", "simulation", "--part", "rounds,speed"])
    assert isinstance(done.exception, UsageError)
    assert "'speed'" in str(done.exception)


def test_options_of_this_benchmark_are_refused_by_others() -> None:
    done = CliRunner().invoke(cli.app, ["bench", "ledger", "--clients", "500"])
    assert isinstance(done.exception, UsageError)
    assert "leave them out" in str(done.exception)
