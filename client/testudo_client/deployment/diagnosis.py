"""Why a node is not connected, in one sentence that says what to do; and whether it can mend without its owner.

Looks from the inside outwards: own files, name, TCP, TLS, the door's answer, the clock, and what Flower was told last.
Only what the owner has to change ends a node: whoever stands on the way to the server can forge everything else.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from http.client import HTTPException, RemoteDisconnected

from testudo_client.deployment.door import (
    KEY_PATH,
    MAX_AHEAD_SECONDS,
    MAX_BEHIND_SECONDS,
    DoorAnswer,
    RefusedError,
    ask,
)
from testudo_client.deployment.tls import OwnCertificate, PinError, door_context, own_certificate, utc_now
from testudo_client.policy.sections import Pins
from testudo_client.provisioning.connection import Connection
from testudo_common.errors import KeyFileError

UNAUTHORIZED, FORBIDDEN, TOO_MANY = 401, 403, 429
_EXPIRED, _NOT_YET, _NO_ISSUER, _NAMES = 10, 9, {18, 19, 20, 21}, {62, 63, 64}  # X509_V_ERR_*


class Cause(StrEnum):
    """Why. Fixed words."""

    OWN_FILES = "own_files"
    OWN_EXPIRED = "own_expired"
    OWN_REFUSED = "own_refused"
    REVOKED = "revoked"
    WRONG_NODE_KEY = "wrong_node_key"
    NAME = "name"
    NO_CONNECTION = "no_connection"
    SERVER_EXPIRED = "server_expired"
    SERVER_UNTRUSTED = "server_untrusted"
    SERVER_NAME = "server_name"
    NOT_PINNED = "not_pinned"
    TLS = "tls"
    CLOCK = "clock"
    UNKNOWN_NODE = "unknown_node"
    NOT_READY = "not_ready"
    OLD_SESSION = "old_session"


LASTING = frozenset({Cause.OWN_FILES, Cause.OWN_EXPIRED, Cause.OWN_REFUSED, Cause.REVOKED, Cause.WRONG_NODE_KEY})
"""What does not mend until the owner does something."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a node is not connected.

    Attributes:
        cause: As a fixed word.
        sentence: For the owner, with what to do.
    """

    cause: Cause
    sentence: str

    @property
    def lasts(self) -> bool:
        """Whether trying again is of no use."""
        return self.cause in LASTING


def diagnose(
    connection: Connection, pins: Pins = "any", *, last_status: int = 0, now: Callable[[], datetime] = utc_now
) -> Diagnosis:
    """Find out why.

    Args:
        connection: The owner's.
        pins: ``pins.server_certificate`` of its policy.
        last_status: What Flower was answered last: 0 where there was no answer.
        now: This computer's clock.
    """
    try:
        own = own_certificate(connection.files)
        context = door_context(connection.files, pins)
    except KeyFileError as error:
        return Diagnosis(Cause.OWN_FILES, str(error))
    if found := _of_own_dates(own, now()):
        return found
    try:
        socket.getaddrinfo(connection.host, connection.port, type=socket.SOCK_STREAM)
    except OSError:
        return Diagnosis(
            Cause.NAME,
            f"The server's name {connection.host!r} is not known here: check this computer's network and DNS, "
            "or ask your federation for its address.",
        )
    try:
        answer = ask(connection, context, KEY_PATH)
    except (OSError, HTTPException) as error:
        return of_failure(error, connection)
    return of_answer(answer, last_status)


def _of_own_dates(own: OwnCertificate, now: datetime) -> Diagnosis | None:
    if own.not_after < now:
        return Diagnosis(
            Cause.OWN_EXPIRED,
            f"Your certificate expired on {own.not_after:%Y-%m-%d}: renew it with testudo-client renew, and install "
            "the answer.",
        )
    if own.not_before > now:
        return Diagnosis(
            Cause.CLOCK,
            f"Your certificate holds from {own.not_before:%Y-%m-%d %H:%M} UTC on, and here it is "
            f"{now:%Y-%m-%d %H:%M}: set this computer's clock.",
        )
    return None


def of_failure(error: Exception, connection: Connection) -> Diagnosis:
    """What a request that was not answered means."""
    if isinstance(error, ssl.SSLError | HTTPException) and not isinstance(error, RemoteDisconnected):
        return _of_tls(error, connection.address)
    return _of_network(error, connection)


def _of_tls(error: Exception, place: str) -> Diagnosis:
    if isinstance(error, PinError):
        return Diagnosis(
            Cause.NOT_PINNED,
            f"{place} presents a certificate that your policy does not pin: compare it with your federation by another "
            "way, and change pins.server_certificate only if it is the new one.",
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_verification(error.verify_code, place)
    if isinstance(error, RefusedError):
        return Diagnosis(
            Cause.OWN_REFUSED,
            f"{place} refuses your certificate: ask your federation whether it was revoked, and install a new answer.",
        )
    return Diagnosis(
        Cause.TLS,
        f"What answers at {place} is not the server of your federation, or something on the way changes what is "
        "sent: check the address, and proxies and firewalls on the way.",
    )


def _of_network(error: Exception, connection: Connection) -> Diagnosis:
    place = connection.address
    if isinstance(error, RemoteDisconnected | ConnectionResetError | BrokenPipeError):
        return Diagnosis(
            Cause.NO_CONNECTION,
            f"{place} closes the connection: the server may be starting, or a firewall on the way ends it.",
        )
    if isinstance(error, ConnectionRefusedError):
        return Diagnosis(
            Cause.NO_CONNECTION,
            f"Nothing answers at {place}: the server is not running now, or the port is wrong; ask your federation.",
        )
    return Diagnosis(
        Cause.NO_CONNECTION,
        f"{place} cannot be reached: check this computer's network, and whether a firewall lets connections to "
        f"port {connection.port} out.",
    )


def _of_verification(code: int, place: str) -> Diagnosis:
    if code in {_EXPIRED, _NOT_YET}:
        return Diagnosis(
            Cause.SERVER_EXPIRED,
            f"The certificate of {place} is not valid today: check this computer's date, and else tell your federation "
            "to renew it.",
        )
    if code in _NAMES:
        return Diagnosis(
            Cause.SERVER_NAME,
            f"The certificate of {place} is for another name: use the name that your federation gave you, or ask it to "
            "put this one into its certificate.",
        )
    if code in _NO_ISSUER:
        return Diagnosis(
            Cause.SERVER_UNTRUSTED,
            f"The certificate of {place} was not signed by your federation: something else answers there, or the "
            "federation has a new root; ask it by another way, and install its answer.",
        )
    return Diagnosis(Cause.TLS, f"The certificate of {place} cannot be used: tell your federation (error {code}).")


def of_answer(answer: DoorAnswer, last_status: int) -> Diagnosis:
    """What an answer of the door means for a node that is not connected."""
    ahead = answer.ahead_seconds
    if ahead is not None and (found := clock_fault(ahead)):
        return Diagnosis(Cause.CLOCK, found)
    if answer.status in {UNAUTHORIZED, FORBIDDEN}:
        return Diagnosis(
            Cause.REVOKED,
            "The server does not let you in any more: your admission was revoked, or your certificate was replaced; "
            "ask your federation.",
        )
    if last_status == FORBIDDEN:
        return Diagnosis(
            Cause.WRONG_NODE_KEY,
            "Your certificate is let in, and your node's key is another than the one admitted with it: put back "
            "node.key as it was, or join again.",
        )
    if last_status == UNAUTHORIZED:
        return Diagnosis(
            Cause.UNKNOWN_NODE,
            "The server does not know your node: it learns of new members when it starts, and forgets those that are "
            "revoked; ask your federation.",
        )
    if last_status >= 500 or last_status == TOO_MANY:
        return Diagnosis(Cause.NOT_READY, "The server is there, and not ready yet: there is nothing to do but wait.")
    return Diagnosis(
        Cause.OLD_SESSION,
        "The server is there, and does not let your node in yet: an earlier session of it runs out within 90 seconds; "
        "and a member that was admitted while a run is on is known from the next start of the server on.",
    )


def clock_fault(ahead_seconds: float) -> str | None:
    """What is wrong with a clock that is so far ahead of the server's; None: nothing that matters."""
    if -MAX_BEHIND_SECONDS <= ahead_seconds <= MAX_AHEAD_SECONDS:
        return None
    direction = "ahead of" if ahead_seconds > 0 else "behind"
    return (
        f"This computer's clock is {abs(ahead_seconds):.0f} s {direction} the server's, and a node may be "
        f"{MAX_AHEAD_SECONDS:.0f} s ahead or {MAX_BEHIND_SECONDS:.0f} s behind: set it, and let NTP keep it."
    )
