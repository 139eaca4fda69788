"""Whether the log that an owner mirrored names a meta-model: what came by mail is then what the federation made."""

from __future__ import annotations

from enum import StrEnum

from testudo_client.audit_sources import mirrored
from testudo_client.home import OwnerHome
from testudo_common.audit.entries import ModelReleased, RoundClosed, decode_entry
from testudo_common.errors import UsageError
from testudo_common.publication import PublishedModel


class Logged(StrEnum):
    """What the owner's mirror says."""

    NAMED = "named"
    """The log closed the round with this model, or released it."""
    NOT_YET = "not yet"
    """The mirror does not reach that round."""
    NO_MIRROR = "no mirror"
    """This owner has mirrored no log of that plan."""


def logged_in(home: OwnerHome, published: PublishedModel) -> Logged:
    """What the mirror in an owner's folder says about a meta-model.

    Raises:
        UsageError: It names another model for that round.
        AuditError: The mirror cannot be used.
    """
    mirror = home.audit(published.plan.digest).mirror
    if not mirror.exists():
        return Logged.NO_MIRROR
    named = {
        entry.model_digest
        for entry in map(decode_entry, mirrored(mirror)[0])
        if isinstance(entry, RoundClosed | ModelReleased) and entry.round == published.round
    }
    if not named:
        return Logged.NOT_YET
    if published.digest not in named:
        raise UsageError(
            f"the federation's log names another model after round {published.round}",
            where="the meta-model",
            remedy="do not use it, and ask the operator which one this is",
        )
    return Logged.NAMED
