"""Where logs to verify come from: an exported file, or an owner's folder with its mirrors. Reads; judges nothing.

A folder gives more to hold the log against: receipts, the checkpoints that were kept, what the owner signed and what it
was sent, and its ledger.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from testudo_common.audit.checkpoints import parse_checkpoint
from testudo_common.audit.evidence import Evidence, Own
from testudo_common.audit.extension import MAX_EXTENSION_BYTES, Extension, decode_extension
from testudo_common.audit.notes import parse_note
from testudo_common.audit.receipts import MAX_RECEIPT_BYTES, decode_receipt
from testudo_common.errors import AuditError, AuditFault, LedgerError, UsageError
from testudo_common.key_files import read_public

if TYPE_CHECKING:
    from testudo_client.home import OwnerHome
    from testudo_client.own_record import OwnRecord, Signed

_DATABASE: Final = b"SQLite format 3\0"
_MIRROR: Final = "audit-"
_CONTRIBUTION: Final = re.compile(r"round-(\d+)-attempt-(\d+)\.json")


@dataclass(frozen=True, slots=True)
class Source:
    """One log.

    Attributes:
        name: Of the file it is in, for a person.
        evidence: The log, and what it is held against.
    """

    name: str
    evidence: Evidence


def logs_in(
    path: Path, federation_key: Path | None, receipts: Sequence[Path] = (), kept: Path | None = None
) -> list[Source]:
    """The logs to verify.

    Args:
        path: An exported log, or an owner's folder.
        federation_key: The federation's; None: the folder's.
        receipts: Further ones.
        kept: An earlier checkpoint.

    Raises:
        UsageError: There is no log, or something belongs to none of them.
        AuditError: The file is not an exported log.
        KeyFileError: The federation's key cannot be read.
    """
    more = [(str(file), _read(file, MAX_RECEIPT_BYTES)) for file in receipts]
    notes = [] if kept is None else [(str(kept), _read(kept, MAX_RECEIPT_BYTES))]
    if not path.is_dir():
        if federation_key is None:
            raise UsageError(
                "the federation's key is needed: it says whose signatures count",
                where="--federation-key",
                remedy="name federation.pub, which the federation gives to everybody",
            )
        key = read_public(federation_key).public_bytes_raw()
        extension = exported(path)
        over = (extension.cosigned, extension.note) if extension.cosigned else (extension.note,)
        return [Source(str(path), Evidence(key, extension.entries, over, receipts=tuple(more), kept=tuple(notes)))]
    from testudo_client.home import OwnerHome

    home = OwnerHome(path)
    key = read_public(federation_key or home.federation_key_file).public_bytes_raw()
    mirrors = mirrors_in(path)
    plans = {_plan_of(mirror) for mirror in mirrors}
    for name, origin in _origins(more, notes):
        if origin.rpartition("/")[2] not in plans:
            raise UsageError(f"it is of the log {origin}, of which there is no mirror", where=name)
    return [_mirrored(home, mirror, key, more, notes) for mirror in mirrors]


def exported(path: Path) -> Extension:
    """What an exported log holds.

    Raises:
        UsageError: There is no such file, or it is a database.
        AuditError: It is not an exported log.
    """
    data = _read(path, MAX_EXTENSION_BYTES)
    if data.startswith(_DATABASE):
        raise UsageError(
            "this is a log as its owner keeps it, not an exported one",
            where=str(path),
            remedy="export it with testudo-server audit export, or name the owner's folder",
        )
    try:
        return decode_extension(data)
    except AuditError as error:
        raise AuditError(
            error.fault, "not an exported audit log", where=str(path),
            remedy="export it again: testudo-server audit export; a file that was cut short is none",
        ) from error  # fmt: skip


def mirrors_in(folder: Path) -> list[Path]:
    """The mirrors in an owner's folder, one a plan.

    Raises:
        UsageError: There is none.
    """
    found = sorted((folder / "state").glob(f"{_MIRROR}*.db"))
    if not found:
        raise UsageError(
            "no mirror of an audit log is in this folder",
            where=str(folder),
            remedy="name a data owner's folder, which has one once it took part in a federation; or an exported log",
        )
    return found


def mirrored(mirror: Path) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Entries and notes of a mirror.

    Raises:
        AuditError: The file cannot be used.
    """
    from testudo_common.audit.log import AuditLog

    log = AuditLog(mirror)
    try:
        return tuple(log.entries()), tuple(log.notes())
    finally:
        log.close()


def _plan_of(mirror: Path) -> str:
    return mirror.stem.removeprefix(_MIRROR)


def _mirrored(
    home: OwnerHome, mirror: Path, key: bytes, more: Sequence[tuple[str, bytes]], kept: Sequence[tuple[str, bytes]]
) -> Source:
    plan = _plan_of(mirror)
    entries, notes = mirrored(mirror)
    own_receipts = sorted((home.folder / "receipts" / plan).glob("*.tlog-proof"))
    receipts = [(str(file.relative_to(home.folder)), _read(file, MAX_RECEIPT_BYTES)) for file in own_receipts]
    evidence = Evidence(
        key,
        entries,
        notes,
        plan=plan,
        kept=tuple(each for each in kept if _origin_of_note(*each).endswith(f"/{plan}")),
        receipts=(*receipts, *(each for each in more if _origin_of_receipt(*each).endswith(f"/{plan}"))),
        own=_own(home, plan),
        unseen_rounds=1,  # what the last round brought is cosigned when the next one opens
    )
    return Source(str(mirror), evidence)


def _own(home: OwnerHome, plan: str) -> Own:
    """What the owner knows that bears on the log of one plan."""
    from testudo_client.ledger import Adopted, Approved, Withdrawn
    from testudo_client.own_record import AuditFiles, OwnRecord

    policy = home.policy()
    record = OwnRecord(AuditFiles(home.folder, plan))
    halted = ""
    try:
        record.refuse_if_halted()
    except AuditError as error:
        halted = str(error)
    try:
        signed = dict(_signed(record, home.folder / "state" / "contributions" / plan))
        ledger = home.ledger(policy).entries() if home.has_ledger(policy) else None
    except (AuditError, LedgerError) as error:
        return Own(policy.client, halted=halted, broken=str(error))
    contents = [entry.content for entry in ledger or ()]
    decisions = [content for content in contents if isinstance(content, Approved | Withdrawn)]
    return Own(
        client=policy.client,
        sent={attempt: found.model_digest for attempt, found in signed.items()},
        signed=frozenset(statement for found in signed.values() for statement in found.statements),
        ledger=None if ledger is None else frozenset(entry.hash.hex() for entry in ledger),
        adopted=any(isinstance(content, Adopted) for content in contents),
        decided=any(content.plan_digest.startswith(plan) for content in decisions),
        halted=halted,
    )


def _signed(record: OwnRecord, folder: Path) -> Iterator[tuple[tuple[int, int], Signed]]:
    """What was signed, by round and attempt."""
    for file in sorted(folder.glob("round-*.json")):
        named = _CONTRIBUTION.fullmatch(file.name)
        if named is not None:
            attempt = int(named[1]), int(named[2])
            found = record.signed(*attempt)
            if found is not None:
                yield attempt, found


def _origins(receipts: Sequence[tuple[str, bytes]], notes: Sequence[tuple[str, bytes]]) -> Iterator[tuple[str, str]]:
    for name, data in receipts:
        yield name, _origin_of_receipt(name, data)
    for name, data in notes:
        yield name, _origin_of_note(name, data)


def _origin_of_receipt(name: str, data: bytes) -> str:
    try:
        return _origin_of_note(name, decode_receipt(data).note)
    except AuditError as error:
        raise AuditError(error.fault, error.problem, where=name) from error


def _origin_of_note(name: str, data: bytes) -> str:
    try:
        return parse_checkpoint(parse_note(data).text).origin
    except AuditError as error:
        raise AuditError(error.fault, error.problem, where=name) from error


def _read(path: Path, most: int) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise UsageError("not a file", where=str(path), remedy="check the path")
        if path.stat().st_size > most:
            raise AuditError(AuditFault.FORMAT, f"larger than {most} bytes", where=str(path), remedy="check the path")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"it cannot be read: {error.strerror}", where=str(path), remedy="check the path") from error
