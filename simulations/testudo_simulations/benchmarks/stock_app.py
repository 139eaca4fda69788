"""A ServerApp that does nothing but exchange messages as Flower's guides have it; see deployment.py."""

from __future__ import annotations

import json
import time
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from testudo_common.flower_records import IDENTIFY

app = ServerApp()
_DEADLINE_SECONDS = 180.0


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Ask every node for its name, again and again; the seconds of each exchange go into the file ``out``."""
    nodes, exchanges = int(context.run_config["nodes"]), int(context.run_config["exchanges"])
    ends = time.monotonic() + _DEADLINE_SECONDS
    while len(list(grid.get_node_ids())) < nodes and time.monotonic() < ends:
        time.sleep(0.2)
    seconds = []
    for _ in range(exchanges):
        asked = [Message(RecordDict(), node, IDENTIFY, ttl=_DEADLINE_SECONDS) for node in grid.get_node_ids()]
        started = time.perf_counter()
        replies = list(grid.send_and_receive(asked, timeout=_DEADLINE_SECONDS))
        if len(replies) != nodes or any(reply.has_error() for reply in replies):
            raise RuntimeError("an exchange brought in too little")
        seconds.append(time.perf_counter() - started)
    Path(str(context.run_config["out"])).write_text(json.dumps(seconds), encoding="utf-8")
