"""The server's state between rounds: one checkpoint, replaced as a whole, and one line a finished round.

What must survive a restart is here, never in Flower's Context. No pickle: safetensors and JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt
import safetensors
from safetensors.numpy import load, save

from testudo_common.errors import CheckpointError
from testudo_common.files import write_atomically
from testudo_common.vectors import Vector
from testudo_server.exchange import GroupRecord
from testudo_server.outer_step import OuterState

_FORMAT = "testudo-server-1"


@dataclass(frozen=True, slots=True)
class LoggedRound:
    """A round in the audit log.

    Attributes:
        opened: Index of the entry that opened the attempt that closed.
        closed: Index of the entry that closed the round.
        cosigners: Owners that had cosigned the checkpoint when training began.
        bytes_down: Payload bytes of the log's own messages sent since the round before.
        bytes_up: Payload bytes of their answers.
        cpu_seconds: Of the log at the server, since the round before.
    """

    opened: int
    closed: int
    cosigners: int
    bytes_down: int
    bytes_up: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One finished round; nothing of a single client beyond its name and why it was set aside.

    Attributes:
        round: 1 and up.
        model_digest: Of the model after it.
        cohort: Who was asked.
        excluded: (client id, reason).
        mean_update_norm: L2 norm of the aggregated update.
        seconds: Wall time.
        bytes_down: Payload bytes sent.
        bytes_up: Payload bytes received.
        groups: What became of each group of secure aggregation, over all attempts.
        barred: Clients that strikes had singled out before this round; they were not asked.
        secure_cpu_seconds: Of secure aggregation at the server.
        rule: What made one update of the groups', in order.
        withstood: f, the bad rows that the rule was run against.
        influence: (members, share): how much of the update came from each group, or single client under plain
            aggregation; see :class:`testudo_server.aggregate.Aggregated`.
        merged: Groups that dedupe counted as one, each by its members.
        metrics: ``before`` and ``after`` adaptation -> metric -> value, over all training clients of the round
            together; empty in a round without.
        clip: S of the round, where the plan adapts it.
        metric_noise: In the same places, the standard deviation that noise gives a metric; for ``examples`` that of
            their number, which is no metric. Empty where the sums are exact.
        withheld: ``before`` and ``after`` -> ``classes``, ``bins``, ``metrics`` -> how many are not reported: too few
            examples, or mostly noise.
        log: Where the round is in the audit log, and what that cost; None where the plan has none.
        calibration: What clients that had never trained found out about how sure adapted models may be, each as JSON
            has a :class:`~testudo_common.learning.calibration.CalibrationPrior`; none in other rounds.
    """

    round: int
    model_digest: str
    cohort: tuple[str, ...]
    excluded: tuple[tuple[str, str], ...]
    mean_update_norm: float
    seconds: float
    bytes_down: int
    bytes_up: int
    groups: tuple[GroupRecord, ...] = ()
    barred: tuple[str, ...] = ()
    secure_cpu_seconds: float = 0.0
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rule: tuple[str, ...] = ("mean",)
    withstood: int = 0
    influence: tuple[tuple[tuple[str, ...], float], ...] = ()
    merged: tuple[tuple[tuple[str, ...], ...], ...] = ()
    clip: float | None = None
    metric_noise: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    withheld: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    log: LoggedRound | None = None
    calibration: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class RunState:
    """Everything the next round depends on.

    Attributes:
        plan_digest: The plan it belongs to.
        round: Rounds finished.
        model: ``float32[d]``.
        outer: State of the outer optimiser.
        participations: Client id -> rounds it was asked in.
        clip: S of the next round, where the plan adapts it.
    """

    plan_digest: str
    round: int
    model: Vector = field(repr=False, compare=False)
    outer: OuterState = field(repr=False, compare=False)
    participations: Mapping[str, int]
    clip: float | None = None


class RunStore:
    """Keeps a run in a folder: ``checkpoint.safetensors`` and ``rounds.jsonl``.

    Args:
        folder: Made if missing.
        durable: Whether to wait until the disk has each round.

    Attributes:
        folder: As given.
        durable: As given.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self._checkpoint = folder / "checkpoint.safetensors"
        self._rounds = folder / "rounds.jsonl"
        self._attempts = folder / "attempt.json"
        self.folder, self.durable = folder, durable

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return self._checkpoint.exists()

    def save(self, state: RunState, record: RoundRecord | None) -> None:
        """Keep ``state``, and the round that led to it; a kill leaves the state before or after, whole."""
        if record is None:
            self._rounds.parent.mkdir(parents=True, exist_ok=True)
            self._rounds.write_bytes(b"")
            self._attempts.unlink(missing_ok=True)
        else:
            with self._rounds.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(record)) + "\n")
                if self.durable:
                    file.flush()
                    os.fsync(file.fileno())  # the disk must not have the checkpoint without the line
        metadata = {
            "format": _FORMAT,
            "plan_digest": state.plan_digest,
            "round": str(state.round),
            "participations": json.dumps(dict(state.participations), sort_keys=True),
            "clip": json.dumps(state.clip),  # to the last bit
        }
        arrays: dict[str, npt.NDArray[Any]] = {
            "model": state.model,
            "first": state.outer.first,
            "second": state.outer.second,
        }
        write_atomically(self._checkpoint, save(arrays, metadata), durable=self.durable)

    def load(self, plan_digest: str) -> RunState:
        """The state to go on from.

        Raises:
            CheckpointError: There is none, it is damaged, or it belongs to another plan.
        """
        try:
            with safetensors.safe_open(self._checkpoint, framework="numpy") as file:
                metadata = file.metadata()
            arrays = load(self._checkpoint.read_bytes())
            if metadata["format"] != _FORMAT:
                raise ValueError("another format")
            state = RunState(
                metadata["plan_digest"],
                int(metadata["round"]),
                arrays["model"],
                OuterState(arrays["first"], arrays["second"]),
                json.loads(metadata["participations"]),
                json.loads(metadata.get("clip", "null")),
            )
        except FileNotFoundError as error:
            raise CheckpointError(
                "there is no run to go on with",
                where=str(self._checkpoint),
                remedy="start it without --resume",
            ) from error
        except (ValueError, KeyError, TypeError, OSError, safetensors.SafetensorError) as error:
            raise CheckpointError(
                "the checkpoint is damaged", where=str(self._checkpoint), remedy="restore it from a copy"
            ) from error
        if state.plan_digest != plan_digest:
            raise CheckpointError(
                "the checkpoint belongs to another plan",
                where=str(self._checkpoint),
                remedy="resume with the plan it was begun with, or choose another --out",
            )
        self._forget_rounds_after(state.round)
        return state

    def begin_attempt(self, round_number: int) -> int:
        """The number of the next attempt at a round, 0 and up, kept before it is given: none is ever begun twice."""
        try:
            kept = json.loads(self._attempts.read_bytes())
            attempt = kept["attempt"] + 1 if kept["round"] == round_number else 0
        except FileNotFoundError:
            attempt = 0
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                "the number of the last attempt is damaged", where=str(self._attempts), remedy="restore it from a copy"
            ) from error
        content = json.dumps({"round": round_number, "attempt": attempt}).encode()
        write_atomically(self._attempts, content, durable=self.durable)
        return attempt

    def records(self) -> tuple[RoundRecord, ...]:
        """The finished rounds, oldest first."""
        if not self._rounds.exists():
            return ()
        return tuple(_record(line) for line in self._rounds.read_text(encoding="utf-8").splitlines())

    def _forget_rounds_after(self, last: int) -> None:
        """A kill between the line and the checkpoint leaves a line, or half of one, too many."""
        if not self._rounds.exists():
            return
        lines = self._rounds.read_text(encoding="utf-8").splitlines()
        write_atomically(self._rounds, "".join(f"{line}\n" for line in lines[:last]).encode(), durable=self.durable)


def _record(line: str) -> RoundRecord:
    fields = json.loads(line)
    fields["cohort"] = tuple(fields["cohort"])
    fields["excluded"] = tuple((client, reason) for client, reason in fields["excluded"])
    fields["barred"] = tuple(fields["barred"])
    fields["rule"] = tuple(fields["rule"])
    fields["influence"] = tuple((tuple(members), share) for members, share in fields["influence"])
    fields["merged"] = tuple(tuple(tuple(members) for members in alike) for alike in fields["merged"])
    fields["groups"] = tuple(
        GroupRecord(
            **{
                **group,
                "members": tuple(group["members"]),
                "survivors": tuple(group["survivors"]),
                "disputes": tuple((owner, holder) for owner, holder in group["disputes"]),
            }
        )
        for group in fields["groups"]
    )
    fields["calibration"] = tuple(fields.get("calibration", ()))
    logged = fields.get("log")
    fields["log"] = None if logged is None else LoggedRound(**logged)
    return RoundRecord(**fields)
