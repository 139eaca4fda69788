"""Several runs of one plan: settings x seeds, side by side in worker processes. Decides what runs, not how it runs."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testudo_common.errors import UsageError
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import parse_plan
from testudo_simulations.results import RunResult
from testudo_simulations.workers import Forward, OnJobProgress, run_in_workers

if TYPE_CHECKING:
    from testudo_simulations.inline_backend import Computing
    from testudo_simulations.run import RunRequest


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a sweep.

    Attributes:
        plan: Of this run.
        setting: What the sweep changed, such as ``epsilon = 8``.
        folder: Of this run, below the sweep's; ``.`` when it is the only one.
    """

    plan: FederationPlan
    setting: str
    folder: str


def parse_sweep(text: str) -> tuple[str, tuple[str, ...]]:
    """Key and values of ``key=a,b,c``.

    Raises:
        UsageError: It is not of that form, or a value stands there twice.
    """
    key, equals, listed = text.partition("=")
    values = tuple(value.strip() for value in listed.split(","))
    if not key.strip() or not equals or not all(values) or len(set(values)) < len(values):
        raise UsageError(f"{text!r} is not a sweep", remedy="write it as key=a,b,c with every value once")
    return key.strip(), values


def settings_for(key: str, value: str) -> list[str]:
    """The plan's settings for one value of a sweep; ``epsilon`` switches privacy on, or with ``none`` off."""
    if key != "epsilon":
        return [f"{key}={value}"]
    unit = "none" if value == "none" else "example"
    return [f'privacy.unit="{unit}"', f"privacy.epsilon={value}", "privacy.noise_multiplier=none"]


def make_jobs(
    tables: Mapping[str, Any], *, source: str, settings: Iterable[str], sweeps: Iterable[str], seeds: int
) -> list[Job]:
    """Every combination of swept values, each with seeds ``seed``, ``seed + 1``, and so on.

    Args:
        tables: Of the plan, as tomllib reads them.
        source: What to call the plan in an error.
        settings: ``section.key=value`` for all runs.
        sweeps: ``key=a,b,c`` each.
        seeds: 1 or more.

    Raises:
        UsageError: A sweep is not of its form, or two runs would share a folder.
        PlanError: A combination is not a valid plan.
    """
    common = list(settings)
    axes = [[(key, value) for value in values] for key, values in map(parse_sweep, sweeps)]
    jobs = []
    for combination in itertools.product(*axes):
        setting = ", ".join(f"{key} = {value}" for key, value in combination)
        changed = [*common, *(line for key, value in combination for line in settings_for(key, value))]
        first = parse_plan(tables, source=source, settings=changed)
        for seed in range(first.seed, first.seed + seeds):
            plan = parse_plan(tables, source=source, settings=[*changed, f"seed={seed}"])
            parts = [f"{key}-{value}" for key, value in combination] + ([f"seed-{seed}"] if seeds > 1 else [])
            jobs.append(Job(plan, setting, "/".join(_slug(part) for part in parts) or "."))
    for folder, count in Counter(job.folder for job in jobs).items():
        if count > 1:
            raise UsageError(
                f"{count} runs of the sweep would share the folder {folder!r}",
                remedy="choose values that differ in letters or digits",
            )
    return jobs


def run_jobs(
    jobs: list[Job],
    *,
    data: Path | None,
    out: Path,
    backend: str,
    computing: Computing,
    comparisons: bool,
    resume: bool,
    workers: int,
    on_progress: OnJobProgress,
    ray_address: str = "",
) -> list[RunResult]:
    """All jobs, in ``workers`` processes at once; results in the order of the jobs.

    Raises:
        TestudoError: The first that any run raised; runs that were finished are kept in their folders.
    """
    from testudo_simulations.run import RunRequest

    requests = [
        RunRequest(
            plan=job.plan,
            data=data,
            out=out / job.folder,
            setting=job.setting,
            backend=backend,  # type: ignore[arg-type]  # the command line offers only these
            computing=computing,
            ray_address=ray_address,
            comparisons=comparisons,
            resume=resume,
        )
        for job in jobs
    ]
    return run_in_workers(_run, requests, workers=workers, on_progress=on_progress)


def _run(request: RunRequest, forward: Forward) -> RunResult:
    from testudo_simulations.run import run

    return run(request, forward)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text)
