"""What the door lets through, and the fixed words with which it refuses. Pure: knows no connection and no member.

A request passes if its target is, byte for byte, one of a short list. Nothing is decoded or normalised first, so that
there is no second reading of a path that the SuperLink could make (CWE-22, CWE-444). The list of the Fleet API is that
of flwr 1.41, ``flwr/superlink/routers/fleet/router.py``, without register-node and unregister-node: nodes are
registered by the operator's own process.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

Headers = Iterable[tuple[bytes, bytes]]

MAX_BODY_BYTES = 16 * 1024 * 1024  # Flower cuts what is larger than 5 MiB into objects of that size
MAX_HEADER_BYTES = 16 * 1024
FLEET = "/v1/fleet/"
FLEET_METHODS = frozenset({
    "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages", "get-run", "get-fab",
    "push-object", "pull-object", "confirm-message-received",
})  # fmt: skip
FLEET_PATHS = {f"{FLEET}{method}".encode(): method for method in FLEET_METHODS}
OWN_PATHS = {f"/testudo/{name}".encode(): name for name in ("roster.json", "federation.pub", "plan.toml")}
NODE_KEY_HEADER = b"flwr-public-key"
# Everything else that a SuperNode sends stays here; hop-by-hop headers (RFC 9110, 7.6.1) among it.
FORWARDED_HEADERS = frozenset({
    b"accept", b"content-type", NODE_KEY_HEADER, b"flwr-timestamp", b"flwr-signature", b"flwr-package-name",
    b"flwr-package-version", b"flwr-component-name",
})  # fmt: skip
ANSWERED_HEADERS = frozenset({b"content-type", b"flwr-version-incompatibility-message"})
PROTOBUF = b"application/protobuf"


class Reason(Enum):
    """Why a request is refused: its name in metrics, the HTTP status, and the whole body of the answer."""

    NOT_HERE = ("not_here", 404, "")
    MALFORMED = ("malformed", 400, "")
    UNKNOWN = ("unknown_certificate", 403, "This certificate is nobody's who was admitted. Ask the operator.\n")
    REVOKED = ("revoked", 403, "This certificate was revoked. Ask the operator.\n")
    EXPIRED = ("expired", 403, "This certificate has expired. Renew it.\n")
    WRONG_KEY = ("wrong_node_key", 403, "This node key was not admitted with this certificate.\n")
    NO_LENGTH = ("no_length", 411, "")
    TOO_LARGE = ("too_large", 413, "")
    SLOW = ("slow", 408, "")
    BUSY = ("busy", 503, "")
    MEMBERS_UNREADABLE = ("members_unreadable", 503, "")
    SUPERLINK_DOWN = ("superlink_down", 503, "")

    def __init__(self, word: str, status: int, body: str) -> None:
        self.word, self.status, self.body = word, status, body.encode("ascii")


class RefusedError(Exception):
    """A request that the door does not let through.

    Args:
        reason: Why.
        client: Whose it was; empty where that is not known.
    """

    def __init__(self, reason: Reason, client: str = "") -> None:
        self.reason, self.client = reason, client
        super().__init__(reason.word)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that may pass.

    Attributes:
        name: A method of the Fleet API, or the name of a file.
        is_file: Whether it is one of the door's own files.
        length: Bytes of the body that were announced.
    """

    name: str
    is_file: bool
    length: int


def what_is_asked(method: str, target: bytes, query: bytes, http_version: str, headers: Headers) -> Asked:
    """Read a request's line and headers, as they came.

    Args:
        method: As it was sent.
        target: The request target up to the question mark, not decoded.
        query: What stood behind a question mark.
        http_version: Such as ``1.1``.
        headers: Names in lower case.

    Raises:
        RefusedError: It is not on the list; or its body has no length, or is too large.
    """
    headers = list(headers)
    names = [name for name, _ in headers]
    if sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
        raise RefusedError(Reason.MALFORMED)
    if http_version != "1.1" or query or b"upgrade" in names:
        raise RefusedError(Reason.NOT_HERE)
    if method == "GET" and target in OWN_PATHS:
        return Asked(OWN_PATHS[target], is_file=True, length=0)
    if method != "POST" or target not in FLEET_PATHS:
        raise RefusedError(Reason.NOT_HERE)
    if any(names.count(name) > 1 for name in FORWARDED_HEADERS):
        # Which of the two counts is a matter of opinion, and the SuperLink may have another (CWE-444).
        raise RefusedError(Reason.MALFORMED)
    values = dict(headers)
    length = values.get(b"content-length", b"")
    if b"transfer-encoding" in values or not length.isdigit():
        raise RefusedError(Reason.NO_LENGTH)
    if len(length) > 12 or int(length) > MAX_BODY_BYTES:
        raise RefusedError(Reason.TOO_LARGE)
    if values.get(b"content-type") != PROTOBUF:
        raise RefusedError(Reason.MALFORMED)
    return Asked(FLEET_PATHS[target], is_file=False, length=int(length))


def header(headers: Headers, name: bytes) -> bytes:
    """The header's value; empty where there is none, or more than one."""
    found = [value for each, value in headers if each == name]
    return found[0] if len(found) == 1 else b""
