"""``testudo-simulate``: many clients on one machine. Reads the command line and draws; everything else is elsewhere."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import testudo_simulations.benchmarks.cli as benchmarks_cli
import testudo_simulations.deployment.cli as deployment_cli
import testudo_simulations.examples.cli as examples_cli
import testudo_simulations.judging.cli as judging_cli
from testudo_common.commands import run_command
from testudo_common.errors import UsageError
from testudo_simulations import defences_cli
from testudo_simulations.options import CORES, DataOption, JobsOption, JsonOption, OutOption, PlanArgument, SetOption

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


EngineOption = Annotated[
    bool, typer.Option("--engine/--one-by-one", help="Train clients that share the model at once, or each by itself.")
]
DeviceOption = Annotated[Device, typer.Option(help="Where the engine trains; auto: on CUDA where there is some.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="The engine's, in each run; default: the cores that --jobs leaves."),
]


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
    jobs: JobsOption = CORES,
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
    computing = computing_on(device.value, threads or max(1, CORES // workers), engine=engine)
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
def demo(out: OutOption = None, jobs: JobsOption = CORES, as_json: JsonOption = False) -> None:
    """The main job in less than a minute: digits in everybody's own hand, without privacy and at epsilon 8."""
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


defences_cli.add_to(app)
benchmarks_cli.add_to(app)
deployment_cli.add_to(app)
examples_cli.add_to(app)
judging_cli.add_to(app)


def main() -> None:
    """Entry point of ``testudo-simulate``."""
    run_command(
        app,
        on_interrupt="Interrupted. Finished rounds are kept: the same command with --resume and --out goes on",
    )


if __name__ == "__main__":
    main()
