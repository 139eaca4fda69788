"""How long a certificate is still good, and when to say so. Renews nothing."""

from __future__ import annotations

import math
from datetime import datetime

from cryptography import x509

WARN_DAYS = 30


def days_left(certificate: x509.Certificate, now: datetime) -> int:
    """Whole days until a certificate runs out; negative or 0 once it has.

    Args:
        certificate: Any.
        now: With its time zone.
    """
    return math.floor((certificate.not_valid_after_utc - now).total_seconds() / 86400)


def expiry_warning(whose: str, certificate: x509.Certificate, now: datetime, *, remedy: str) -> str | None:
    """A sentence in the last 30 days of a certificate and afterwards; None before.

    Args:
        whose: What to call it, such as ``the server's certificate``.
        certificate: Which.
        now: With its time zone.
        remedy: What to do about it.
    """
    left = days_left(certificate, now)
    if now >= certificate.not_valid_after_utc:
        return f"{whose} ran out on {certificate.not_valid_after_utc:%Y-%m-%d}: {remedy}"
    if left < WARN_DAYS:
        days = "day" if left == 1 else "days"
        return f"{whose} runs out in {left} {days}, on {certificate.not_valid_after_utc:%Y-%m-%d}: {remedy}"
    return None
