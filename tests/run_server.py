"""``testudo-server run`` with the stub in the door's place. No tests."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from testudo_common.commands import run_command
from testudo_server.deployment.preflight import parse_address
from testudo_server.deployment.run_command import RunOptions, run

DOOR = (sys.executable, str(Path(__file__).with_name("door_stub.py")))


def main() -> None:
    plan, federation, out, listen, *flags = sys.argv[1:]
    found = run(
        RunOptions(
            Path(plan),
            Path(federation),
            Path(out),
            listen=parse_address(listen, "--listen"),
            status=parse_address("127.0.0.1:0", "--status"),
            resume="--resume" in flags,
            wait_seconds=60.0,
            door=DOOR,
        )
    )
    print(json.dumps(None if found is None else dataclasses.asdict(found)))


if __name__ == "__main__":
    run_command(main)
