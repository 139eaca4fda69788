"""What an owner keeps of its own part in a log: salts, the contributions it signed, receipts; and a halt. No rule.

Below an owner's folder, where ``3f0a...`` are 16 digits of the plan's digest::

    state/audit-3f0a....db                                its mirror of the log
    state/audit-3f0a....halt                              why it takes no further part; evidence
    state/salts/3f0a.../round-3-attempt-0.salt            what its commitment is made with
    state/contributions/3f0a.../round-3-attempt-0.json    what it signed, and for which model
    state/survivors-3f0a....json                          who it was told is in its group's last sum
    receipts/3f0a.../round-3.tlog-proof                   that it stands in the log; of later attempts too

Whoever destroys a salt has erased what the log says of that update: the commitment is then one to nothing. Nothing else
reads a salt.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from testudo_common.audit.statements import Contribution, Hex, Record
from testudo_common.errors import AuditError, AuditFault
from testudo_common.files import make_private, write_atomically

_SHOWN_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class AuditFiles:
    """Where an owner keeps what belongs to one plan's log.

    Attributes:
        folder: The owner's.
        plan_digest: SHA-256 of the plan, hex.
    """

    folder: Path
    plan_digest: str

    @property
    def mirror(self) -> Path:
        """The mirror of the log."""
        return self.folder / "state" / f"audit-{self._plan}.db"

    @property
    def halt(self) -> Path:
        """Why the owner takes no further part; no such file: it does."""
        return self.folder / "state" / f"audit-{self._plan}.halt"

    def salt(self, round_number: int, attempt: int) -> Path:
        """The salt of one commitment."""
        return self.folder / "state" / "salts" / self._plan / f"round-{round_number}-attempt-{attempt}.salt"

    def contribution(self, round_number: int, attempt: int) -> Path:
        """What was signed in one attempt."""
        return self.folder / "state" / "contributions" / self._plan / f"round-{round_number}-attempt-{attempt}.json"

    @property
    def survivors(self) -> Path:
        """Who the owner was told is in the last sum of its group."""
        return self.folder / "state" / f"survivors-{self._plan}.json"

    def receipt(self, round_number: int, attempt: int) -> Path:
        """That the owner's part in an attempt stands in the log."""
        again = f"-attempt-{attempt}" if attempt else ""
        return self.folder / "receipts" / self._plan / f"round-{round_number}{again}.tlog-proof"

    @property
    def _plan(self) -> str:
        return self.plan_digest[:_SHOWN_DIGITS]


class Signed(Record):
    """What an owner signed in one attempt: once, unless its memory of the update was lost in between.

    Attributes:
        model_digest: Of the model that it was sent, hex.
        statements: In order.
    """

    model_digest: Hex
    statements: tuple[Contribution, ...]


class Told(Record):
    """Which members of its group an owner was told are in the sum; it lets go of a share of its secret for these alone.

    Attributes:
        round: From 1 on.
        attempt: From 0 on.
        places: In the group, from 0.
    """

    round: int
    attempt: int
    places: tuple[int, ...]


class Halt(Record):
    """Why an owner takes no further part in a log.

    Attributes:
        fault: A fixed word of :class:`AuditFault`.
        entry: Index of the entry that is wrong; None where it is no single one.
        place: Which entry or owner it is about, in words; empty: none.
        problem: In a sentence.
        time: UTC, by this computer's clock.
        note: The signed note that shows it.
    """

    fault: str
    entry: int | None
    place: str
    problem: str
    time: str
    note: str


class OwnRecord:
    """The record, in an owner's folder or, for simulations, in memory.

    Args:
        files: Where; None: in memory.
        durable: Whether to wait until the disk has what is kept.
    """

    def __init__(self, files: AuditFiles | None, *, durable: bool = True) -> None:
        self._files, self._durable = files, durable
        self._kept: dict[str, bytes] = {}

    def refuse_if_halted(self) -> None:
        """Return unless a person has to look first.

        Raises:
            AuditError: HALTED, with what was wrong.
        """
        data = self._read("halt", None if self._files is None else self._files.halt)
        if data is None:
            return
        try:
            halt = Halt.model_validate_json(data)
            said = f"it has stopped at {halt.time}, since {f'{halt.place}: ' if halt.place else ''}{halt.problem}"
        except ValidationError:
            said = "it has stopped, and the file that says why is damaged"
        raise AuditError(
            AuditFault.HALTED,
            said,
            where="the audit log" if self._files is None else str(self._files.halt),
            remedy="find out what the federation did; whoever is content with it moves that file away",
        )

    def halt(self, error: AuditError, note: bytes, now: datetime) -> None:
        """Take no further part until a person has looked; what happened first stays."""
        place = None if self._files is None else self._files.halt
        if self._read("halt", place) is None:
            time = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            halt = Halt(
                fault=error.fault.value,
                entry=error.index,
                place=error.where,
                problem=error.problem,
                time=time,
                note=note.decode(errors="replace"),
            )
            self._write("halt", place, json.dumps(halt.model_dump(mode="json"), indent=2).encode() + b"\n")

    def signed(self, round_number: int, attempt: int) -> Signed | None:
        """What was signed in an attempt; None if nothing was.

        Raises:
            AuditError: STORAGE, where the file is damaged.
        """
        data = self._read(*self._place("contribution", AuditFiles.contribution, round_number, attempt))
        try:
            return None if data is None else Signed.model_validate_json(data)
        except ValidationError as error:
            raise AuditError(
                AuditFault.STORAGE,
                "what you signed in this attempt is damaged",
                where="" if self._files is None else str(self._files.contribution(round_number, attempt)),
                remedy="restore it from a copy",
            ) from error

    def keep_signed(self, round_number: int, attempt: int, signed: Signed, salt: bytes) -> None:
        """Keep what was signed, and the salt of the last statement; on the disk when this returns."""
        self._write(*self._place("salt", AuditFiles.salt, round_number, attempt), salt)
        data = json.dumps(signed.model_dump(mode="json")).encode() + b"\n"
        self._write(*self._place("contribution", AuditFiles.contribution, round_number, attempt), data)

    def told(self) -> Told | None:
        """Who the owner was told last is in its group's sum; None: nobody yet.

        Raises:
            AuditError: STORAGE, where the file is damaged.
        """
        place = None if self._files is None else self._files.survivors
        data = self._read("survivors", place)
        try:
            return None if data is None else Told.model_validate_json(data)
        except ValidationError as error:
            raise AuditError(
                AuditFault.STORAGE,
                "what you were told of your group is damaged",
                where=str(place or ""),
                remedy="restore it from a copy; without one, move it away, and the log's word is taken for that round",
            ) from error

    def keep_told(self, told: Told) -> None:
        """Keep who the owner was told is in its group's sum; on the disk when this returns."""
        data = json.dumps(told.model_dump(mode="json")).encode() + b"\n"
        self._write("survivors", None if self._files is None else self._files.survivors, data)

    def salt(self, round_number: int, attempt: int) -> bytes | None:
        """The salt of an attempt's commitment; None if it was destroyed, or never was."""
        return self._read(*self._place("salt", AuditFiles.salt, round_number, attempt))

    @property
    def on_disk(self) -> bool:
        """Whether it is kept in a folder."""
        return self._files is not None

    def receipt(self, round_number: int, attempt: int) -> bytes | None:
        """The receipt of an attempt; None if there is none yet."""
        return self._read(*self._place("receipt", AuditFiles.receipt, round_number, attempt))

    def keep_receipt(self, round_number: int, attempt: int, receipt: bytes) -> None:
        """Keep the receipt of an attempt."""
        self._write(*self._place("receipt", AuditFiles.receipt, round_number, attempt), receipt)

    def _place(
        self, kind: str, path_of: Callable[[AuditFiles, int, int], Path], round_number: int, attempt: int
    ) -> tuple[str, Path | None]:
        path = None if self._files is None else path_of(self._files, round_number, attempt)
        return f"{kind} {round_number}.{attempt}", path

    def _read(self, name: str, path: Path | None) -> bytes | None:
        if path is None:
            return self._kept.get(name)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(path, "read", error) from error

    def _write(self, name: str, path: Path | None, data: bytes) -> None:
        if path is None:
            self._kept[name] = data
            return
        try:
            make_private(path.parent)
            write_atomically(path, data, durable=self._durable)
        except OSError as error:
            raise _unusable(path, "written", error) from error


def _unusable(path: Path, how: str, error: OSError) -> AuditError:
    return AuditError(
        AuditFault.STORAGE,
        f"it cannot be {how}: {error.strerror}",
        where=str(path),
        remedy="make room, or let this user read and write there",
    )
