"""What ``doctor`` looks at between an owner's folder and its server: files, environment, name, TCP, TLS, clock."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from http.client import HTTPException

from testudo_client.deployment.check import Check, fails, ok, refused, tried, warning
from testudo_client.deployment.diagnosis import FORBIDDEN, UNAUTHORIZED, clock_fault, of_answer, of_failure
from testudo_client.deployment.door import KEY_PATH, MAX_AHEAD_SECONDS, MAX_BEHIND_SECONDS, TIMEOUT_SECONDS, ask
from testudo_client.deployment.tls import check_key_file, door_context, own_certificate, root_days_left, utc_now
from testudo_client.home import OwnerHome
from testudo_client.membership import read_membership
from testudo_client.provisioning.connection import Connection, ConnectionFiles, read_connection
from testudo_common.errors import TestudoError
from testudo_common.flower_environment import proxies_in
from testudo_common.provisioning.expiry import WARN_DAYS

_NEAR = 0.5
"""Of a limit of the clock: from there on it is said."""
_OTHERS = 0o077


def of_files(home: OwnerHome) -> Iterator[Check]:
    """Keys are private, certificates hold, and the roster holds this owner."""
    files = ConnectionFiles(home.folder)
    yield tried("private files", lambda: _private(home, files))
    yield _days("your certificate", lambda: own_certificate(files).days_left(utc_now()), "testudo-client renew")
    yield _days("the federation's root", lambda: root_days_left(files, utc_now()), "ask your federation for a new one")
    yield tried("roster", lambda: _roster(home))


def of_environment(environment: Mapping[str, str] = os.environ) -> Iterator[Check]:
    """Proxies, which a node does not use unless it is told to."""
    found = proxies_in(environment)
    if not found:
        yield ok("proxy", "none is set")
        return
    yield warning(
        "proxy", f"{', '.join(found)} is set, and a node does not use it: say --use-proxy if there is no other way out"
    )


def of_server(home: OwnerHome, now: datetime) -> Iterator[Check]:
    """From its name to its answer; what cannot be looked at any more is left away.

    Args:
        home: The owner's folder.
        now: By this computer's clock.
    """
    try:
        connection = read_connection(home.folder)
        context = door_context(connection.files, home.policy().pins.server_certificate)
    except TestudoError as error:
        yield refused("connection", error)
        return
    try:
        found = socket.getaddrinfo(connection.host, connection.port, type=socket.SOCK_STREAM)
    except OSError:
        yield fails("DNS", f"{connection.host} is not known here: check this computer's network and its DNS")
        return
    yield ok("DNS", f"{connection.host} is {found[0][4][0]}")
    try:
        socket.create_connection((connection.host, connection.port), timeout=TIMEOUT_SECONDS).close()
    except OSError as error:
        yield fails("TCP", of_failure(error, connection).sentence)
        return
    yield ok("TCP", f"{connection.address} takes connections")
    try:
        answer = ask(connection, context, KEY_PATH)
    except (OSError, HTTPException) as error:
        yield fails("TLS", of_failure(error, connection).sentence)
        return
    yield from _of_certificate(connection, answer.certificate_not_after, now)
    if answer.status in {UNAUTHORIZED, FORBIDDEN}:
        yield fails("admission", of_answer(answer, answer.status).sentence)
    else:
        yield ok("admission", "the server takes your certificate")
    yield _clock(answer.ahead_seconds)


def _of_certificate(connection: Connection, not_after: datetime | None, now: datetime) -> Iterator[Check]:
    if not_after is None:
        yield ok("TLS", f"{connection.address} is the server of your federation")
        return
    days = (not_after - now).total_seconds() / 86400
    said = f"{connection.address} is the server of your federation, and its certificate holds {days:.0f} more days"
    yield ok("TLS", said) if days >= WARN_DAYS else warning("TLS", f"{said}: tell your federation")


def _clock(ahead: float | None) -> Check:
    name = "clock"
    if ahead is None:
        return warning(name, "the server does not say what time it is")
    if found := clock_fault(ahead):
        return fails(name, found)
    said = (
        f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's; allowed are "
        f"{MAX_AHEAD_SECONDS:.0f} s ahead and {MAX_BEHIND_SECONDS:.0f} s behind"
    )
    near = ahead > MAX_AHEAD_SECONDS * _NEAR or ahead < -MAX_BEHIND_SECONDS * _NEAR
    return warning(name, f"{said}: let NTP keep it") if near else ok(name, said)


def _private(home: OwnerHome, files: ConnectionFiles) -> str:
    keys = (home.identity_file, files.client_key, files.node_key)
    for path in keys:
        check_key_file(path)
    if home.folder.stat().st_mode & _OTHERS:
        return f"{len(keys)} keys that only you can read; others can see names in the folder: chmod 700 {home.folder}"
    return f"{len(keys)} keys that only you can read"


def _roster(home: OwnerHome) -> str:
    membership = read_membership(home.folder)
    return f"{membership.client_id!r} is one of {len(membership.roster.members)} of {membership.roster.federation!r}"


def _days(name: str, days_left: Callable[[], float], remedy: str) -> Check:
    try:
        days = days_left()
    except TestudoError as error:
        return refused(name, error)
    if days < 0:
        return fails(name, f"expired {-days:.0f} days ago: {remedy}")
    said = f"holds {days:.0f} more days"
    return ok(name, said) if days >= WARN_DAYS else warning(name, f"{said}: {remedy}")
