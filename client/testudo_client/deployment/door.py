"""Asks the federation's door for one of its own files, over the node's TLS. Decides nothing, keeps nothing.

Uses no proxy and follows no redirect. What goes wrong is raised as it came: diagnosis.py says what it means.
"""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPSConnection

from testudo_client.provisioning.connection import Connection

ROSTER_PATH = "/testudo/roster.json"
KEY_PATH = "/testudo/federation.pub"
PLAN_PATH = "/testudo/plan.toml"
TIMEOUT_SECONDS = 10.0

MAX_AHEAD_SECONDS = 5.0
"""Flower refuses what a node signed later than this by the server's clock (SYSTEM_TIME_TOLERANCE)."""
MAX_BEHIND_SECONDS = 305.0
"""... or longer ago than this (TIMESTAMP_TOLERANCE and SYSTEM_TIME_TOLERANCE together)."""


class RefusedError(ssl.SSLError):
    """The door ended the connection after it had shown who it is: it does not take this owner's certificate."""


@dataclass(frozen=True, slots=True)
class DoorAnswer:
    """What the door answered.

    Attributes:
        status: Of HTTP.
        body: At the most as long as was allowed, and one byte more if there was more.
        ahead_seconds: How far this computer's clock is ahead of the server's, by half a second; None: it did not say.
        certificate_not_after: When the certificate that it presented expires, UTC; None: not known.
    """

    status: int
    body: bytes
    ahead_seconds: float | None
    certificate_not_after: datetime | None


def ask(connection: Connection, context: ssl.SSLContext, path: str, *, max_bytes: int = 1 << 16) -> DoorAnswer:
    """GET ``path`` at the door.

    Args:
        connection: The owner's.
        context: See testudo_client.deployment.tls.
        path: Of the door's own.
        max_bytes: Of the answer.

    Raises:
        RefusedError: The door is the right one, and does not take the owner's certificate.
        OSError: No connection, or no TLS.
        HTTPException: What came is not HTTP.
    """
    http = HTTPSConnection(connection.host, connection.port, timeout=TIMEOUT_SECONDS, context=context)
    try:
        http.connect()
        not_after = _not_after(http.sock)
        started = time.time()
        try:
            http.request("GET", path, headers={"connection": "close"})
            answer = http.getresponse()
        except ssl.SSLError as error:  # TLS 1.3 looks at the client's certificate once the handshake is over
            raise RefusedError(error.errno, str(error.reason)) from error
        middle = (started + time.time()) / 2
        body = answer.read(max_bytes + 1)
        return DoorAnswer(answer.status, body, _ahead(middle, answer.getheader("date")), not_after)
    finally:
        http.close()


def _ahead(now: float, date: str | None) -> float | None:
    try:
        server = parsedate_to_datetime(date or "").timestamp()
    except (ValueError, TypeError):
        return None
    return now - (server + 0.5)  # HTTP's date has whole seconds


def _not_after(socket: object) -> datetime | None:
    shown = socket.getpeercert() if isinstance(socket, ssl.SSLSocket) else None
    if not shown or "notAfter" not in shown:
        return None
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown["notAfter"])), UTC)
