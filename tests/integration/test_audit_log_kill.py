"""A process that is killed at every point where an audit log reaches the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from audit_log_child import ENTRIES, FILE, STEPS
from testudo_common.audit.checkpoints import parse_checkpoint
from testudo_common.audit.log import AuditLog
from testudo_common.audit.merkle import Tree, leaf_hash, verify_consistency
from testudo_common.audit.notes import parse_note

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT / top) for top in ("common", "tests")]
CHILD = [sys.executable, str(ROOT / "tests/audit_log_child.py")]


def test_a_kill_at_any_point_leaves_a_log_that_extends_every_note_ever_kept(tmp_path: Path) -> None:
    done = subprocess.run(
        [*CHILD, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)},
    )
    assert done.returncode == 0, done.stderr
    survivor = int(done.stdout)
    assert survivor > 50, "opening, three appends and a note reach the disk more often than that"
    states = [(0, {})] + [(stop, notes_after(number)) for number, (_, stop, _) in enumerate(STEPS)]
    reached = set()
    for point in range(1, survivor + 1):
        said = Path(f"{tmp_path / str(point)}.said").read_text(encoding="utf-8").splitlines()
        acknowledged = sum(line.startswith("step") for line in said)
        log = AuditLog(tmp_path / str(point) / FILE)
        notes = {parse_checkpoint(parse_note(note).text).size: note for note in log.notes()}
        # All of a step or nothing of it; and of those that were acknowledged, all.
        assert (log.size, notes) in states[acknowledged : acknowledged + 2], point
        assert list(log.entries()) == ENTRIES[: log.size]
        for size, note in notes.items():
            checkpoint = parse_checkpoint(parse_note(note).text)
            assert log.root(size) == checkpoint.root
            verify_consistency(size, checkpoint.root, log.size, log.root(), log.consistency_proof(size))
        reached.add((acknowledged, states.index((log.size, notes))))
        log.append(ENTRIES[log.size :])
        assert log.root() == Tree(map(leaf_hash, ENTRIES)).root()
        log.close()
        assert {path.name for path in (tmp_path / str(point) / FILE).parent.iterdir()} == {Path(FILE).name}
    # Also a step that is on the disk and that nobody was told of: the kill between the commit and its return.
    assert {(done, done) for done in range(5)} | {(done, done + 1) for done in range(4)} == reached


def notes_after(step: int) -> dict[int, bytes]:
    kept = [note for _, _, note in STEPS[: step + 1] if note is not None]
    return {parse_checkpoint(parse_note(note).text).size: note for note in kept}
