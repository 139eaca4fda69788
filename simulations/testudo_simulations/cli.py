"""``testudo-simulate``: many clients on one machine. Reads the command line and draws; everything else is elsewhere."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import testudo_simulations.deployment.cli as deployment_cli
from testudo_common.commands import run_command
from testudo_common.errors import UsageError
from testudo_simulations.benchmarks import BENCHMARKS
from testudo_simulations.benchmarks.simulation import DEFAULT_CLIENTS, PARTS, run_simulation_benchmark

if TYPE_CHECKING:
    from testudo_simulations.progress import JobProgress
    from testudo_simulations.results import Report, RunResult

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Train and judge a federation on one machine.\n\n"
    "Example: [bold]testudo-simulate run digits --sweep epsilon=none,8 --seeds 3[/bold]",
)

_VERSIONS_OF = ("testudo-fl", "flwr", "torch", "opacus", "numpy", "scikit-learn")


class Backend(StrEnum):
    """Where the clients run."""

    inline = "inline"
    mask_free = "mask-free"
    ray = "ray"


class Device(StrEnum):
    """Where the engine trains."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


PlanArgument = Annotated[str, typer.Argument(help="A scenario's name, or the path of a plan.", show_default=False)]
DataOption = Annotated[Path | None, typer.Option("--data", help="The federation's data.", show_default=False)]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Folder for the run; default runs/NAME-TIME.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the plan; repeat for more.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the report as JSON on standard output.")]
EngineOption = Annotated[
    bool, typer.Option("--engine/--one-by-one", help="Train clients that share the model at once, or each by itself.")
]
DeviceOption = Annotated[Device, typer.Option(help="Where the engine trains; auto: on CUDA where there is some.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="The engine's, in each run; default: the cores that --jobs leaves."),
]
JobsOption = Annotated[int, typer.Option("--jobs", min=1, help="Runs at once, each in a process.")]


@app.command(
    epilog="Example: testudo-simulate run csv --data shops.csv "
    "--set data.client=shop --set data.target=sales --set task.kind=regression"
)
def run(
    plan: PlanArgument,
    data: DataOption = None,
    out: OutOption = None,
    settings: SetOption = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option("--sweep", metavar="KEY=A,B,C", help="One run for each value, such as epsilon=none,8,2."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=1000, help="Seeds for each value.")] = 1,
    jobs: JobsOption = os.cpu_count() or 1,
    backend: Annotated[
        Backend,
        typer.Option(
            help="inline: in this process. mask-free: the same, secure sums without masks. ray: Flower's simulation."
        ),
    ] = Backend.inline,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="The Ray cluster to run on; default: $RAY_ADDRESS, or one that is started on this machine alone.",
            show_default=False,
        ),
    ] = None,
    engine: EngineOption = True,
    device: DeviceOption = Device.auto,
    threads: ThreadsOption = None,
    comparisons: Annotated[bool, typer.Option(help="Also run FedAvg and the non-federated baselines.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a federation and judge it on clients it never saw."""
    address = _ray_address(ray_address, backend)
    from testudo_simulations.inline_backend import computing_on
    from testudo_simulations.scenarios import find_plan
    from testudo_simulations.sweep import make_jobs, run_jobs

    tables, source = find_plan(plan)
    planned = make_jobs(tables, source=source, settings=settings or [], sweeps=sweep or [], seeds=seeds)
    if resume and out is None:
        raise UsageError("--resume needs the folder of the run to go on with", remedy="name it by --out")
    folder = out or Path("runs") / f"{planned[0].plan.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    workers = 1 if backend is Backend.ray else min(jobs, len(planned))
    computing = computing_on(device.value, threads or max(1, (os.cpu_count() or 1) // workers), engine=engine)
    with _progress([f"{job.setting or job.plan.name}, seed {job.plan.seed}" for job in planned]) as progress:
        results = run_jobs(
            planned,
            data=data,
            out=folder,
            backend=backend.value,
            computing=computing,
            comparisons=comparisons,
            resume=resume,
            workers=workers,
            on_progress=progress.update,
            ray_address=address,
        )
    _finish(_report(planned[0].plan.name, results), folder, as_json=as_json)


@app.command(epilog="Example: testudo-simulate demo")
def demo(out: OutOption = None, jobs: JobsOption = os.cpu_count() or 1, as_json: JsonOption = False) -> None:
    """The main job in about a minute: digits in everybody's own hand, without privacy and at epsilon 8."""
    run("demo", out=out, sweep=["epsilon=none,8"], jobs=jobs, as_json=as_json)


@app.command(epilog="Example: testudo-simulate scenarios")
def scenarios() -> None:
    """List the plans that come with the simulator."""
    from testudo_simulations.scenarios import scenario_about, scenario_names

    for name in scenario_names():
        typer.echo(f"{name:<10} {scenario_about(name)}")


@app.command(epilog="Example: testudo-simulate plan digits --set privacy.epsilon=4 > my-plan.toml")
def plan(plan: PlanArgument, settings: SetOption = None, data: DataOption = None) -> None:
    """Check a plan and print it whole; with --data, also with what the data fills in."""
    from testudo_common.plan.load import dump_plan, parse_plan
    from testudo_simulations.scenarios import find_plan

    tables, source = find_plan(plan)
    checked = parse_plan(tables, source=source, settings=settings or [])
    if data is not None:
        from testudo_simulations.federations import load_federation

        checked = load_federation(checked, data).plan
    typer.echo(dump_plan(checked), nl=False)


@app.command(epilog="Example: testudo-simulate report runs/digits-20260102-030405")
def report(
    path: Annotated[Path, typer.Argument(help="A report.json, or the folder that holds it.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Show a report again, and draw its page anew."""
    from testudo_simulations.report import read_report

    folder = path if path.is_dir() else path.parent
    _finish(read_report(path), folder, as_json=as_json)


@app.command(
    epilog="Example: testudo-simulate attacks attacks-digits --poisoned 4 --attack alie --defence mean,recommended"
)
def attacks(
    plan: PlanArgument = "attacks-digits",
    data: DataOption = None,
    out: OutOption = None,
    settings: SetOption = None,
    attack: Annotated[
        list[str] | None,
        typer.Option("--attack", help="Attacks, parted by commas; default: the best known.", show_default=False),
    ] = None,
    defence: Annotated[
        list[str] | None,
        typer.Option(
            "--defence",
            help="Defences, parted by commas: rules joined by +, recommended, +unshared_head, +tasks=K, +groups=M.",
            show_default=False,
        ),
    ] = None,
    poisoned: Annotated[
        list[int] | None,
        typer.Option("--poisoned", min=1, help="Poisoned clients; repeat for more.", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=1000, help="Seeds for each cell.")] = 2,
    jobs: JobsOption = os.cpu_count() or 1,
    masks: Annotated[bool, typer.Option("--masks", help="Mask secure sums too: slower, and the same bits.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the matrix in --out, or let it grow.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Poison clients of a federation, and show which defences hold: attack x defence, as table, CSV and heat map."""
    from testudo_simulations.attacks.command import MatrixRequest, run_attacks

    folder = out or Path("runs") / f"attacks-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if resume and out is None:
        raise UsageError("--resume needs the folder of the matrix to go on with", remedy="name it by --out")
    request = MatrixRequest(
        plan=plan,
        data=data,
        settings=tuple(settings or ()),
        attacks=_listed(attack),
        defences=_listed(defence),
        poisoned=tuple(sorted(set(poisoned or ()))),
        seeds=seeds,
        masks=masks,
    )
    run_attacks(request, folder, jobs=jobs, resume=resume, as_json=as_json)


@app.command(epilog="Example: testudo-simulate frontier --clients 1000 --cohort 100 --corruption 0.05 --min-group 3")
def frontier(
    clients: Annotated[int, typer.Option(min=1, help="Clients of the federation.")] = 100,
    cohort: Annotated[
        int | None, typer.Option(min=1, help="Clients asked a round; default: all of them.", show_default=False)
    ] = None,
    corruption: Annotated[float, typer.Option(help="Share of the clients that may be poisoned.")] = 0.1,
    dropout: Annotated[float, typer.Option(help="Share of a group that may drop out.")] = 0.2,
    min_group: Annotated[
        int, typer.Option(help="Fewest clients in a sum that the owners accept; 1: the server may see each update.")
    ] = 3,
    max_failure: Annotated[
        float, typer.Option(help="Chance, a round, of more bad rows than the rule outvotes.")
    ] = 1e-3,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the drawing and the data.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Privacy against robustness: the groups and the rule for a federation, or which number to move."""
    from testudo_common.robustness import Wish
    from testudo_simulations.frontier_command import run_frontier

    wish = Wish(
        clients=clients,
        cohort=min(cohort or clients, clients),
        corruption=corruption,
        dropout=dropout,
        min_group=min_group,
        max_failure=max_failure,
    )
    run_frontier(wish, out, as_json=as_json)


@app.command("split-views", epilog="Example: testudo-simulate split-views --witnesses 10 --quorum 7 --colluders 2")
def split_views(
    witnesses: Annotated[int, typer.Option(min=1, max=1000, help="Clients that cosign the audit log.")] = 10,
    quorum: Annotated[
        int | None,
        typer.Option(min=1, help="How many have to cosign; default: more than two thirds.", show_default=False),
    ] = None,
    colluders: Annotated[
        int | None,
        typer.Option(
            min=0, help="Witnesses that sign both histories; default: as many as are found out.", show_default=False
        ),
    ] = None,
    dropout: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the rounds that a witness is absent in.")
    ] = 0.1,
    window: Annotated[int, typer.Option(min=1, max=100, help="Rounds for which a cosignature counts.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Split the clients between two histories of the audit log, and show how many colluders it takes to get away."""
    from testudo_simulations.split_views_command import SplitRequest, run_split_views

    run_split_views(SplitRequest(witnesses, quorum, colluders, dropout, window), as_json=as_json)


def _listed(values: list[str] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for value in values or () for name in value.split(",") if name.strip()))


@app.command(epilog="Example: testudo-simulate bench simulation --part rounds --clients 10000 --out bench")
def bench(
    name: Annotated[
        str, typer.Argument(help=f"Which benchmark: {', '.join(BENCHMARKS)}; all for each of them.")
    ] = "all",
    repeats: Annotated[
        int,
        typer.Option(
            min=1, max=100, help="Each figure is the median of so many; an accuracy is the mean over so many seeds."
        ),
    ] = 3,
    clients: Annotated[
        int, typer.Option("--clients", min=100, max=100_000, help="simulation: the most clients in a round.")
    ] = DEFAULT_CLIENTS,
    part: Annotated[
        list[str] | None,
        typer.Option(
            "--part", help=f"simulation: {', '.join(PARTS)}, parted by commas; default: all.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="simulation: folder for the drawing and the data.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure speed against a peer or a limit in the same run, and accuracy beside a published one."""
    if name == "simulation":
        run_simulation_benchmark(repeats, clients=clients, parts=_listed(part), out=out, as_json=as_json)
        return
    from testudo_simulations.benchmarks import run_benchmarks

    run_benchmarks(name, repeats=repeats, as_json=as_json)


def _ray_address(option: str | None, backend: Backend) -> str:
    if backend is not Backend.ray:
        if option is not None:
            raise UsageError("no Ray cluster is used", where="--ray-address", remedy="add --backend ray")
        return ""
    from testudo_simulations.ray_cluster import address_of, expect_ray_at

    if address := address_of(option):
        expect_ray_at(address)
    return address


def _progress(titles: list[str]) -> JobProgress:
    from testudo_simulations.progress import JobProgress

    return JobProgress(titles)


def _report(title: str, results: list[RunResult]) -> Report:
    from testudo_simulations.results import Report

    return Report(
        title=title,
        created=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        versions={name: _version(name) for name in _VERSIONS_OF} | {"python": sys.version.split()[0]},
        runs=results,
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _finish(report: Report, folder: Path, *, as_json: bool) -> None:
    from testudo_simulations.report import write_report

    json_path, html_path = write_report(report, folder)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
        return
    from rich.console import Console

    from testudo_simulations.report.terminal import print_summary

    print_summary(report, Console())
    typer.echo(f"Report: {html_path}\nAs data: {json_path}")


deployment_cli.add_to(app)


def main() -> None:
    """Entry point of ``testudo-simulate``."""
    run_command(
        app,
        on_interrupt="Interrupted. Finished rounds are kept: the same command with --resume and --out goes on",
    )


if __name__ == "__main__":
    main()
