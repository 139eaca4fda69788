"""A run that is killed goes on where it was, and ends where it would have ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import SMALL_SINE, settings

Command = Callable[..., subprocess.CompletedProcess[str]]

ROUNDS = 60
LONGER = [*SMALL_SINE, f"rounds.count={ROUNDS}", "evaluation.every_rounds=20"]
PLAIN = "secure_aggregation.mode=plain"
PRIVATE = ['privacy.unit="example"', "privacy.epsilon=8", "privacy.accountant=rdp"]


def _arguments(out: str, lines: list[str]) -> list[str]:
    return ["run", "sine", "--out", out, "--no-comparisons", "--json", *settings(lines)]


def _kill_in_the_middle(folder: Path, arguments: list[str]) -> int:
    """Start a run, kill it with SIGKILL once some rounds are kept; returns how many those were."""
    process = subprocess.Popen(
        [sys.executable, "-m", "testudo_simulations.cli", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    kept = folder / "killed" / "rounds.jsonl"
    ends = time.monotonic() + 120
    while time.monotonic() < ends and process.poll() is None:
        if kept.exists() and kept.read_text().count("\n") >= 3:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "the run was over before it could be killed"
    return kept.read_text().count("\n")


def _result(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    return dict(run)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_model(command: Command, tmp_path: Path) -> None:
    lines = [*LONGER, PLAIN]
    whole = _result(command("simulations", *_arguments("whole", lines)))
    kept = _kill_in_the_middle(tmp_path, _arguments("killed", lines))
    assert 3 <= kept < ROUNDS
    resumed = _result(command("simulations", *_arguments("killed", lines), "--resume"))
    assert resumed["model_digest"] == whole["model_digest"]
    assert len(resumed["rounds"]) == ROUNDS  # type: ignore[arg-type]
    assert resumed["curve"] == whole["curve"]


@pytest.mark.slow
def test_a_killed_private_run_spends_no_more_than_planned(command: Command, tmp_path: Path) -> None:
    lines = [*LONGER, *PRIVATE, PLAIN]
    _kill_in_the_middle(tmp_path, _arguments("killed", lines))
    resumed = _result(command("simulations", *_arguments("killed", lines), "--resume"))
    assert resumed["privacy"]["epsilon"] <= 8.0  # type: ignore[index]
    assert all(record["excluded"] == [] for record in resumed["rounds"])  # type: ignore[attr-defined]


def test_resuming_with_another_plan_is_refused(command: Command) -> None:
    assert command("simulations", *_arguments("out", SMALL_SINE)).returncode == 0
    other = command("simulations", *_arguments("out", [*SMALL_SINE, "inner.steps=7"]), "--resume")
    assert other.returncode != 0
    assert "another plan" in other.stderr


def test_a_finished_run_is_not_trained_again(command: Command) -> None:
    first = _result(command("simulations", *_arguments("out", SMALL_SINE)))
    again = _result(command("simulations", *_arguments("out", SMALL_SINE), "--resume"))
    assert again == first
