"""Who is connected, right after a server has started: whoever has spoken since, and not whoever Flower last knew of.

Flower (1.41) takes a node for connected for a minute after its last heartbeat, also where the SuperLink was not running
meanwhile. A round that is begun with such nodes waits for some that are gone. So all are taken for gone when a server
starts, and the first poll of a node, which comes within three seconds of one that is there, brings it back at once
rather than with its next heartbeat.
"""

from __future__ import annotations

import base64
import binascii
import sqlite3
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import closing
from pathlib import Path
from typing import Any

_POLL = "/v1/fleet/pull-messages"
_KEY_HEADER = b"flwr-public-key"
_OK = 200

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Send], Awaitable[None]]


def forget_presence(database: Path) -> int:
    """Take every node for gone, in the database of a SuperLink that does not run.

    Returns:
        How many were taken for connected.
    """
    if not database.exists():
        return 0
    with closing(sqlite3.connect(database, isolation_level=None)) as opened:
        if opened.execute("SELECT 1 FROM sqlite_master WHERE name = 'node'").fetchone() is None:
            return 0
        gone = "UPDATE node SET status = 'offline', online_until = ? WHERE status = 'online'"
        return opened.execute(gone, (time.time(),)).rowcount


def noticing(app: App, came: Callable[[bytes], object]) -> App:
    """``app``, which tells once of every node whose poll it has answered.

    Args:
        app: The SuperLink's, which has checked that the request is signed with the key that it names.
        came: Told the public key, as Flower keeps it.
    """
    seen: set[bytes] = set()

    async def notice(scope: Scope, receive: Callable[[], Awaitable[Any]], send: Send) -> None:
        key = _key_in(scope)
        if key is None or key in seen:
            await app(scope, receive, send)
            return

        async def watch(event: MutableMapping[str, Any]) -> None:
            if event["type"] == "http.response.start" and event["status"] == _OK and key not in seen:
                seen.add(key)
                came(key)
            await send(event)

        await app(scope, receive, watch)

    return notice


def _key_in(scope: Scope) -> bytes | None:
    if scope["type"] != "http" or scope["path"] != _POLL:
        return None
    given = [value for name, value in scope.get("headers", ()) if name == _KEY_HEADER]
    try:
        return base64.b64decode(given[0], validate=True) if len(given) == 1 else None
    except binascii.Error:
        return None
