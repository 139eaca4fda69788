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
from small_runs import rounding_of

from testudo_common.audit.log import AuditLog
from testudo_common.learning.learner import initial_vector
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import dump_plan, parse_plan
from testudo_server.audit_file import read_log
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


MODES = pytest.mark.parametrize("mode", ["plain", "secure"])


def _federation(mode: str, *extra: str) -> Federation:
    tables, source = find_plan("sine")
    settings = [*SMALL, f"secure_aggregation.mode={mode}", *extra]
    return load_federation(parse_plan(tables, source=source, settings=settings), None)


def _tolerance(plan: FederationPlan) -> float:
    """How far two runs of one plan may be apart in a coordinate."""
    return rounding_of(plan) if plan.secure else 1e-6


def test_tolerance_is_far_below_what_a_round_changes() -> None:
    assert _tolerance(_federation("plain").plan) == 1e-6
    assert 1e-5 < _tolerance(_federation("secure").plan) < 1e-4


@pytest.mark.slow
@pytest.mark.network
@MODES
def test_ray_gives_the_same_model(tmp_path: Path, mode: str) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    from testudo_simulations.ray_backend import federate_on_ray

    federation = _federation(mode, *NOISELESS)
    here = federate_in_process(federation, RunStore(tmp_path / "here", durable=False), None).state
    store = RunStore(tmp_path / "ray", durable=False)
    on_ray = federate_on_ray(federation, None, tmp_path / "ray", store)
    assert np.abs(here.model - initial_vector(federation.plan)).max() > 1e-3, "the runs must have changed something"
    assert np.abs(here.model - on_ray.model).max() <= _tolerance(federation.plan)
    assert here.participations == on_ray.participations
    _no_client_was_set_aside(store, federation.plan)
    _everybody_mirrors_the_log(tmp_path / "ray")


def _everybody_mirrors_the_log(folder: Path) -> None:
    """Each client in a file of its own, which outlives its process."""
    with read_log(folder) as log:
        entries = list(log.entries())
    mirrors = sorted((folder / "clients").glob("*/state/audit-*.db"))
    assert len(mirrors) == CLIENTS
    for path in mirrors:
        mirror = AuditLog(path)
        assert list(mirror.entries()) == entries
        mirror.close()
    sent = sum(entry.startswith(b'{"statement":{"attempt"') for entry in entries)
    assert len(list((folder / "clients").glob("*/receipts/*/*.tlog-proof"))) == sent > 0


def _no_client_was_set_aside(store: RunStore, plan: FederationPlan) -> None:
    for record in store.records():
        assert record.excluded == ()
        assert [group.survivors for group in record.groups] == ([record.cohort] if plan.secure else [])


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
@MODES
def test_flwr_run_runs_the_same_apps(tmp_path: Path, flower_home: Path, mode: str) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    federation = _federation(mode)
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
    here = federate_in_process(federation, RunStore(tmp_path / "here", durable=False), None).state
    assert np.abs(here.model - state.model).max() <= _tolerance(federation.plan)
    _no_client_was_set_aside(RunStore(out), federation.plan)
