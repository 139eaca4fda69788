"""Real processes on one ledger: killed at every point where something reaches the disk, and racing each other."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ledger_cases import DATA, DELTA, STEP, in_folder, reserve
from testudo_client.ledger import Reserved
from testudo_common.privacy.accountant import epsilon_of
from testudo_common.privacy.events import Spending

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT / top) for top in ("common", "client", "server", "simulations", "tests")]
CHILD = [sys.executable, str(ROOT / "tests/ledger_child.py")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)}


@pytest.mark.slow
def test_a_kill_at_any_point_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    done = subprocess.run(
        [*CHILD, "kill", str(tmp_path)], capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    survivor = int(done.stdout)
    assert survivor > 100, "opening, two anchors and three entries reach the disk more often than that"
    reached = set()
    for point in range(1, survivor + 1):
        home = tmp_path / str(point)
        said = [line.split() for line in Path(f"{home}.said").read_text(encoding="utf-8").splitlines()]
        promised = {int(index) for word, index in said if word == "reserved"}
        ledger = in_folder(home, home / "far" / "anchor")
        entries = ledger.entries()  # the chain verifies, the anchors fit, nobody adopts
        there = {entry.index for entry in entries if isinstance(entry.content, Reserved)}
        assert promised <= there, point
        assert len(there) <= len(promised) + 1, "at most the one that was being written"
        assert ledger.spent(DATA) == (STEP.times(len(there)) if there else Spending())
        assert reserve(ledger, 9) == len(entries)
        assert in_folder(home, home / "far" / "anchor").entries() == ledger.entries()
        assert not list(home.rglob("*-journal"))
        reached.add((len(entries), len(promised)))
    # Also where an entry is there that nobody was told of: the kill between the commit and the anchors.
    assert {(1, 0), (2, 0), (2, 1), (3, 1), (4, 1), (4, 2)} <= reached


@pytest.mark.slow
def test_two_processes_that_race_for_what_fits_take_exactly_that(tmp_path: Path) -> None:
    """For the last round that fits, which exactly one wins, and for seven."""
    racers = [
        subprocess.Popen(
            [*CHILD, "race"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=ENVIRONMENT
        )
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    for rounds in (1, 7, 1, 1):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        ledger = in_folder(folder)
        reserve(ledger, 1)
        most = epsilon_of(STEP.times(1 + rounds).example, DELTA, "rdp") + 1e-9
        for racer in racers:
            assert racer.stdin
            racer.stdin.write(f"{folder} {most!r}\n")
        won = []
        for racer in racers:
            assert racer.stdout
            while (line := racer.stdout.readline()) != "refused\n":
                won.append(int(line.split()[1]))
        assert sorted(won) == list(range(2, 2 + rounds))
        assert ledger.spent(DATA) == STEP.times(1 + rounds)
    for racer in racers:
        racer.communicate(timeout=60)
        assert racer.returncode == 0
