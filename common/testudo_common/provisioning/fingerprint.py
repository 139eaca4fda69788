"""The fingerprint that operator and owner compare by voice before they trust each other's keys. Asks nobody.

Whoever carries the files can replace them in both directions: hand the owner an invitation of its own, and the operator
a request of its own. Either person then sees a fingerprint of other keys, and the attack works only where the two are
equal. What its length has to withstand:

- The owner draws a nonce of 128 bits after it got the invitation, and it goes into the fingerprint. So the forger has
  to fix the invitation before it can know what the owner will read out; the id in the operator's invitation it cannot
  choose either. What is left to it is a second preimage: keys of its own (or a nonce: cheap, one hash a try) whose
  fingerprint is the one that the owner already reads, 2^125 hashes for 25 characters of 5 bits.
- Without the nonce, or with one that the forger could foresee, it would choose on both sides and look for any pair that
  agrees: a birthday search, 2^62 hashes, for which others have paid. Sixteen characters would fall to 2^40, on one
  machine. The nonce is why 25 characters are enough and 50 need not be read out.
- Guessing blindly succeeds once in 2^125; a person who compares only the first and the last group leaves 2^50, which
  is why all five groups are asked for.

The idea of a value that is fixed before the other side shows its own is ZRTP's (RFC 6189, section 4.4.1.1).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable

import rfc8785

from testudo_common.errors import ProvisionError, ProvisionFault
from testudo_common.provisioning.certificates import key_in_csr, public_bytes
from testudo_common.provisioning.documents import Invitation, JoinRequest

CHARACTERS = 25
_GROUP = 5


def join_fingerprint(invitation: Invitation, request: JoinRequest) -> str:
    """Five groups of five characters over everything that both sides must agree on.

    Args:
        invitation: As this side wrote or received it: federation, its key, CA, address, client, and id are in it.
        request: As this side received or wrote it: the owner's three public keys, and the nonce.

    Raises:
        ProvisionError: The request's CSR cannot be read.
    """
    tls_key = public_bytes(key_in_csr(request.csr, source="the request"))
    return _grouped(
        b"testudo-fingerprint-1\x00",
        {
            "invitation": invitation.digest,
            "nonce": request.nonce,
            "roster_key": request.roster_key,
            "node_key": request.node_key,
            "tls_key": tls_key.hex(),
        },
    )


def federation_fingerprint(federation_key: str, ca: str) -> str:
    """Five groups of five characters that name a federation: its key (hex) and its CA certificate (PEM)."""
    return _grouped(b"testudo-federation-1\x00", {"federation_key": federation_key, "ca": ca})


def compare(told: str, own: str) -> None:
    """Return only if a person was told the fingerprint that this side has; case, spaces and dashes do not count.

    Raises:
        ProvisionError: It is another one.
    """
    plain = "".join(told.upper().split()).replace("-", "")
    if not hmac.compare_digest(plain.encode(), own.replace("-", "").encode()):
        raise ProvisionError(
            ProvisionFault.FINGERPRINT,
            f"the fingerprints differ: here it is {own}",
            remedy="read it to each other again; if they still differ, somebody replaced a file on its way: "
            "trust neither, and begin again with a new invitation, by another way",
        )


def confirm(own: str, told: str | None, ask: Callable[[], bool] | None) -> None:
    """Return only once a person has confirmed the fingerprint.

    Args:
        own: That this side has.
        told: That the other side read out, if a person typed it in.
        ask: Asks whether the other side reads the same; None: nobody is there to be asked.

    Raises:
        ProvisionError: It differs, or nobody confirmed it.
    """
    if told is not None:
        compare(told, own)
    elif ask is None:
        raise ProvisionError(
            ProvisionFault.UNCONFIRMED,
            f"nobody is there to compare the fingerprint {own}",
            remedy="let the other side read its own to you, and pass that with --fingerprint; or run it in a terminal",
        )
    elif not ask():
        raise ProvisionError(
            ProvisionFault.UNCONFIRMED,
            "the fingerprint was not confirmed, and nothing was changed",
            remedy="if it differs, somebody replaced a file on its way: begin again with a new invitation",
        )


def _grouped(domain: bytes, content: dict[str, str]) -> str:
    digest = hashlib.sha256(domain + rfc8785.dumps(content)).digest()
    text = base64.b32encode(digest).decode()[:CHARACTERS]
    return "-".join(text[start : start + _GROUP] for start in range(0, CHARACTERS, _GROUP))
