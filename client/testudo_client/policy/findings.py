"""What a policy's verdict is made of: what is known here and now, and one finding a rule. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from testudo_common.errors import Fault


@dataclass(frozen=True, slots=True)
class Launch:
    """What whoever started this owner's client app knows of it, and a message does not say. None: not known.

    Attributes:
        bundle_digest: SHA-256 of the Flower app bundle, hex.
        server_certificates: SHA-256 of the certificate that the server showed, and of those above it in its chain, hex.
        connected: False: there is no server at the other end yet, as when a plan is looked at; its certificate is
            compared when there is.
    """

    bundle_digest: str | None = None
    server_certificates: tuple[str, ...] | None = None
    connected: bool = True


NOTHING_KNOWN = Launch()


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known here and now. None: not known, so that a pin on it refuses.

    Attributes:
        today: The day, in UTC.
        client_id: Under which name this owner takes part.
        federation_key: In ``federation.pub``, hex.
        code_digest: Of the installed code, hex.
        bundle_digest: SHA-256 of the Flower app bundle, hex.
        server_certificates: SHA-256 of the certificate that the server showed, and of those above it in its chain, hex.
        witnesses: Keys of those that watch the plan's log, hex: of everybody on the roster.
        connected: Whether a server is at the other end; see :class:`Launch`.
    """

    today: date
    client_id: str
    federation_key: str | None = None
    code_digest: str | None = None
    bundle_digest: str | None = None
    server_certificates: tuple[str, ...] | None = None
    witnesses: tuple[str, ...] | None = None
    connected: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule says.

    Attributes:
        key: The policy's key.
        limit: What it allows.
        asked: What the plan asks, or what was found here.
        allowed: The verdict.
        remedy: What to do where it is refused.
    """

    key: str
    limit: str
    asked: str
    allowed: bool
    remedy: str

    @property
    def fault(self) -> Fault | None:
        """The finding as a fault, or None where nothing is refused."""
        return None if self.allowed else Fault(self.key, f"{self.asked}; allowed: {self.limit}", self.remedy)
