"""What is told of a run on real machines, and how it is found and ended by others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from helpers import make_plan
from testudo_common.errors import UsageError
from testudo_server.deployment.progress import RunProgress, spent_by
from testudo_server.deployment.run_lock import held_lock, holder_of
from testudo_server.deployment.run_status import RunStatus, read_status, write_status
from testudo_server.deployment.status_command import killed, status_lines, stop
from testudo_server.outer_step import init_outer
from testudo_server.store import RoundRecord, RunState

PLAN = make_plan("rounds.count=2", "rounds.min_replies=2")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_who_holds_a_folder_is_known_and_holds_it_alone(tmp_path: Path) -> None:
    assert holder_of(tmp_path) is None
    with held_lock(tmp_path, busy="busy", remedy="wait"):
        assert holder_of(tmp_path) == os.getpid()
        with pytest.raises(UsageError, match=r"busy\. wait"), held_lock(tmp_path, busy="busy", remedy="wait"):
            pass
    assert holder_of(tmp_path) is None
    assert (tmp_path / "server.lock").read_text() == f"{os.getpid()}\n"  # it says so still, and is not believed


def status_of(**more: Any) -> RunStatus:
    known = {"federation": "shops", "plan": "small", "plan_digest": "ab", "state": "running", "rounds": 4}
    return RunStatus(**{**known, "started": NOW, "updated": NOW, **more})


def record_of(number: int, *excluded: tuple[str, str]) -> RoundRecord:
    return RoundRecord(number, "ab", ("ada", "bob"), excluded, 0.1, 1.5, 100, 50)


def state_of(number: int) -> RunState:
    outer = init_outer(PLAN.outer, 1)
    return RunState(PLAN.digest, number, np.zeros(1, np.float32), outer, {"ada": number, "bob": 1})


def progress_in(folder: Path, plan: Any = PLAN, **more: Any) -> tuple[RunProgress, Console]:
    console = Console(record=True, width=120, force_terminal=False, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    return RunProgress(folder, status_of(state="starting", **more), plan, console), console


def test_progress_is_told_in_lines_and_in_the_status(tmp_path: Path) -> None:
    progress, console = progress_in(tmp_path)
    with progress:
        assert read_status(tmp_path).state == "starting"
        progress.waiting(1, 2)
        assert (read_status(tmp_path).state, read_status(tmp_path).connected) == ("waiting", 1)
        progress.waiting(1, 2)
        progress.waiting(2, 2)
        assert read_status(tmp_path).state == "running"
        progress.finished_round(state_of(1), record_of(1, ("bob", "no reply before the deadline")))
        progress.finished_round(state_of(2), record_of(2))
    found = read_status(tmp_path)
    assert (found.round, found.asked, found.counted, found.left_out) == (2, 2, 2, 0)
    assert (found.round_seconds, found.bytes_down, found.bytes_up) == ((1.5, 1.5), 200, 100)
    assert console.export_text().splitlines() == [
        "waiting for owners: 1 of 2 connected",
        "round 1 of 4: 1 of 2 count, 1.5 s",
        "round 2 of 4: 2 of 2 count, 1.5 s",
    ]


def test_a_resumed_run_counts_what_was_before(tmp_path: Path) -> None:
    progress, _ = progress_in(tmp_path)
    with progress:
        progress.earlier(state_of(1), [record_of(1)])
        progress.finished_round(state_of(2), record_of(2))
    assert read_status(tmp_path).bytes_down == 200
    assert read_status(tmp_path).round_seconds == (1.5, 1.5)


def test_epsilon_grows_with_every_attempt() -> None:
    private = make_plan(
        "privacy.unit=example", "privacy.noise_multiplier=1.0", "privacy.max_grad_norm=1.0", "privacy.accountant=rdp"
    )
    spent = [spent_by(private, often, 4)["example"] for often in (1, 2, 3)]
    assert 0 < spent[0] < spent[1] < spent[2]
    assert spent_by(private, 0, 4) == spent_by(PLAN, 3, 4) == {}


def test_status_in_words(tmp_path: Path) -> None:
    write_status(tmp_path, status_of(round=2, asked=3, counted=2, round_seconds=(2.0,), epsilon={"example": 1.25}))
    with held_lock(tmp_path, busy="", remedy=""):
        assert status_lines(tmp_path) == [
            "shops: small, running",
            "round 2 of 4",
            "last round: 2 of 3 counted, 2.0 s; 0 bytes down, 0 up so far",
            "epsilon for one example, at the most: 1.25",
        ]
    assert status_lines(tmp_path)[0] == "shops: small, not running any more; testudo-server run ... --resume goes on"


def test_a_run_that_is_over_was_not_killed(tmp_path: Path) -> None:
    assert killed(tmp_path, status_of())
    assert not killed(tmp_path, status_of(state="finished"))


def test_stop_reaches_whoever_holds_the_run_and_nobody_else(tmp_path: Path) -> None:
    write_status(tmp_path, status_of())
    assert not stop(tmp_path, timeout_seconds=1.0)
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom testudo_server.deployment.run_lock import held_lock\n"
        "with held_lock(Path(sys.argv[1]), busy='', remedy=''):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert stop(tmp_path, timeout_seconds=20.0)
        assert holder.wait(10) == -signal.SIGTERM


def test_stop_needs_a_runs_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name the folder of a run"):
        stop(tmp_path, timeout_seconds=1.0)
