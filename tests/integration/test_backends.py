"""The same apps in this process, on Flower's Ray simulation, and by ``flwr run``."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from testudo_common.plan.load import dump_plan, parse_plan
from testudo_server.store import RunStore
from testudo_simulations.federations import load_federation
from testudo_simulations.federations.base import Federation
from testudo_simulations.inline_backend import federate_in_process
from testudo_simulations.scenarios import find_plan

REPOSITORY = Path(__file__).resolve().parents[2]
CLIENTS = 6
# Private training with a noise multiplier of 0: all of the private path, and repeatable.
NOISELESS = ['privacy.unit="example"', "privacy.noise_multiplier=0.0"]
SMALL = [f"data.clients={CLIENTS}", "data.unseen_clients=2", "rounds.count=3", "rounds.cohort_size=4"]


def _federation(*extra: str) -> Federation:
    tables, source = find_plan("sine")
    return load_federation(parse_plan(tables, source=source, settings=[*SMALL, *extra]), None)


@pytest.mark.slow
@pytest.mark.network
def test_ray_gives_the_same_model(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    from testudo_simulations.ray_backend import federate_on_ray

    federation = _federation(*NOISELESS)
    here = federate_in_process(federation, RunStore(tmp_path / "here", durable=False), None)
    on_ray = federate_on_ray(federation, None, tmp_path / "ray", RunStore(tmp_path / "ray", durable=False))
    assert not np.array_equal(here.model, np.zeros_like(here.model))
    assert np.abs(here.model - on_ray.model).max() <= 1e-6
    assert here.participations == on_ray.participations


@pytest.fixture
def flower_home(tmp_path: Path) -> Iterator[Path]:
    """A private ``FLWR_HOME``; the SuperLink that ``flwr run`` starts in it is stopped by its own process id."""
    home = tmp_path / "flower"
    home.mkdir()
    yield home
    for pid in _processes_with(f"FLWR_HOME={home}"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _processes_with(setting: str) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if setting.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="stopping Flower's own SuperLink needs /proc")
def test_flwr_run_runs_the_same_apps(tmp_path: Path, flower_home: Path) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    federation = _federation()
    (tmp_path / "plan.toml").write_text(dump_plan(federation.plan), encoding="utf-8")
    out = tmp_path / "out"
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "flwr"), "run", str(REPOSITORY), "local", "--stream"),
            *("--federation-config", f"num-supernodes={CLIENTS}"),
            *("-c", f'plan="{tmp_path / "plan.toml"}" out="{out}"'),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "FLWR_HOME": str(flower_home),
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    state = RunStore(out).load(federation.plan.digest)
    assert state.round == federation.plan.rounds.count
    here = federate_in_process(federation, RunStore(tmp_path / "here", durable=False), None)
    assert np.abs(here.model - state.model).max() <= 1e-6
