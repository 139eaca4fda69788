"""Whether the log that an owner mirrored names a meta-model: what came by mail is then what the federation made."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from testudo_client.audit_sources import logs_in, mirrored
from testudo_client.home import OwnerHome
from testudo_common.audit.entries import ModelReleased, RoundClosed, decode_entry
from testudo_common.errors import UsageError
from testudo_common.publication import PublishedModel


class Logged(StrEnum):
    """What the log says."""

    NAMED = "named"
    """The log closed the round with this model, or released it."""
    NOT_YET = "not yet"
    """The mirror does not reach that round."""
    NO_MIRROR = "no mirror"
    """This owner has mirrored no log of that plan."""


def logged_in(
    home: OwnerHome, published: PublishedModel, log: Path | None = None, federation_key: Path | None = None
) -> Logged:
    """What the mirror in an owner's folder, or an exported log, says about a meta-model.

    Args:
        home: The owner's folder.
        published: The meta-model.
        log: An exported log, for a newcomer that has no mirror; it is verified first.
        federation_key: Whose signatures count in it.

    Raises:
        UsageError: It names another model for that round; or the exported log does not hold, or is of another plan.
        AuditError: The log cannot be used.
    """
    mirror = home.audit(published.plan_digest).mirror
    if log is not None:
        entries = _verified(log, federation_key, published)
    elif mirror.exists():
        entries = mirrored(mirror)[0]
    else:
        return Logged.NO_MIRROR
    named = {
        entry.model_digest
        for entry in map(decode_entry, entries)
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


def _verified(log: Path, federation_key: Path | None, published: PublishedModel) -> tuple[bytes, ...]:
    from testudo_common.audit.verify import verify

    evidence = logs_in(log, federation_key)[0].evidence
    verdict = verify(evidence)
    if (failed := verdict.first_failure) is not None:
        raise UsageError(
            f"the log does not hold: {failed.detail}", where=str(log), remedy="trust nothing that it names"
        )
    if verdict.plan_digest != published.plan_digest:
        raise UsageError(
            "the log is of another plan than the meta-model", where=str(log), remedy="ask for the right one"
        )
    return evidence.entries
