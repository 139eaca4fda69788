"""Watching that is killed at every point where something reaches the disk goes on as if it had not been."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from testudo_client.watching.policy import Proposed
from testudo_client.watching.proposals import read_proposals
from testudo_client.watching.state import read_state
from watched_models import DRIFT, checked, serve, watched_home

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT / top) for top in ("common", "client", "server", "simulations", "tests")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)}


def test_a_kill_at_any_point_makes_the_same_check_and_the_same_proposal_again(tmp_path: Path) -> None:
    template = watched_home(tmp_path / "template")
    serve(template, 60, seed=5, shift=DRIFT)
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/watch_child.py"), str(tmp_path), str(template)],
        capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    survivor = int(done.stdout)
    assert survivor > 20, "a proposal, a line of the log and what is remembered reach the disk more often than that"
    whole = read_state(tmp_path / str(survivor) / "state")
    assert whole is not None
    assert whole.state == Proposed(flags=1, number=1)
    begun = set()
    for point in range(1, survivor):
        home = tmp_path / str(point)
        begun.add((bool(read_proposals(home / "state")), read_state(home / "state") is not None))
        checked(home, many=1)
        assert read_state(home / "state") == whole, point
        assert [one.number for one in read_proposals(home / "state")] == [1], point
        assert checked(home).found is None, "nothing is checked twice"
    assert begun == {(False, False), (True, False), (True, True)}
