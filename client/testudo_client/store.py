"""What a client remembers: its last update, and the session of secure aggregation it is in.

Two files, each replaced as a whole. The update is what makes a retry of a round re-send the same bytes instead of
spending twice; the session holds secrets of a round and is replaced at each of its steps. What was spent is not here
but in the ledger. A file is read again each time, since another process may answer for the same client in the next
message; a lock keeps two of them from answering at once.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load, save

from testudo_common.errors import CheckpointError
from testudo_common.files import write_atomically
from testudo_common.vectors import Vector

_FORMAT = "testudo-client-2"


@dataclass(frozen=True, slots=True)
class ClientMemory:
    """A client's memory of one plan.

    Attributes:
        last_round: The last round replied to; 0 before the first.
        last_model_digest: The model that reply was trained from.
        last_update: ``float32[d]``, or None before the first.
    """

    last_round: int = 0
    last_model_digest: str = ""
    last_update: Vector | None = field(default=None, repr=False, compare=False)


class ClientStore:
    """Keeps :class:`ClientMemory`, in a file or, for simulations that need no restart, in memory only.

    Args:
        folder: Holds one file a plan, or None to forget when the process ends.
        durable: Whether to wait until the disk has it. A simulation need not survive a loss of power.
        holds_sessions: Whether sessions stay in this process, as they are and not as bytes. For simulations of very
            many clients: what is the same in all their sessions is then there once.
    """

    def __init__(self, folder: Path | None, *, durable: bool = True, holds_sessions: bool = False) -> None:
        self.holds_sessions = holds_sessions
        self.held_sessions: dict[str, object] = {}
        self._folder = folder
        self._durable = durable
        self._memory: dict[str, ClientMemory] = {}
        self._sessions: dict[str, bytes] = {}

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep every other process from answering for this client meanwhile; wait until none does."""
        if self._folder is None:
            yield
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # let go of when the file is closed, also by a kill
            yield
        finally:
            os.close(descriptor)

    def load(self, plan_digest: str) -> ClientMemory:
        """The memory under this plan; empty if there is none.

        Raises:
            CheckpointError: The file is damaged. It is left as it is.
        """
        if self._folder is None:
            return self._memory.get(plan_digest, ClientMemory())
        return self._read(plan_digest)

    def load_session(self, plan_digest: str) -> bytes | None:
        """The session under this plan, as it was saved; None before the first."""
        if self._folder is None:
            return self._sessions.get(plan_digest)
        path = self._session_file(plan_digest)
        return path.read_bytes() if path.exists() else None

    def save_session(self, plan_digest: str, session: bytes) -> None:
        """Keep ``session`` under this plan; when this returns, a killed process finds it again."""
        if self._folder is None:
            self._sessions[plan_digest] = session
        else:
            write_atomically(self._session_file(plan_digest), session, durable=self._durable)

    def save(self, plan_digest: str, memory: ClientMemory) -> None:
        """Keep ``memory`` under this plan; when this returns, a killed process finds it again."""
        if self._folder is None:
            self._memory[plan_digest] = memory
        else:
            update = memory.last_update if memory.last_update is not None else np.empty(0, dtype=np.float32)
            metadata = {
                "format": _FORMAT,
                "plan_digest": plan_digest,
                "last_round": str(memory.last_round),
                "last_model_digest": memory.last_model_digest,
            }
            write_atomically(self._file(plan_digest), save({"last_update": update}, metadata), durable=self._durable)

    def _file(self, plan_digest: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{plan_digest[:16]}.safetensors"

    def _session_file(self, plan_digest: str) -> Path:
        return self._file(plan_digest).with_suffix(".session")

    def _read(self, plan_digest: str) -> ClientMemory:
        if self._folder is None or not self._file(plan_digest).exists():
            return ClientMemory()
        path = self._file(plan_digest)
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                metadata = file.metadata()
            if metadata["format"] != _FORMAT or metadata["plan_digest"] != plan_digest:
                raise ValueError("another format or plan")
            return ClientMemory(
                int(metadata["last_round"]),
                metadata["last_model_digest"],
                load(path.read_bytes())["last_update"],
            )
        except (ValueError, KeyError, TypeError, OSError, safetensors.SafetensorError) as error:
            raise CheckpointError(
                "the client's memory is damaged",
                where=str(path),
                remedy="move it away: the ledger knows what was spent, and the round is trained, and charged, anew",
            ) from error
