"""What a container asks an owner's node: gRPC health, as an exit status."""

from __future__ import annotations

import pytest

from testudo_client.deployment import healthcheck
from testudo_client.deployment.health import HealthService
from testudo_common.errors import UsageError

pytestmark = pytest.mark.network


def test_only_a_node_that_serves_is_well(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    service = HealthService("127.0.0.1:0")
    try:
        with pytest.raises(UsageError, match="not connected"):
            healthcheck.app([service.address], standalone_mode=False)
        service.tell(serving=True)
        healthcheck.app([service.address], standalone_mode=False)
        assert capsys.readouterr().out == "serving\n"
    finally:
        service.stop()
    with pytest.raises(UsageError, match="nobody answers"):
        healthcheck.app([service.address], standalone_mode=False)
