"""What the entries of a log have established so far, as one value. Which entry may come next is the rules' to say."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import Final

from testudo_common.audit.accounts import next_accounts
from testudo_common.audit.checkpoints import Watch
from testudo_common.audit.entries import Account, Charter, GroupsDrawn, RoundClosed, RoundOpened
from testudo_common.audit.merkle import EMPTY_ROOT, Frontier
from testudo_common.audit.statements import Contribution
from testudo_common.plan import FederationPlan
from testudo_common.roster import Roster


@dataclass(slots=True, eq=False)
class History:
    """A log's entries, replayed. Never changed once :func:`testudo_common.audit.history.extend` has given it back.

    Two are equal when they are of the same entries of the same plan under the same federation's key.

    Attributes:
        federation_key: Ed25519, 32 bytes: whose signature makes a roster.
        plan_digest: SHA-256, hex: of the plan that the log must be of.
        size: Entries.
        root: Of the Merkle tree over them, 32 bytes.
        charter: The first entry; None before it.
        plan: Its plan; None before it.
        roster: Of the last enrolment; None before the first, as the following three.
        watch: Who signs and cosigns this log.
        quorum: k, witnesses that have to cosign.
        window: Rounds for which a cosignature counts.
        approved: Clients that have approved the plan with the key that they have now, and have not withdrawn.
        withdrawn: Clients that have withdrawn and not approved again.
        decisions: Client -> number of its last decision in the log, made with the key that it has now.
        opened: Index and entry of the attempt at a round that is going on; None between rounds.
        groups: Index and entry of its groups, where they are drawn.
        places: Client -> number of its group in that attempt; in the open, where everybody is alone, its own number.
        received: Client -> index of its update's entry, of that attempt.
        rejected: Whose updates that attempt goes without; None while that was not said.
        closed: Index and entry of the last closed round.
        model_digest: Of the model after it; None before the first.
        first_model: Of the model that the first round began from; None before.
        contributions: Client -> index and statement of each of its updates, in order.
        asked: Client -> rounds in which it was asked, each once however often it was begun.
        survived: Client -> closed rounds that its updates are in.
        evaluated: The last round whose scores are in the log; 0 for none.
        released: Index of each entry that says that a model was released.
    """

    federation_key: bytes
    plan_digest: str
    size: int = 0
    root: bytes = EMPTY_ROOT
    charter: Charter | None = None
    plan: FederationPlan | None = None
    roster: Roster | None = None
    watch: Watch | None = None
    quorum: int | None = None
    window: int | None = None
    approved: set[str] = field(default_factory=set)
    withdrawn: set[str] = field(default_factory=set)
    decisions: dict[str, int] = field(default_factory=dict)
    opened: tuple[int, RoundOpened] | None = None
    groups: tuple[int, GroupsDrawn] | None = None
    places: dict[str, int] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)
    rejected: frozenset[str] | None = None
    closed: tuple[int, RoundClosed] | None = None
    model_digest: str | None = None
    first_model: str | None = None
    contributions: dict[str, tuple[tuple[int, Contribution], ...]] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    survived: dict[str, tuple[int, ...]] = field(default_factory=dict)
    evaluated: int = 0
    released: tuple[int, ...] = ()
    # What only the fold needs: of the tree; of the round that is going on; of each key's last decision; for accounts.
    frontier: Frontier = field(default_factory=Frontier, repr=False)
    last_opened: RoundOpened | None = None
    in_round: frozenset[str] = frozenset()
    last_decision: dict[tuple[str, bytes], tuple[int, bool]] = field(default_factory=dict, repr=False)
    trained: dict[str, int] = field(default_factory=dict)
    scored: dict[str, int] = field(default_factory=dict)
    most_trained: int = 0
    most_scored: int = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[bytes, str, int, bytes]:
        # The root commits to the entries, and the rest is a function of them.
        return self.federation_key, self.plan_digest, self.size, self.root

    def to_be_extended(self) -> History:
        """The same, with containers of its own."""
        other = copy(self)
        other.frontier = self.frontier.copy()
        for name in _CONTAINERS:
            setattr(other, name, getattr(self, name).copy())
        return other

    def next_accounts(self) -> tuple[Account | None, Account | None]:
        """The accounts, of an example and of a client, that the round must state when it closes next.

        None where the plan has no such unit.
        """
        if self.charter is None or self.plan is None:
            return None, None
        return next_accounts(self.charter, self.plan, self.most_trained, self.most_scored)


_CONTAINERS: Final = (
    "approved", "withdrawn", "decisions", "received", "contributions", "asked", "survived", "last_decision", "trained",
    "scored",
)  # fmt: skip


def plan_of(state: History) -> FederationPlan:
    """The plan, once there is a charter."""
    assert state.plan is not None
    return state.plan
