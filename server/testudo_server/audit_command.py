"""``testudo-server audit``: shows, proves and exports a run's log, adds what only a person knows. Runs no rounds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testudo_common.audit.checkpoints import parse_checkpoint
from testudo_common.audit.entries import (
    Charter,
    Incident,
    IncidentKind,
    LeakageDrill,
    ModelReleased,
    UpdateReceived,
    decode_entry,
)
from testudo_common.audit.extension import encode_extension
from testudo_common.audit.log import AuditLog
from testudo_common.audit.notes import parse_note
from testudo_common.audit.receipts import receipt_for
from testudo_common.audit.wording import told
from testudo_common.errors import UsageError
from testudo_common.files import write_atomically
from testudo_common.wire import Message
from testudo_server.audit_file import held_log, read_log
from testudo_server.public_log import PublicLog
from testudo_server.roster import ServerKeys, keys_in

_SECONDS = 1.0  # nobody is waited for


def show_log(out: Path, *, as_json: bool = False) -> None:
    """Print a run's log, an entry a line.

    Args:
        out: The run's folder.
        as_json: Print the entries as JSON.

    Raises:
        UsageError: There is no log.
        AuditError: It cannot be read.
    """
    with read_log(out) as log:
        entries = [decode_entry(data) for data in log.entries()]
    if as_json:
        print(json.dumps([entry.model_dump(mode="json") for entry in entries], indent=2))
        return
    for index, entry in enumerate(entries):
        print(f"{index:>6} {entry.time} {entry.type:<16} {told(entry)}")


@dataclass(frozen=True, slots=True)
class ProofRequest:
    """Which entry is to be proved: by its index, or as a client's update in a round.

    Attributes:
        out: The run's folder.
        entry: Index from 0; None: see the others.
        round: From 1.
        client: Client id.
    """

    out: Path
    entry: int | None = None
    round: int | None = None
    client: str | None = None


def prove_entry(request: ProofRequest) -> bytes:
    """A receipt, under the smallest checkpoint that enough witnesses cosigned; or any, where none is.

    Raises:
        UsageError: There is no log, no such entry, or the request names none.
        AuditError: The log cannot be read, or no checkpoint is over the entry.
    """
    if (request.entry is None) == (request.round is None or request.client is None):
        raise UsageError("it is not said which entry", remedy="write --entry 17, or --round 3 --client shop-1")
    with read_log(request.out) as log:
        index = _index_of(request, log)
        if not 0 <= index < log.size:
            raise UsageError(f"there is no entry {index}: the log has {log.size}", where=str(request.out))
        return receipt_for(log, index, _cosigned_over(log, index)).encode()


def _index_of(request: ProofRequest, log: AuditLog) -> int:
    if request.entry is not None:
        return request.entry
    found = [
        index
        for index, entry in enumerate(map(decode_entry, log.entries()))
        if isinstance(entry, UpdateReceived)
        and (entry.statement.round, entry.statement.client) == (request.round, request.client)
    ]
    if not found:
        raise UsageError(f"no update of {request.client!r} in round {request.round}", where=str(request.out))
    return found[-1]  # of the attempt that counts, where there were several


def export_log(out: Path, to: Path) -> int:
    """Write a run's log to one file, for whoever wants to check it; how many entries.

    Under the last checkpoint, and the last one that enough witnesses cosigned where that is another.

    Raises:
        UsageError: There is no log, or nothing of it was signed yet.
        AuditError: The log cannot be read.
    """
    with read_log(out) as log:
        data = exported(log)
        if data is None:
            raise UsageError("nothing of this log was signed yet", where=str(out), remedy="go on with the run first")
        write_atomically(to, data)
        return _size_of(log.latest_note() or b"")


def exported(log: AuditLog) -> bytes | None:
    """The bytes of an exported log; None where nothing was signed yet.

    Raises:
        AuditError: The log cannot be read.
    """
    last = log.latest_note()
    if last is None:
        return None
    agreed = _cosigned_over(log, 0, newest=True) or b""
    return encode_extension(log.entries(0, _size_of(last)), last, b"" if agreed == last else agreed)


def _size_of(note: bytes) -> int:
    return parse_checkpoint(parse_note(note).text).size


def _cosigned_over(log: AuditLog, index: int, *, newest: bool = False) -> bytes | None:
    """The smallest checkpoint over an entry that a quorum cosigned, or the largest; None if there is none."""
    charter = decode_entry(next(log.entries(0, 1)))
    assert isinstance(charter, Charter)  # the server's own log was replayed when it was written
    notes = [note for note in log.notes() if _size_of(note) > index]
    for note in reversed(notes) if newest else notes:
        if len(parse_note(note).signatures) > charter.quorum:  # the log's own is one
            return note
    return None


@dataclass(frozen=True, slots=True)
class Recording:
    """What a person writes down; exactly one of the three.

    Attributes:
        out: The run's folder.
        keys: The folder of the federation's keys.
        drill: A report on an attempt to read data out of what the server sees.
        passed: Whether nothing was found.
        release: For whom the model of the last round leaves the federation.
        incident: What happened, in words.
    """

    out: Path
    keys: Path
    drill: Path | None = None
    passed: bool | None = None
    release: str | None = None
    incident: str | None = None


def record_entry(recording: Recording) -> int:
    """Add an entry, and sign a checkpoint over it; its index. Owners see it when the run is gone on with.

    Raises:
        UsageError: It is not said what to write, another process writes the log, or there is none.
        AuditError: It breaks a rule of the log, such as a release before a round is closed.
        KeyFileError, RosterError: The keys cannot be used.
    """
    said = [recording.drill, recording.release, recording.incident]
    if sum(each is not None for each in said) != 1 or (recording.drill is None) != (recording.passed is None):
        raise UsageError(
            "it is not said what to write down",
            remedy="write --drill report.json --passed (or --failed), --release WORDS, or --incident WORDS",
        )
    with read_log(recording.out):
        pass  # nothing is made where there is no log
    with held_log(recording.out) as log, _signing(log, keys_in(recording.keys)) as public:
        index = public.append(_entry_of(recording, public))
        public.publish()
        return index


@contextmanager
def _signing(log: AuditLog, keys: ServerKeys) -> Iterator[PublicLog]:
    """The log with its key, and without witnesses."""
    first = next(log.entries(0, 1), None)
    charter = None if first is None else decode_entry(first)
    if not isinstance(charter, Charter):
        raise UsageError("this log is empty", remedy="begin the run first")
    public = PublicLog(keys, log, charter.plan_digest, _Nobody(), (), deadline_seconds=_SECONDS)
    if public.history.roster is None or public.history.roster.digest != keys.roster.digest:
        raise UsageError(
            "this is not the roster that the log holds",
            remedy="name the keys of the log's federation; where they have a new roster, go on with the run first",
        )
    yield public


class _Nobody:
    """A transport to nobody."""

    def deliver(
        self,
        requests: Mapping[str, Message],
        *,
        deadline_seconds: float,
        enough: Callable[[], bool] | None = None,
    ) -> Iterator[tuple[str, Message | str]]:
        """Nothing comes."""
        del requests, deadline_seconds, enough
        return iter(())


def _entry_of(recording: Recording, public: PublicLog) -> LeakageDrill | ModelReleased | Incident:
    time, history = public.time(), public.history
    if recording.drill is not None:
        try:
            report = recording.drill.read_bytes()
        except OSError as error:
            raise UsageError(f"it cannot be read: {error.strerror}", where=str(recording.drill)) from error
        assert recording.passed is not None  # asked for above
        return LeakageDrill(time=time, report=hashlib.sha256(report).hexdigest(), passed=recording.passed)
    try:
        if recording.release is None:
            return Incident(time=time, kind=IncidentKind.NOTED, note=recording.incident or "")
        if history.closed is None or history.model_digest is None:
            raise UsageError("no round is closed, so there is no model to release", where=str(recording.out))
        closed = history.closed[1]
        return ModelReleased(time=time, round=closed.round, model_digest=history.model_digest, to=recording.release)
    except ValueError as error:  # pydantic's
        raise UsageError("the words are too long", remedy="200 characters for a release, 500 otherwise") from error
