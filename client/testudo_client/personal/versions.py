"""Versions of an owner's own model, and which of them is in use; each is written once and never changed.

``models/3/`` holds one: ``version.json`` (how it came about and why it was promoted or not), ``contract.json``, and
``model.safetensors`` (its parameters, centre and scores; no pickle). ``models/current`` is the number of the one in
use, replaced in one step, so that whoever reads it finds the old one or the new one. ``models/history.jsonl`` says what
was done, a line each. All of it is made from the owner's data and is for this user alone.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from testudo_client.personal.contract import FeatureContract
from testudo_client.personal.own_model import OwnModel
from testudo_common.errors import PlanError, UsageError
from testudo_common.files import create_private, make_private, sync_folder, write_atomically
from testudo_common.learning.conformal import Conformal
from testudo_common.learning.inner_loop import LocalCentre
from testudo_common.plan import FederationPlan

MODELS, CURRENT, HISTORY = "models", "current", "history.jsonl"
_RECORD, _CONTRACT, _MODEL, _LOCK = "version.json", "contract.json", "model.safetensors", ".lock"
_FORMAT = "testudo-own-model-1"


class Frozen(BaseModel):
    """Base of what is written: frozen, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Contender(Frozen):
    """How one way to answer did on examples that it was not trained on.

    Attributes:
        name: ``adapted``, ``initialisation`` (the meta-model as it is), ``majority`` (the most frequent class, or the
            mean) or ``in_use`` (the version before).
        metrics: Metric -> value.
        loss: Mean of what is compared: log loss, or squared error in the scaled target.
        examples: It was scored on.
    """

    name: str
    metrics: dict[str, float]
    loss: float
    examples: int


class VersionRecord(Frozen):
    """How a version came about.

    Attributes:
        id: 1 and up.
        created: UTC, ISO 8601.
        kind: ``adapted``, or ``initialisation`` where the meta-model as it is was better.
        meta_model: Digest of the meta-model, hex.
        meta_round: After which round it was published.
        plan_digest: Of its plan, hex.
        contract_digest: Of its contract, hex.
        rows: Examples it was made from.
        steps: Of the inner loop.
        private: Whether it was adapted by DP-SGD and charged to the ledger.
        epsilon: What that cost by itself; None where it was not private.
        stays: Whether model, answers and scores may not leave this owner: it was adapted without privacy.
        contenders: What the gate compared.
        promoted: Whether it was put in use then.
        reason: Why, or why not, in a sentence.
        files: Name -> SHA-256 of what was written beside the record. Not the digests of plan and contract: those change
            with what later versions of this program add to them.
        rows_digest: Keyed digests of the rows it was made from, one each, so that it is never scored on those.
        losses: Out-of-fold loss of each of those rows.
    """

    id: int = Field(ge=1)
    created: str
    kind: Literal["adapted", "initialisation"]
    meta_model: str
    meta_round: int
    plan_digest: str
    contract_digest: str
    rows: int
    steps: int
    private: bool
    epsilon: float | None
    stays: bool
    contenders: tuple[Contender, ...]
    promoted: bool
    reason: str
    files: dict[str, str] = {}
    rows_digest: tuple[str, ...] = Field((), repr=False)
    losses: tuple[float, ...] = Field((), repr=False)


@dataclass(frozen=True, slots=True)
class Version:
    """One version, whole."""

    record: VersionRecord
    own: OwnModel = field(repr=False)
    contract: FeatureContract = field(repr=False)


@dataclass(frozen=True, slots=True)
class VersionStore:
    """The versions in an owner's folder.

    Attributes:
        folder: The owner's.
    """

    folder: Path

    @property
    def models(self) -> Path:
        """Where they lie."""
        return self.folder / MODELS

    def ids(self) -> list[int]:
        """Numbers of all versions, ascending."""
        if not self.models.is_dir():
            return []
        return sorted(int(path.parent.name) for path in self.models.glob(f"*/{_RECORD}") if path.parent.name.isdigit())

    def current_id(self) -> int | None:
        """Number of the version in use; None where none is.

        Raises:
            UsageError: The file that says so is damaged.
        """
        path = self.models / CURRENT
        try:
            return int(path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UsageError(
                "it does not say which version is in use", where=str(path), remedy="testudo-client rollback names one"
            ) from error

    def current(self) -> Version:
        """The version in use.

        Raises:
            UsageError: None is, or it is damaged.
        """
        number = self.current_id()
        if number is None:
            raise UsageError(
                "no own model is in use", where=str(self.folder), remedy="make one: testudo-client adapt META_MODEL"
            )
        return self.load(number)

    def record(self, number: int) -> VersionRecord:
        """How version ``number`` came about.

        Raises:
            UsageError: There is none, or it is damaged.
        """
        path = self.models / str(number) / _RECORD
        try:
            return VersionRecord.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise UsageError(
                f"there is no version {number}", where=str(self.models), remedy=f"there are {self.ids() or 'none'}"
            ) from error
        except (OSError, ValueError, ValidationError) as error:
            raise _damaged(path) from error

    def load(self, number: int) -> Version:
        """Version ``number``, whole.

        Raises:
            UsageError: There is none, or it is damaged.
        """
        record = self.record(number)
        place = self.models / str(number)
        try:
            written = {name: (place / name).read_bytes() for name in (_CONTRACT, _MODEL)}
            if {name: sha256(data).hexdigest() for name, data in written.items()} != record.files:
                raise _damaged(place)
            contract = FeatureContract.model_validate_json(written[_CONTRACT])
            own = _read_model(place / _MODEL)
        except (SafetensorError, OSError, KeyError, ValueError, ValidationError, PlanError) as error:
            raise _damaged(place) from error
        return Version(record, own, contract)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Nobody else makes, promotes or takes back a version meanwhile.

        Raises:
            UsageError: Somebody does.
        """
        create_private(self.models / _LOCK, durable=False)
        with (self.models / _LOCK).open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(
                    "another command is changing the versions", where=str(self.models), remedy="wait for it"
                ) from error
            yield

    def next_id(self) -> int:
        """The number of the next version."""
        return max(self.ids(), default=0) + 1

    def add(self, version: Version) -> VersionRecord:
        """Write a version; under :meth:`changing`. Returns its record as it was written, with the files' digests.

        Raises:
            UsageError: It cannot be written.
        """
        place = self.models / str(version.record.id)
        files = {_CONTRACT: version.contract.model_dump_json(indent=2).encode(), _MODEL: _model_bytes(version.own)}
        digests = {name: sha256(data).hexdigest() for name, data in files.items()}
        record = version.record.model_copy(update={"files": digests})
        try:
            make_private(place)
            for name, data in files.items():
                write_atomically(place / name, data)
            write_atomically(place / _RECORD, record.model_dump_json(indent=2).encode())  # last: then it is whole
            sync_folder(self.models)
        except OSError as error:
            problem = f"the version cannot be written: {error.strerror or 'no reason given'}"
            raise UsageError(problem, where=str(place), remedy="make room, or let this user write there") from error
        return record

    def use(self, number: int, action: Literal["promoted", "rolled back"], now: datetime) -> None:
        """Put version ``number`` in use; under :meth:`changing`.

        Raises:
            UsageError: There is none.
        """
        self.record(number)
        line = {"time": now.isoformat(timespec="seconds"), "version": number, "action": action}
        write_atomically(self.models / CURRENT, str(number).encode())
        create_private(self.models / HISTORY)
        with (self.models / HISTORY).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def history(self) -> list[dict[str, object]]:
        """What was put in use when, oldest first; a line that was cut off is left out."""
        path = self.models / HISTORY
        if not path.exists():
            return []
        found = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def before_current(self) -> int | None:
        """Which version was in use before the one that is, and is not newer than it; None where none was."""
        current = self.current_id()
        used = [one["version"] for one in self.history() if isinstance(one.get("version"), int)]
        earlier = [number for number in used if isinstance(number, int) and current is not None and number < current]
        return earlier[-1] if earlier else None


def _damaged(place: Path) -> UsageError:
    return UsageError("this version is damaged", where=str(place), remedy="go back: testudo-client rollback")


def _model_bytes(own: OwnModel) -> bytes:
    tensors = {
        "parameters": own.parameters,
        "centre_inputs": own.centre.inputs,
        "scores": own.conformal.scores,
        "weights": own.conformal.weights,
    }
    metadata = {
        "format": _FORMAT,
        "plan": rfc8785.dumps(own.plan.model_dump(mode="json")).decode(),
        "centre_target": repr(own.centre.target),
        "temperature": repr(own.temperature),
        "scale": repr(own.conformal.scale),
    }
    return save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, metadata=metadata)


def _read_model(path: Path) -> OwnModel:
    with safe_open(str(path), framework="numpy") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != _FORMAT:
            raise ValueError
        tensors = {name: file.get_tensor(name) for name in ("parameters", "centre_inputs", "scores", "weights")}
    return OwnModel(
        plan=FederationPlan.model_validate(json.loads(metadata["plan"])),
        parameters=tensors["parameters"],
        centre=LocalCentre(tensors["centre_inputs"], float(metadata["centre_target"])),
        temperature=float(metadata["temperature"]),
        conformal=Conformal(tensors["scores"], tensors["weights"], float(metadata["scale"])),
    )
