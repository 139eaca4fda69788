"""Owners for many rounds on the real set-up, by hand: does memory, or the number of files or handles, grow? No tests.

    python tests/soak.py --owners 20 --rounds 50

Every process is one of its own (zygote.py). After each fifth round it is looked at: memory that a process has to
itself, its open handles, its threads, and how many files of how many bytes lie in the folders.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from testudo_simulations.deployment.command import free_port, shop_names
from testudo_simulations.deployment.provisioned import provision
from testudo_simulations.deployment.tables import write_tables
from zygote import ForkedFederation, Zygote, children_of

EVERY = 5
SECONDS = 900.0


def own_kib(pid: int) -> int:
    """Memory that a process shares with no other, KiB: of a fork, what it has written since."""
    fields = re.findall(r"(?m)^Private_\w+:\s+(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text())
    return sum(map(int, fields))


def seen(pid: int) -> dict[str, int]:
    """What a process holds."""
    process = Path(f"/proc/{pid}")
    seconds = sum(map(int, (process / "stat").read_text().rsplit(")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")
    return {
        "own_kib": own_kib(pid),
        "handles": len(list((process / "fd").iterdir())),
        "threads": len(list((process / "task").iterdir())),
        "cpu_seconds": round(seconds),
    }


def lying(folder: Path) -> dict[str, int]:
    """Files below a folder, and their bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}


def sample(federation: ForkedFederation) -> dict[str, Any]:
    """All of it, now."""
    assert federation.server is not None
    found = federation.provisioned
    owner, folder = next(iter(found.owners.items()))
    pids = {"server": federation.server.pid, **children_of(federation.server.pid)}
    own = federation.owners[owner].pid
    pids |= {"owner": own, "supernode": children_of(own)["supernode"]}
    return {
        "round": federation.status()["round"],
        "processes": {name: seen(pid) for name, pid in pids.items()},
        "folders": {"run": lying(federation.out), "federation": lying(found.federation), "owner": lying(folder)},
    }


def edited(text: str, options: argparse.Namespace) -> str:
    """The plan of the shops, made small."""
    changes = {
        r"(?m)^(count|max_participations) = \d+$": rf"\1 = {options.rounds}",
        r"epsilon = 8\.0": 'noise_multiplier = 5.0\naccountant = "rdp"',
        r"steps = 10": "steps = 2",
        r"hidden = \[16\]": "hidden = [4]",
    }
    if options.plain:
        changes[r"(?m)^group_size = "] = 'mode = "plain"\ngroup_size = '
    for pattern, value in changes.items():
        text, found = re.subn(pattern, value, text)
        assert found, pattern
    return text


def main() -> None:
    """Print a line of JSON each time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--owners", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--plain", action="store_true", help="plain aggregation: an exchange a round, and the log's")
    parser.add_argument("--folder", type=Path, default=Path("runs/soak"), help="is deleted first")
    options = parser.parse_args()
    folder = options.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    shops = shop_names(options.owners)
    with Zygote(folder / "zygote") as zygote:
        plan = write_tables(folder / "data", shops, rows=40)
        plan.write_text(edited(plan.read_text(), options))
        data = {shop: folder / "data" / f"{shop}.csv" for shop in shops}
        found = provision(folder, plan, data, port=free_port())
        with ForkedFederation(zygote, found, folder / "run", folder / "logs") as federation:
            federation.start()
            began = time.monotonic()
            for number in [1, *range(EVERY, options.rounds, EVERY)]:
                federation.wait_for_round(number, SECONDS)
                print(json.dumps({"seconds": round(time.monotonic() - began), **sample(federation)}), flush=True)
            federation.finish(SECONDS)
    print(json.dumps({"left": lying(folder / "federation" / "superlink")}))


if __name__ == "__main__":
    sys.exit(main())
