"""``testudo-server audit``: what stands in a run's log, receipts and copies of it, and what a person writes into it.

Reads the run's own log. Verifying one that came from elsewhere is testudo-client's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from testudo_common.audit.checkpoints import cosigners_of, open_checkpoint
from testudo_common.audit.entries import (
    AnyEntry,
    Charter,
    Incident,
    IncidentKind,
    LeakageDrill,
    ModelReleased,
    decode_entry,
)
from testudo_common.audit.extension import encode_extension
from testudo_common.audit.history import History, begin_history, extend
from testudo_common.audit.log import AuditLog
from testudo_common.audit.receipts import receipt_for
from testudo_common.audit.wording import told
from testudo_common.errors import AuditError, AuditFault, UsageError
from testudo_common.files import write_atomically
from testudo_common.key_files import read_public
from testudo_common.wire import Message
from testudo_server.audit_file import AUDIT_LOG, held_log, read_log
from testudo_server.public_log import PublicLog, entry_time, utc_now
from testudo_server.roster import FEDERATION_PUBLIC, keys_in

KEYS = "keys"
"""Folder of a run's keys, inside the run's, where no other is named."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint that is kept.

    Attributes:
        size: Entries that it is over.
        cosigners: Client ids of the owners that cosigned it.
        note: As it is kept.
    """

    size: int
    cosigners: frozenset[str]
    note: bytes


@dataclass(frozen=True, slots=True)
class Replayed:
    """A run's log, replayed by the owners' rules.

    Attributes:
        log: Open.
        history: Of all entries.
        signed: By size.
    """

    log: AuditLog
    history: History
    signed: tuple[Signed, ...]

    @property
    def quorum(self) -> int:
        """k, owners that have to cosign; 0 before anybody is enrolled."""
        return self.history.quorum or 0

    def with_quorum(self, index: int = 0) -> Signed | None:
        """The smallest checkpoint over entry ``index`` that a quorum cosigned."""
        return next((one for one in self.signed if one.size > index and len(one.cosigners) >= self.quorum), None)


@contextmanager
def replayed(out: Path, keys: Path | None = None) -> Iterator[Replayed]:
    """The log of the run in ``out``, until the block is left.

    Args:
        out: The run's folder.
        keys: Folder with the federation's public key; None: the run's own.

    Raises:
        UsageError: There is no log.
        KeyFileError: The federation's key is not there.
        AuditError: The log cannot be read, or breaks a rule.
    """
    public = read_public((keys or out / KEYS) / FEDERATION_PUBLIC).public_bytes_raw()
    with read_log(out) as log:
        history = extend(begin_history(public, _charter_of(log, out).plan_digest), tuple(log.entries()))
        yield Replayed(log, history, tuple(_signed(log, history)))


def shown(out: Path) -> list[tuple[int, str, dict[str, Any]]]:
    """Index of each entry, what it says in words, and the entry as JSON has it.

    Raises:
        UsageError: There is no log.
        AuditError: It cannot be read.
    """
    with read_log(out) as log:
        entries = [decode_entry(data) for data in log.entries()]
    return [
        (index, f"{entry.time} {entry.type:<16} {told(entry)}", entry.model_dump(mode="json"))
        for index, entry in enumerate(entries)
    ]


def proved(
    out: Path,
    keys: Path | None,
    *,
    entry: int | None = None,
    round_number: int | None = None,
    client: str | None = None,
) -> bytes:
    """The receipt of an entry: of the one with that index, or of a client's update in a round.

    Raises:
        UsageError: Neither or both are named, there is no such entry, or there is no log.
        AuditError: No checkpoint over it has a quorum's cosignatures yet; or as :func:`replayed` raises.
    """
    if (entry is None) == (round_number is None) or (round_number is None) != (client is None):
        raise UsageError(
            "it is not clear which entry is meant", remedy="name one by --entry, or by --round and --client together"
        )
    with replayed(out, keys) as found:
        if entry is None:
            assert round_number is not None and client is not None
            entry = _update_of(found.history, round_number, client)
        if not 0 <= entry < found.log.size:
            raise UsageError(f"there are {found.log.size} entries, and none with index {entry}", where=str(out))
        signed = found.with_quorum(entry)
        if signed is None:
            most = max((len(one.cosigners) for one in found.signed if one.size > entry), default=0)
            raise AuditError(
                AuditFault.RECEIPT,
                f"no checkpoint over it has enough cosignatures yet: {most}, where {found.quorum} are needed",
                index=entry,
                remedy="go on with the run: the next round's checkpoint covers it",
            )
        return receipt_for(found.log, entry, signed.note).encode()


def exported(out: Path, keys: Path | None, to: Path) -> dict[str, Any]:
    """Write the whole log, up to its last checkpoint, into one file that anybody can verify; what is in it.

    Raises:
        UsageError: Nothing in the log is signed yet, or there is none.
        AuditError: As :func:`replayed` raises.
    """
    with replayed(out, keys) as found:
        if not found.signed:
            raise UsageError("nothing in this log is signed yet", where=str(out), remedy="let the run begin first")
        last = found.signed[-1]
        best = next((one for one in reversed(found.signed) if len(one.cosigners) >= found.quorum), None)
        earlier = best.note if best is not None and best.size < last.size else b""
        data = encode_extension(found.log.entries(0, last.size), last.note, earlier)
        size = found.log.size
    write_atomically(to, data)
    return {
        "file": str(to),
        "entries": last.size,
        "left_out": size - last.size,
        "bytes": len(data),
        "cosigners": len(last.cosigners),
        "quorum": found.quorum,
        "entries_that_a_quorum_saw": 0 if best is None else best.size,
    }


def recorded(out: Path, keys: Path | None, entry: AnyEntry) -> dict[str, Any]:
    """Write an entry into the log and sign it; what it became. The owners see it when the run goes on.

    Raises:
        UsageError: There is no log, another process is writing it, or it holds another roster.
        KeyFileError, RosterError: See :func:`testudo_server.roster.keys_in`.
        AuditError: The entry may not stand there, or the log cannot be used.
    """
    its_keys = keys_in(keys or out / KEYS)
    with read_log(out) as log:
        plan_digest = _charter_of(log, out).plan_digest
    with held_log(out) as log:
        public = PublicLog(its_keys, log, plan_digest, _Nobody(), (), deadline_seconds=1.0)
        if public.history.roster is None or public.history.roster.digest != its_keys.roster.digest:
            raise UsageError(
                "this is not the roster that the log holds",
                where=str(keys or out / KEYS),
                remedy="name the keys of the log's federation; where they have a new roster, go on with the run first",
            )
        index = public.append(entry)
        public.publish()
    return {"index": index, "type": entry.type, "size": public.size, "root": public.history.root.hex()}


def drill_of(report: Path, *, passed: bool) -> LeakageDrill:
    """The entry about a leakage drill whose report is in a file.

    Raises:
        UsageError: The file cannot be read.
    """
    try:
        digest = hashlib.sha256(report.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(
            f"the report cannot be read: {error.strerror}", where=str(report), remedy="check the path"
        ) from error
    return LeakageDrill(time=entry_time(utc_now()), report=digest, passed=passed)


def release_of(out: Path, keys: Path | None, to: str) -> ModelReleased:
    """The entry about the release of the run's last model.

    Raises:
        UsageError: No round is closed yet, or what it says is too long.
        AuditError: As :func:`replayed` raises.
    """
    with replayed(out, keys) as found:
        closed = found.history.closed
    if closed is None:
        raise UsageError("no round is closed yet, so there is no model to release", where=str(out))
    time, last = entry_time(utc_now()), closed[1]
    with _short_enough():
        return ModelReleased(time=time, round=last.round, model_digest=last.model_digest, to=to)


def incident_of(note: str) -> Incident:
    """The entry about something that a person saw.

    Raises:
        UsageError: What it says is too long.
    """
    with _short_enough():
        return Incident(time=entry_time(utc_now()), kind=IncidentKind.NOTED, note=note)


class _Nobody:
    """A transport to nobody."""

    def deliver(self, requests: Mapping[str, Message], **_more: object) -> Iterator[tuple[str, Message | str]]:
        """Nothing is sent."""
        assert not requests
        return iter(())


@contextmanager
def _short_enough() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise UsageError("what it says is too long", remedy="put it into a few words") from error


def _charter_of(log: AuditLog, out: Path) -> Charter:
    first = next(log.entries(), None)
    charter = None if first is None else decode_entry(first)
    if not isinstance(charter, Charter):
        raise UsageError("the audit log here is empty", where=str(out / AUDIT_LOG), remedy="let the run begin first")
    return charter


def _signed(log: AuditLog, history: History) -> Iterator[Signed]:
    if history.watch is None:
        return
    for data in log.notes():
        checkpoint, note = open_checkpoint(data, history.watch)
        yield Signed(checkpoint.size, cosigners_of(note, history.watch), data)


def _update_of(history: History, round_number: int, client: str) -> int:
    """The index of a client's update in a round: of the last attempt that it sent one in."""
    found = [index for index, said in history.contributions.get(client, ()) if said.round == round_number]
    if not found:
        raise UsageError(
            f"the log holds no update of {client!r} in round {round_number}",
            remedy="testudo-server audit show lists what it holds",
        )
    return found[-1]
