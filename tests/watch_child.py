"""Checks an own model and is killed on the way; for integration/test_watch_kill.py.

``FOLDER TEMPLATE``: for K = 1, 2, ... a child makes a check in FOLDER/K, which begins as a copy of TEMPLATE, and is
killed at the K-th point where something reaches the disk. Ends after the first child that survives, and says its K.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from pathlib import Path

import scipy.stats  # noqa: F401  # before the fork, with all that a check needs

from killed_at import endanger, say
from watched_models import checked


def main(folder: str, template: str) -> None:
    for point in itertools.count(1):
        home = Path(folder) / str(point)
        shutil.copytree(template, home)
        if (child := os.fork()) == 0:
            endanger(point)
            checked(home, many=1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            say(point)
            return
        assert os.WIFSIGNALED(status), f"{home}: a child failed"
        assert os.WTERMSIG(status) == signal.SIGKILL


if __name__ == "__main__":
    main(*sys.argv[1:])
