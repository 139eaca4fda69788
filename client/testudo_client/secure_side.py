"""One data owner's side of secure aggregation between messages: its session, kept, and its update, used once.

The steps themselves are the protocol's (testudo_common.secagg.client). Here is what they leave to their caller:
attempts only ever go up and are capped, a state is kept before its reply leaves, and an update that was sent masked
is never grouped a second time, since two sums that differ by one client would show that client.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from testudo_client.store import ClientStore
from testudo_common.errors import Breach, CheckpointError, ProtocolError
from testudo_common.plan import FederationPlan
from testudo_common.roster import Roster
from testudo_common.secagg.alike import decoded
from testudo_common.secagg.client import (
    CLIENT_STATES,
    Advertised,
    ClientState,
    Confirmed,
    Identity,
    Shared,
    coin_of,
    commit,
    step,
)
from testudo_common.secagg.codec import U32, Blob, Catalogue, Fixed, Many, Text
from testudo_common.secagg.masking import Words
from testudo_common.secagg.messages import MESSAGES, Deliveries, Directory, Reply
from testudo_common.secagg.terms import Terms
from testudo_common.secure_terms import Attempt, terms_of
from testudo_common.vectors import Vector, vector_digest
from testudo_common.wire import RefusalReason, SecureMessage, TrainRequest

_MAX_STATE_BYTES = 1 << 30
Counts = npt.NDArray[np.int64]
Encoded = Callable[[Terms, int, Counts], tuple[Vector, Words]]
"""The update of this attempt, and what goes into the sum for it; given terms, members of the group, and counts."""


class LogOfGroups(Protocol):
    """The audit log, as far as secure aggregation has to do with it."""

    def check_groups(self, round_number: int, attempt: int, coin: bytes, members: tuple[str, ...]) -> None:
        """Return only if the log holds the coin, and this client's group, in order.

        Raises:
            AuditError: It does not.
        """

    def told_survivors(self, round_number: int, attempt: int, places: tuple[int, ...]) -> None:
        """This client was told who of its group is in the sum: places in the group, from 0."""


@dataclass(frozen=True, slots=True)
class Session:
    """The attempt that a client is in, or was in last.

    Attributes:
        round: 1 and up.
        attempt: 0 and up.
        model_digest: Hex.
        clip: S of the round as a float64, big-endian; empty where it is the plan's.
        used: Digests of all updates that left masked under this plan.
        counts: ``int64[k]`` as bytes: metric sums that go into the masked input.
        state: Of the protocol, encoded; empty beside the state itself.
    """

    round: Annotated[int, U32]
    attempt: Annotated[int, U32]
    model_digest: Annotated[str, Text(64)]
    clip: Annotated[bytes, Blob(8)]
    used: Annotated[tuple[bytes, ...], Many(Fixed(32))]
    counts: Annotated[bytes, Blob(1 << 26)] = field(repr=False)
    state: Annotated[bytes, Blob(_MAX_STATE_BYTES)] = field(repr=False)


_SESSIONS = Catalogue(2, {1: Session})


def _named(update: Vector) -> bytes:
    return bytes.fromhex(vector_digest(update))


class SecureSide:
    """The sessions of one client under one plan.

    Args:
        plan: The copy installed here.
        identity: Whose name and key.
        roster: As pinned here.
        store: Where sessions are kept.
        size: d, shared parameters.
        log: Of the plan; None: it has none.

    Raises:
        ProtocolError: The plan's numbers do not fit together.
    """

    def __init__(
        self,
        plan: FederationPlan,
        identity: Identity,
        roster: Roster,
        store: ClientStore,
        size: int,
        log: LogOfGroups | None = None,
    ) -> None:
        self._plan = plan
        self._plan_digest = plan.digest
        self._identity = identity
        self._roster = roster
        self._store = store
        self._size = size
        self._log = log
        self._last_terms: tuple[Attempt, Terms] | None = None
        self._terms(1, 0, "0" * 64, None)

    def fault_of(self, request: TrainRequest) -> RefusalReason | None:
        """Why no attempt is begun for ``request``, or None."""
        if request.round > self._plan.rounds.count:  # a server could look at coins without end
            return RefusalReason.OTHER_PLAN
        if request.attempt >= self._plan.secure_aggregation.max_attempts:
            return RefusalReason.TOO_MANY_ATTEMPTS
        last = self._load()
        if last is not None and (request.round, request.attempt) <= (last[0].round, last[0].attempt):
            return RefusalReason.REPLAYED
        return None

    def has_used(self, update: Vector) -> bool:
        """Whether ``update`` left masked already: what goes into another attempt must be trained anew."""
        last = self._load()
        return last is not None and _named(update) in last[0].used

    def begin(self, request: TrainRequest, update: Vector, counts: Counts) -> SecureMessage | RefusalReason:
        """Begin the attempt: a commitment, once the session is kept."""
        last = self._load()
        used = () if last is None else last[0].used
        if _named(update) in used:
            return RefusalReason.UPDATE_USED
        terms = self._terms(request.round, request.attempt, request.model_digest, request.clip)
        state, reply = commit(terms, self._identity)
        session = Session(
            request.round,
            request.attempt,
            request.model_digest,
            b"" if request.clip is None else struct.pack(">d", request.clip),
            used,
            counts.astype("<i8").tobytes(),
            b"",
        )
        self._save(session, state)
        return self._carry(session, reply)

    def step(self, message: SecureMessage, encoded: Encoded) -> SecureMessage:
        """The next step of the attempt that ``message`` is for.

        Args:
            message: From the server.
            encoded: Asked when it is time to mask, with the size of the group and the counts kept for it.

        Raises:
            ProtocolError: It is for another attempt, out of turn, or breaks a rule. The session is as it was.
            AuditError: The groups are not in the log. The session is as it was.
        """
        session, state = self._load() or (None, None)
        if session is None or state is None or (message.round, message.attempt) != (session.round, session.attempt):
            raise ProtocolError(Breach.OUT_OF_TURN, "a message for an attempt that this client is not in")
        clip = struct.unpack(">d", session.clip)[0] if session.clip else None
        terms = self._terms(session.round, session.attempt, session.model_digest, clip)
        received = decoded(message.body)
        vector, used = None, session.used
        if isinstance(state, Shared) and isinstance(received, Deliveries):  # anything else must not cost a mask
            counts = np.frombuffer(session.counts, dtype="<i8").astype(np.int64)
            update, vector = encoded(terms, len(state.members), counts)
            if _named(update) in used:  # a request that was refused in between can have trained it again
                raise ProtocolError(Breach.REUSED, "this update left masked before")
            used = (*used, _named(update))
        following, reply = step(terms, self._identity, state, received, vector)
        if isinstance(state, Advertised) and isinstance(received, Directory) and isinstance(following, Shared):
            self._compare_groups(terms, session, state, received, following)
        if isinstance(following, Confirmed) and self._log is not None:
            self._log.told_survivors(session.round, session.attempt, following.survivors)
        session = replace(session, used=used)
        self._save(session, following)  # before the reply leaves: no state is answered from twice
        return self._carry(session, reply)

    def _compare_groups(
        self, terms: Terms, session: Session, before: Advertised, directory: Directory, after: Shared
    ) -> None:
        """The coin and the group that this client computed, with those in the log: before a share leaves."""
        if self._log is None:
            return
        coin = coin_of(terms, before.commitments, directory)
        members = tuple(member.client_id for member in after.members)
        self._log.check_groups(session.round, session.attempt, coin, members)

    def _terms(self, round_number: int, attempt: int, model_digest: str, clip: float | None) -> Terms:
        named = Attempt(self._plan_digest, round_number, attempt, model_digest, clip)
        if self._last_terms is None or self._last_terms[0] != named:
            self._last_terms = named, terms_of(self._plan, self._roster, named, self._size)
        return self._last_terms[1]

    def _carry(self, session: Session, reply: Reply) -> SecureMessage:
        body = MESSAGES.encode(reply.message)
        return SecureMessage(self._plan_digest, session.round, session.attempt, body, reply.vector)

    def _load(self) -> tuple[Session, ClientState] | None:
        if self._store.holds_sessions:
            return cast(tuple[Session, ClientState] | None, self._store.held_sessions.get(self._plan_digest))
        data = self._store.load_session(self._plan_digest)
        if data is None:
            return None
        session: Session = self._whole(_SESSIONS, data)
        return session, self._whole(CLIENT_STATES, session.state)

    def _whole(self, catalogue: Catalogue, data: bytes) -> Any:
        """What was kept as ``data``; that it cannot be read is no peer's fault."""
        try:
            return catalogue.decode(data)
        except ProtocolError as error:
            raise CheckpointError(
                "the session of secure aggregation is damaged",
                where=self._identity.client_id,
                remedy="an old copy would answer what was answered already: leave this run, and join the next one anew",
            ) from error

    def _save(self, session: Session, state: ClientState) -> None:
        if self._store.holds_sessions:
            self._store.held_sessions[self._plan_digest] = session, state
            return
        whole = replace(session, state=CLIENT_STATES.encode(state))
        self._store.save_session(self._plan_digest, _SESSIONS.encode(whole))
