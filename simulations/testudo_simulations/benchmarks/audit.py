"""What the audit log costs: to append, prove and check an entry, to verify a whole log, and a receipt's bytes.

Against our own limits. A whole log is verified by the command, in a process of its own, whose start counts.

On this machine's disk: what a commit waits for is the disk's, so wall and CPU time stand beside each other.
"""

from __future__ import annotations

import itertools
import random
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from testudo_common.audit.checkpoints import Checkpoint, Watch, watch_of, witness_name
from testudo_common.audit.entries import UpdateReceived, encode_entry
from testudo_common.audit.extension import encode_extension
from testudo_common.audit.log import AuditLog
from testudo_common.audit.merkle import leaf_hash, verify_inclusion
from testudo_common.audit.notes import Note, Signer
from testudo_common.audit.receipts import decode_receipt, receipt_for, verify_receipt
from testudo_common.audit.statements import Contribution, signed
from testudo_common.roster import Roster
from testudo_simulations.benchmarks.audited_log import audited_log
from testudo_simulations.benchmarks.measure import (
    Measurement,
    Seconds,
    compared,
    median_seconds,
    median_seconds_in_turn,
)

_ENTRIES: Final = 100_000
_ENTRY_BYTES: Final = 582
_BATCH: Final = 1000
_PROOFS: Final = 1000
_RECEIPT_ENTRIES: Final = 5000
_WITNESSES: Final = 5
_LIMIT: Final = "our own limit"
_APPENDS_PER_SECOND: Final = 50_000.0
_VERIFY_MICROSECONDS: Final = 50.0
_RECEIPT_BYTES: Final = 2048.0
_VERIFIED_ENTRIES: Final = 5000
_VERIFY: Final = Seconds(2.0, 2.0)
_PLAN: Final = "ab" * 32


def measure_audit(repeats: int) -> list[Measurement]:
    """Appends of 100,000 entries, proofs among them made and verified; a receipt, and the whole, of 5,000 entries."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            *_appends(Path(folder), repeats),
            *_proofs(repeats),
            *_receipt(repeats),
            *_whole_log(Path(folder), repeats),
        ]


def _appends(folder: Path, repeats: int) -> list[Measurement]:
    """Each time a new log, its root with every batch as a checkpoint needs it; beside the same rows without a log."""
    entries, numbers = _entries(_ENTRIES), itertools.count()

    def ours() -> None:
        log = AuditLog(folder / f"{next(numbers)}.db")
        for start in range(0, _ENTRIES, _BATCH):
            log.append(entries[start : start + _BATCH])
            log.root()
        log.close()

    def bare() -> None:
        with closing(sqlite3.connect(folder / f"{next(numbers)}.db", isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("CREATE TABLE entries (place INTEGER PRIMARY KEY, content BLOB NOT NULL) STRICT")
            for start in range(0, _ENTRIES, _BATCH):
                connection.execute("BEGIN IMMEDIATE")
                batch = enumerate(entries[start : start + _BATCH], start)
                connection.executemany("INSERT INTO entries VALUES (?, ?)", batch)
                connection.execute("COMMIT")

    log, rows = median_seconds_in_turn([ours, bare], repeats)
    case = f"append {_ENTRIES} entries of {_ENTRY_BYTES} bytes, {_BATCH} a commit, with roots"
    return [
        Measurement(case, "appends_per_cpu_second", "/s", _ENTRIES / log.cpu, _APPENDS_PER_SECOND, _LIMIT),
        *compared(f"{case}, beside plain SQLite", log, rows, "the same rows in plain SQLite, without roots"),
    ]


def _proofs(repeats: int) -> list[Measurement]:
    entries = _entries(_ENTRIES)
    log = AuditLog(None)
    log.append(entries)
    root, chosen = log.root(), random.Random(0).sample(range(_ENTRIES), _PROOFS)
    proofs = {index: log.inclusion_proof(index) for index in chosen}
    old = [index + 1 for index in chosen]

    def first() -> None:
        """On a log that was just opened."""
        fresh = AuditLog(None)
        fresh.append(entries)
        fresh.inclusion_proof(0)

    def check() -> None:
        for index, proof in proofs.items():
            verify_inclusion(root, _ENTRIES, index, leaf_hash(entries[index]), proof)

    make = _microseconds_each(lambda: [log.inclusion_proof(index) for index in chosen], _PROOFS, repeats)
    consistent = _microseconds_each(lambda: [log.consistency_proof(size) for size in old], _PROOFS, repeats)
    checked = _microseconds_each(check, _PROOFS, repeats)
    among = f"among {_ENTRIES} entries"
    return [
        *compared(f"first proof {among}, tree included", median_seconds(first, repeats), None, "none"),
        *_microseconds(f"make an inclusion proof {among}", make, None, "none"),
        *_microseconds(f"make a consistency proof {among}", consistent, None, "none"),
        *_microseconds(f"verify an inclusion proof {among}", checked, _VERIFY_MICROSECONDS, _LIMIT),
    ]


def _receipt(repeats: int) -> list[Measurement]:
    keys = {f"shop-{number}": _key(number) for number in range(1, _WITNESSES + 1)}
    members = {client: key.public_key().public_bytes_raw() for client, key in keys.items()}
    watch = watch_of(Roster("shops", members, b"\x01" + _key(0).public_key().public_bytes_raw()), _PLAN)
    log = _signed_log(watch, keys)
    data = receipt_for(log, _RECEIPT_ENTRIES // 2).encode()

    def cold() -> None:
        from testudo_common.audit import notes

        notes._verify.cache_clear()  # an owner checks a signature once; a simulation, the same one very often
        verify_receipt(decode_receipt(data), watch, _WITNESSES)

    case = f"receipt among {_RECEIPT_ENTRIES} entries, {_WITNESSES} cosignatures"
    return [
        Measurement(case, "bytes", "B", float(len(data)), _RECEIPT_BYTES, _LIMIT),
        *_microseconds(f"read and verify a {case}", _microseconds_each(cold, 1, repeats), None, "none"),
    ]


def _signed_log(watch: Watch, keys: dict[str, Ed25519PrivateKey]) -> AuditLog:
    """Updates received, as a round has them, under one checkpoint that everybody cosigned."""
    log, clients = AuditLog(None), itertools.cycle(keys.items())
    for number in range(_RECEIPT_ENTRIES):
        client, key = next(clients)
        digest = f"{number:064x}"
        said = Contribution(client=client, round=number // _WITNESSES + 1, attempt=0, commitment=digest, ledger=digest)
        entry = UpdateReceived(time="2026-03-01T12:00:00Z", statement=signed(said, key, _PLAN))
        log.append([encode_entry(entry)])
    text = Checkpoint(watch.origin, log.size, log.root()).text()
    signers = [Signer(watch.log.name, _key(0)), *(Signer(witness_name(c), k, cosigner=True) for c, k in keys.items())]
    log.keep_note(Note(text, tuple(signer.sign(text, 1_772_366_400) for signer in signers)).encode())
    return log


def _whole_log(folder: Path, repeats: int) -> list[Measurement]:
    log = audited_log(_VERIFIED_ENTRIES)
    exported, key = folder / "shops.tlog", folder / "federation.pub"
    exported.write_bytes(encode_extension(log.entries, log.note))
    key.write_text(log.federation_key.hex() + "\n", encoding="ascii")
    command = ["audit", "verify", str(exported), "--federation-key", str(key)]
    found = _of_processes([sys.executable, "-c", "from testudo_client.cli import main; main()", *command], repeats)
    rounds = 0 if log.history.closed is None else log.history.closed[1].round
    case = f"verify {len(log.entries)} entries of {rounds} rounds, with the start of the process"
    return compared(case, found, _VERIFY, _LIMIT)


def _of_processes(command: list[str], repeats: int) -> Seconds:
    """Medians over processes that do the same one after another, the first not counted.

    Raises:
        CalledProcessError: One of them failed: then there is nothing to measure.
    """
    walls, cpus = [], []
    for _ in range(repeats + 1):
        before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command
        walls.append(time.perf_counter() - wall)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return Seconds(statistics.median(walls[1:]), statistics.median(cpus[1:]))


def _key(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(number.to_bytes(32))


def _entries(count: int) -> list[bytes]:
    """Of one length and no two alike; a log does not look into them."""
    return [(b'{"number":%d,"said":"' % number).ljust(_ENTRY_BYTES - 2, b"x") + b'"}' for number in range(count)]


def _microseconds_each(work: Callable[[], object], count: int, repeats: int) -> Seconds:
    seconds = median_seconds(work, repeats)
    return Seconds(seconds.wall * 1e6 / count, seconds.cpu * 1e6 / count)


def _microseconds(case: str, ours: Seconds, limit: float | None, name: str) -> list[Measurement]:
    return [
        Measurement(case, "wall_microseconds", "us", ours.wall, limit, name),
        Measurement(case, "cpu_microseconds", "us", ours.cpu, limit, name),
    ]
