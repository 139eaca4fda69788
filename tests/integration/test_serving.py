"""A server as its owner starts it: many requests with malformed ones, another version, a kill, and a quiet end."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from own_models import CLINIC_ROWS
from serve_process import HttpLine
from serve_soak import run
from testudo_client.observations import Observations


@pytest.mark.slow
@pytest.mark.network
def test_none_is_lost_or_wrong_over_another_version_and_a_kill(tmp_path: Path) -> None:
    """tests/serve_soak.py with fewer requests."""
    server, seen, asked = run(tmp_path, 1000)
    assert seen.wrong == []
    assert len(seen.answers) + sum(seen.refused.values()) == len(asked)
    assert {version for version, _ in seen.answers.values()} == {1, 2}
    assert {"400", "401", "415", "422", "INVALID_ARGUMENT"} <= set(seen.refused)
    assert seen.again > 0, "the kill met somebody"
    assert "this version is damaged" in server.log() and "version 2 is in use, after 1" in server.log()
    assert server.token not in server.log()

    async def asked_as_it_stops() -> int:
        line = HttpLine(server)
        small, large = (json.dumps({"rows": CLINIC_ROWS * count}).encode() for count in (1, 2000))
        await line.post("/v1/predict", small)  # the connection is there

        async def stop() -> None:
            assert server.process is not None
            server.process.send_signal(signal.SIGTERM)
            while "stopping: requests in flight" not in server.log():
                await asyncio.sleep(0.01)

        return len((await line.post("/v1/predict", large, halfway=stop))[1]["answers"])

    assert asyncio.run(asked_as_it_stops()) == 4000, "what is in flight is answered"
    assert server.end() == 0
    assert not (tmp_path / "state/serve/addresses.json").exists()
    kept = Observations(tmp_path / "state")
    assert len(kept.since().targets) >= 4000, "what was answered before it stopped is kept"
    kept.close()
