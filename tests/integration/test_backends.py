"""The same apps by ``flwr run``, on its Ray simulation. Clusters are test_ray_cluster.py's."""

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
from backend_runs import CLIENTS, no_client_was_set_aside, small_federation, tolerance_of

from testudo_common.plan.load import dump_plan
from testudo_server.store import RunStore
from testudo_simulations.inline_backend import federate_in_process

REPOSITORY = Path(__file__).resolve().parents[2]


def test_tolerance_is_far_below_what_a_round_changes() -> None:
    assert tolerance_of(small_federation("plain").plan) == 1e-6
    assert 1e-5 < tolerance_of(small_federation("secure").plan) < 1e-4


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
    federation = small_federation("secure")
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
            # Else it would join whatever Ray cluster it finds on this machine, or start one that all can reach.
            "RAY_ADDRESS": "local",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    state = RunStore(out).load(federation.plan.digest)
    assert state.round == federation.plan.rounds.count
    here = federate_in_process(federation, RunStore(tmp_path / "here", durable=False), None).state
    assert np.abs(here.model - state.model).max() <= tolerance_of(federation.plan)
    no_client_was_set_aside(RunStore(out), federation.plan)
