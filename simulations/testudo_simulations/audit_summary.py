"""What a run's audit log holds, read from the log alone, and what one of its clients keeps of it. Writes no entry.

In the run's folder, beside the server's own file::

    audit.tlog                                  the whole log, for whoever wants to check it
    receipts/writer-007/round-0003.tlog-proof   what the client that was asked most often keeps, one an update
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from testudo_common.audit.checkpoints import (
    Watch,
    cosigners_of,
    default_quorum,
    open_checkpoint,
    watch_of,
)
from testudo_common.audit.entries import (
    AnyEntry,
    Incident,
    RoundClosed,
    RoundOpened,
    UpdateReceived,
    decode_entry,
)
from testudo_common.audit.extension import Extension, decode_extension
from testudo_common.audit.log import AuditLog
from testudo_common.audit.receipts import receipt_for, verify_receipt
from testudo_common.audit.verify import Evidence, Verdict, verify
from testudo_common.errors import AuditError, UsageError
from testudo_common.files import write_atomically
from testudo_common.plan import FederationPlan
from testudo_common.roster import Roster
from testudo_server.audit_command import exported
from testudo_server.audit_file import read_log
from testudo_server.roster import ServerKeys, keys_in
from testudo_server.store import RoundRecord
from testudo_simulations.results import AuditSummary, KeptReceipt

EXPORTED_FILE: Final = "audit.tlog"
KEYS_FOLDER: Final = "keys"
RECEIPTS_FOLDER: Final = "receipts"
_LONGEST_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class Covered:
    """A checkpoint that the log kept.

    Attributes:
        size: Entries under it.
        cosigners: Witnesses that cosigned it.
        note: As it was kept.
    """

    size: int
    cosigners: frozenset[str]
    note: bytes


@dataclass(frozen=True, slots=True)
class Logged:
    """A log with the checkpoints over it, decoded.

    Attributes:
        log: The open log.
        entries: All, in order.
        checkpoints: By size.
        watch: Whose signatures count.
        quorum: k.
    """

    log: AuditLog
    entries: tuple[AnyEntry, ...]
    checkpoints: tuple[Covered, ...]
    watch: Watch
    quorum: int

    @classmethod
    def of(cls, log: AuditLog, roster: Roster, plan_digest: str, quorum: int) -> Logged:
        """Everything that ``log`` holds.

        Raises:
            AuditError: An entry or a checkpoint is none, or is not this log's.
        """
        watch = watch_of(roster, plan_digest)
        return cls(log, tuple(map(decode_entry, log.entries())), tuple(_covered(log.notes(), watch)), watch, quorum)

    def covering(self, index: int, least: int = 0) -> Covered | None:
        """The smallest kept checkpoint over entry ``index`` that so many witnesses cosigned."""
        return next((one for one in self.checkpoints if one.size > index and len(one.cosigners) >= least), None)

    def closed(self) -> list[RoundClosed]:
        """The closed rounds."""
        return [entry for entry in self.entries if isinstance(entry, RoundClosed)]

    def cosigners(self) -> list[int]:
        """One a closed round: witnesses under the checkpoint that its clients trained on."""
        counts, opened = [], 0
        for index, entry in enumerate(self.entries):
            if isinstance(entry, RoundOpened):
                opened = index
            elif isinstance(entry, RoundClosed):
                covered = self.covering(opened)
                counts.append(0 if covered is None else len(covered.cosigners))
        return counts

    def incidents(self) -> list[tuple[int, str, str]]:
        """Index, kind and words of each."""
        found = enumerate(self.entries)
        return [(index, entry.kind.value, entry.note) for index, entry in found if isinstance(entry, Incident)]

    def busiest(self) -> str:
        """The client that was asked in the most rounds; of several, the one that sent the most updates."""
        asked: Counter[str] = Counter()
        sent: Counter[str] = Counter()
        seen: set[tuple[str, int]] = set()
        for entry in self.entries:
            if isinstance(entry, RoundOpened):
                asked.update(client for client in entry.cohort if (client, entry.round) not in seen)
                seen.update((client, entry.round) for client in entry.cohort)
            elif isinstance(entry, UpdateReceived):
                sent[entry.statement.client] += 1
        return min(asked, key=lambda client: (-asked[client], -sent[client], client), default="")

    def updates_of(self, client: str) -> list[tuple[int, int]]:
        """Round and index of the last update that a client sent in each round."""
        found = {
            entry.statement.round: index
            for index, entry in enumerate(self.entries)
            if isinstance(entry, UpdateReceived) and entry.statement.client == client
        }
        return sorted(found.items())


def audit_summary(
    plan: FederationPlan, out: Path, records: Sequence[RoundRecord], client_cpu_seconds: float | None
) -> AuditSummary:
    """The summary of a run's log; the log is exported, and one client's receipts are kept.

    Args:
        plan: Complete, with a log.
        out: The run's folder, with the log and the federation's keys.
        records: Of all its rounds.
        client_cpu_seconds: Of the log at all clients over all rounds, where it was measured.

    Raises:
        AuditError: The log cannot be read.
    """
    keys = keys_in(out / KEYS_FOLDER)
    witnesses, quorum = len(keys.roster.members), plan.audit.quorum or default_quorum(len(keys.roster.members))
    log_bytes = _exported(out)
    with read_log(out) as log:
        logged = Logged.of(log, keys.roster, plan.digest, quorum)
        client = logged.busiest()
        receipts = keep_receipts(logged, client, out)
        root = log.root()
    verdict = _replayed(out, keys, receipts)
    closed, costs = logged.closed(), [record.log for record in records if record.log is not None]
    last = closed[-1] if closed else None
    asked = witnesses * len(costs)
    return AuditSummary(
        origin=logged.watch.origin,
        entries=len(logged.entries),
        rounds=len(closed),
        root=base64.b64encode(root).decode("ascii"),
        federation_key=keys.federation_key.hex(),
        witnesses=witnesses,
        quorum=quorum,
        window=plan.audit.window,
        cosigners=logged.cosigners(),
        epsilon=last.example.epsilon if last is not None and last.example is not None else None,
        client_epsilon=last.client.epsilon if last is not None and last.client is not None else None,
        incidents=logged.incidents(),
        client=client,
        receipts=receipts,
        verified=verdict.holds,
        checks=[f"{one.outcome.value}: {one.name}: {one.detail}" for one in verdict.checks],
        log_bytes=log_bytes,
        bytes_down=sum(cost.bytes_down for cost in costs),
        bytes_up=sum(cost.bytes_up for cost in costs),
        client_cpu_seconds=client_cpu_seconds / asked if client_cpu_seconds is not None and asked else None,
        server_cpu_seconds=sum(cost.cpu_seconds for cost in costs) / len(costs) if costs else None,
    )


def _exported(out: Path) -> int:
    """Write the whole log for whoever wants to check it; how many bytes. Nothing is written of an unsigned log."""
    try:
        return int(exported(out, None, out / EXPORTED_FILE)["bytes"])
    except UsageError:
        return 0


def _replayed(out: Path, keys: ServerKeys, receipts: Sequence[KeptReceipt]) -> Verdict:
    """What whoever gets the exported log and the receipts finds out about them."""
    exported = out / EXPORTED_FILE
    extension = decode_extension(exported.read_bytes()) if exported.exists() else Extension((), b"")
    evidence = Evidence(
        keys.federation_key,
        extension.entries,
        (extension.cosigned, extension.note) if extension.cosigned else (extension.note,),
        receipts=tuple((one.file, (out / one.file).read_bytes()) for one in receipts),
    )
    return verify(evidence)


def _covered(notes: Iterable[bytes], watch: Watch) -> Iterator[Covered]:
    for data in notes:
        checkpoint, note = open_checkpoint(data, watch)
        yield Covered(checkpoint.size, cosigners_of(note, watch), data)


def keep_receipts(logged: Logged, client: str, out: Path) -> list[KeptReceipt]:
    """Write a client's receipts, one an update that a kept checkpoint covers; what became of each.

    Args:
        logged: Of the run.
        client: Its id.
        out: The run's folder.
    """
    kept = []
    for number, index in logged.updates_of(client):
        covered = logged.covering(index, logged.quorum) or logged.covering(index)
        if covered is None:
            continue
        receipt = receipt_for(logged.log, index, covered.note)
        file = f"{RECEIPTS_FOLDER}/{folder_of(client)}/round-{number:04d}.tlog-proof"
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out / file, receipt.encode(), durable=False)
        try:
            verify_receipt(receipt, logged.watch, logged.quorum)
            verified = True
        except AuditError:
            verified = False
        kept.append(
            KeptReceipt(round=number, index=index, cosigners=len(covered.cosigners), verified=verified, file=file)
        )
    return kept


def folder_of(client: str) -> str:
    """A name for a client's folder: nothing in it leads out of the folder above."""
    return quote(client, safe="").replace(".", "%2E")[:_LONGEST_NAME]
