"""The one tree of errors. A person sees what was wrong, where, and what to do; never a key, an update or data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class TestudoError(Exception):
    """Base of every error that a command reports in plain words.

    Args:
        problem: What was wrong, one sentence without a full stop at the end.
        where: The file, key, column or client it was found in; empty when it has no place.
        remedy: What to do about it.
    """

    __test__ = False  # its name begins like a test class

    def __init__(self, problem: str, *, where: str = "", remedy: str = "") -> None:
        self.problem = problem
        self.where = where
        self.remedy = remedy
        super().__init__(problem)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f". {self.remedy}" if self.remedy else ""
        return f"{place}{self.problem}{advice}"

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled by its attributes, so that a worker process can hand it to its parent whole."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[TestudoError], args: tuple[object, ...], attributes: dict[str, object]) -> TestudoError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a plan.

    Attributes:
        key: Dotted key in the plan, such as ``inner.steps``; empty for the whole file.
        problem: What was wrong.
        remedy: What to write instead.
    """

    key: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key or '(whole file)'}: {self.problem}. {self.remedy}"


class PlanError(TestudoError):
    """A plan cannot be used; carries every fault found, not just the first."""

    def __init__(self, faults: Sequence[Fault], *, source: str) -> None:
        self.faults = tuple(faults)
        self.source = source
        count = len(self.faults)
        super().__init__(f"{count} fault{'s' if count != 1 else ''} in the plan", where=source)

    def __str__(self) -> str:
        return "\n".join([f"{self.where}: {self.problem}", *(f"  - {fault}" for fault in self.faults)])


class DataError(TestudoError):
    """The data cannot be used as the plan says."""


class ModelError(TestudoError):
    """The model named by the plan cannot be built, or does not fit the plan."""


class PrivacyError(TestudoError):
    """A privacy guarantee cannot be given as asked: training is refused before data is touched."""


class BudgetError(PrivacyError):
    """A data owner's ledger refuses: what is asked would take an account over its ceiling.

    Args:
        problem: With what is spent, what is asked, and the ceiling.
        where: Which ceiling, such as ``privacy.max_epsilon_for_life``.
        remedy: What to do about it.
        spent: Epsilon spent so far, of this account.
        asked: Epsilon with what is asked.
        ceiling: The most that is allowed.
        rounds_left: How many more rounds of the same kind fit.
    """

    def __init__(
        self, problem: str, *, where: str = "", remedy: str = "", spent: float, asked: float, ceiling: float,
        rounds_left: int,
    ) -> None:  # fmt: skip
        self.spent, self.asked, self.ceiling, self.rounds_left = spent, asked, ceiling, rounds_left
        super().__init__(problem, where=where, remedy=remedy)


class LedgerError(TestudoError):
    """A data owner's ledger cannot be trusted: damaged, rolled back, copied, or missing where there was one."""


class PolicyError(TestudoError):
    """The data owner's policy does not allow what is asked, or is not a policy; carries every fault found.

    Args:
        faults: Each with the policy's key, what is asked against it, and what to do.
        source: The policy's file.
        problem: What all of them are; none: things that the policy does not allow.
    """

    def __init__(self, faults: Sequence[Fault], *, source: str, problem: str | None = None) -> None:
        self.faults = tuple(faults)
        self.source = source
        count = len(self.faults)
        plural = "s" if count != 1 else ""
        super().__init__(problem or f"{count} thing{plural} that the policy does not allow", where=source)

    def __str__(self) -> str:
        return "\n".join([f"{self.where}: {self.problem}", *(f"  - {fault}" for fault in self.faults)])


class ApprovalError(TestudoError):
    """The data owner has not approved this plan, has withdrawn, or the approval is not its own."""


class CheckpointError(TestudoError):
    """Saved state is missing, damaged, or belongs to another plan."""


class WireError(TestudoError):
    """A message is not of the agreed format."""


class ReplyError(TestudoError):
    """A reply is not signed by the client that it is said to be from."""


class UsageError(TestudoError):
    """A command was called with arguments that do not fit together."""


class KeyFileError(TestudoError):
    """A key's file is missing, readable by others, in the way, or not a key."""


class RosterError(TestudoError):
    """A roster cannot be used: it is not one, or the federation did not sign it."""


class RoundError(TestudoError):
    """A round cannot go on: too few clients answered, or too few may still take part."""


class AggregationError(TestudoError):
    """Updates cannot be aggregated as asked: too few for so many bad ones, or not finite."""


class PlannerError(TestudoError):
    """No groups are both large enough to hide their members and small enough to outvote the poisoned ones.

    Args:
        problem: What is impossible, with the figures.
        where: The number that is out of its range, or the whole.
        remedy: Which of the numbers to move, and to what.
        nearest: Name of a number -> the nearest value that, by itself, makes it possible; empty where there is none.
    """

    def __init__(
        self, problem: str, *, where: str = "", remedy: str = "", nearest: Mapping[str, float] | None = None
    ) -> None:
        self.nearest = dict(nearest or {})
        super().__init__(problem, where=where, remedy=remedy)


class Breach(StrEnum):
    """In what way secure aggregation was broken. Fixed words, which may travel and be logged."""

    MALFORMED = "malformed"
    NOT_ON_ROSTER = "not_on_roster"
    SIGNATURE = "signature"
    KEY = "key"
    COMMITMENT = "commitment"
    LEFT_OUT = "left_out"
    MEMBERS = "members"
    SHARE = "share"
    SURVIVORS = "survivors"
    CONFIRMATION = "confirmation"
    TOO_FEW = "too_few"
    OUT_OF_TURN = "out_of_turn"
    REUSED = "reused"
    VALUES = "values"
    RANGE = "range"
    NORM = "norm"


class ProtocolError(TestudoError):
    """Secure aggregation cannot go on: a rule of it was broken, or too few members are left.

    Args:
        breach: Which rule, as a fixed word.
        problem: In a sentence; never a key, a share or a value.
        where: The client or group; empty where it has no place.
        remedy: What to do about it.
        peers: Clients whose faults led to it, where they can be named.
    """

    def __init__(
        self,
        breach: Breach,
        problem: str,
        *,
        where: str = "",
        remedy: str = "",
        peers: tuple[PeerError, ...] = (),
    ) -> None:
        self.breach = breach
        self.peers = peers
        super().__init__(problem, where=where, remedy=remedy)


class PeerError(ProtocolError):
    """A rule was broken by one client that can be named.

    Args:
        client_id: Whose fault it is.
        breach: Which rule.
        problem: In a sentence.
    """

    def __init__(self, client_id: str, breach: Breach, problem: str) -> None:
        self.client_id = client_id
        super().__init__(breach, problem, where=client_id)


class AuditFault(StrEnum):
    """What is wrong with an audit log. Fixed words."""

    FORMAT = "format"
    PROOF = "proof"
    SIGNATURE = "signature"
    REWRITTEN = "rewritten"
    TRUNCATED = "truncated"
    SPLIT_VIEW = "split_view"
    QUORUM = "quorum"
    NOT_LOGGED = "not_logged"
    PLAN = "plan"
    ENROLMENT = "enrolment"
    APPROVAL = "approval"
    COHORT = "cohort"
    GROUPS = "groups"
    ROUND = "round"
    MODEL = "model"
    CONTRIBUTION = "contribution"
    EPSILON = "epsilon"
    RECEIPT = "receipt"
    HALTED = "halted"
    STORAGE = "storage"
    """The file that a log is kept in cannot be used: says nothing of what anybody else did."""


class AuditError(TestudoError):
    """An audit log cannot be trusted, or does not hold what was sent.

    Args:
        fault: Which rule, as a fixed word.
        problem: In a sentence.
        index: Of the first entry that is wrong, from 0; None where it is no single entry's.
        where: The file or client; empty where it has no place.
        remedy: What to do about it.
    """

    def __init__(
        self, fault: AuditFault, problem: str, *, index: int | None = None, where: str = "", remedy: str = ""
    ) -> None:
        self.fault, self.index = fault, index
        place = where if index is None else f"{where}, entry {index}" if where else f"entry {index}"
        super().__init__(problem, where=place, remedy=remedy)


class ProvisionFault(StrEnum):
    """What is wrong with a document or certificate by which an owner joins. Fixed words."""

    FORMAT = "format"
    SIGNATURE = "signature"
    PROOF = "proof"
    EXPIRED = "expired"
    UNKNOWN = "unknown"
    USED = "used"
    REVOKED = "revoked"
    FEDERATION = "federation"
    CLIENT = "client"
    KEY = "key"
    CHAIN = "chain"
    FINGERPRINT = "fingerprint"
    UNCONFIRMED = "unconfirmed"


class ProvisionError(TestudoError):
    """An invitation, request, answer or certificate is refused, and nothing was changed.

    Args:
        fault: Which rule, as a fixed word.
        problem: In a sentence.
        where: The file, field or client; empty where it has no place.
        remedy: What to do about it.
    """

    def __init__(self, fault: ProvisionFault, problem: str, *, where: str = "", remedy: str = "") -> None:
        self.fault = fault
        super().__init__(problem, where=where, remedy=remedy)


class ContractError(TestudoError):
    """A request breaks the feature contract of the model it asks; carries every fault of the first row at fault.

    Args:
        faults: Each with the field's name as key, what is wrong with it, and what to send; no value is repeated.
        row: Place of the row in the request, from 0.
    """

    def __init__(self, faults: Sequence[Fault], *, row: int) -> None:
        self.faults, self.row = tuple(faults), row
        super().__init__("; ".join(map(str, self.faults)), where=f"row {row}")
