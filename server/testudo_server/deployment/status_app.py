"""The status listener's ASGI application: page, JSON and metrics, to be read from this machine only."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from testudo_common.errors import UsageError
from testudo_server.deployment.door_counts import DoorCounts
from testudo_server.deployment.metrics import CONTENT_TYPE, exposed
from testudo_server.deployment.run_status import RunStatus, read_status
from testudo_server.deployment.status_page import Shown, page

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True)
class StatusSources:
    """What is shown.

    Attributes:
        run: Folder of the run.
        counts: Of the door.
        members: How many may come in, and how many were revoked.
        connections: How many are open from outside.
    """

    run: Path
    counts: DoorCounts
    members: Callable[[], tuple[int, int]]
    connections: Callable[[], int]

    def status(self) -> RunStatus | None:
        """Of the run, as it was last written; None where there is none that can be read."""
        try:
            return read_status(self.run)
        except UsageError:
            return None


def status_app(sources: StatusSources, hosts: tuple[str, ...]) -> ASGIApp:
    """The application.

    Args:
        sources: What is shown.
        hosts: Names by which it may be called besides loopback's. Any other name was put in a browser's way by a
            stranger's page (DNS rebinding).
    """

    def shown() -> Shown:
        sources.counts.connections = sources.connections()
        return Shown(sources.status(), sources.counts, sources.members(), datetime.now(UTC))

    async def show_page(_: Request) -> Response:
        return HTMLResponse(page(shown()), headers=HEADERS)

    async def show_json(_: Request) -> Response:
        return Response(as_json(shown()), media_type="application/json", headers=HEADERS)

    async def show_metrics(_: Request) -> Response:
        now = shown()
        return Response(exposed(now.status, now.counts, now.members), headers={**HEADERS, "content-type": CONTENT_TYPE})

    routes = [
        Route("/", show_page, methods=["GET"]),
        Route("/status.json", show_json, methods=["GET"]),
        Route("/metrics", show_metrics, methods=["GET"]),
    ]
    known = ["localhost", "127.0.0.1", "[::1]", *hosts]
    return Starlette(
        routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=known, www_redirect=False)]
    )


def as_json(shown: Shown) -> str:
    """The run's status under ``run`` (null where there is none), and what the door counted under ``door``."""
    counts = shown.counts
    door = {
        "members": shown.members[0],
        "revoked": shown.members[1],
        "connections": counts.connections,
        "answered": sum(counts.answered.values()),
        "refused": dict(sorted(counts.refused.items())),
        "received_bytes": counts.bytes_in,
        "sent_bytes": counts.bytes_out,
        "certificate_expires": None if counts.certificate_expires is None else counts.certificate_expires.isoformat(),
    }
    run = None if shown.status is None else shown.status.model_dump(mode="json")
    return json.dumps({"run": run, "door": door}, indent=2)
