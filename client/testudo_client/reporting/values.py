"""What an owner's folder says, as the values of ``report.json``: sums, shares and names, never a row and never a key.

Everything in it stays with the owner, unless the owner hands it on: it names columns, categories and counts.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from testudo_client.judging.results import Evaluation
from testudo_client.reporting.model_values import Change, OwnModel, Sureness, Told, VersionLine
from testudo_common.reporting.cards import Card
from testudo_common.reporting.rmf import RmfLine

FORMAT_VERSION: Final = 1
MOST_NUMBERS: Final = 5


class Number(Told):
    """One of the few numbers that come first.

    Attributes:
        name: What it is.
        shown: The number with its unit, as it is read.
    """

    name: str
    shown: str


class Glance(Told):
    """What a small business reads, and all that most people need.

    Attributes:
        headline: One sentence.
        sure: Of the answers given so far; None where there are too few.
        left: What left this computer, in a sentence.
        numbers: At most five.
        advice: What to do now, a sentence each; empty: nothing.
    """

    headline: str
    sure: Sureness | None
    left: str
    numbers: Annotated[tuple[Number, ...], Field(max_length=MOST_NUMBERS)]
    advice: tuple[str, ...]


class AccountTold(Told):
    """What stands in the ledger under one ceiling, or of one plan; an epsilon of None has no bound.

    Attributes:
        name: The ceiling's key, or the plan's name.
        unit: ``example`` or ``client``.
        spent: Epsilon.
        allowed: None where there is no ceiling.
        delta: Of the epsilon.
        accountant: By which.
    """

    name: str
    unit: str
    spent: float | None
    allowed: float | None
    delta: float
    accountant: str


class Spent(Told):
    """The ledger.

    Attributes:
        entries: In it.
        head: Hash of the last, hex.
        ceilings: The policy's.
        plans: One a plan and unit.
        statements: Privacy statements, see testudo_common.privacy.statement.
        together: All plans together, a sentence a ceiling.
    """

    entries: int
    head: str
    ceilings: tuple[AccountTold, ...]
    plans: tuple[AccountTold, ...]
    statements: tuple[dict[str, Any], ...]
    together: tuple[str, ...]


class MessageKind(Told):
    """One kind of message that a round sends."""

    name: str
    holds: str
    bytes: int


class PlanLeft(Told):
    """What left for one plan.

    Attributes:
        plan: Its name.
        digest: Of it, hex.
        rounds: Taken part in.
        trained: Of these, with an update.
        attempts: At them, begun anew ones included.
        scored: Rounds in which scores were added.
        bytes_up: Payload, for the longest names; None where no copy of the plan is kept.
        bytes_down: The same.
        seen: What the server saw of an update.
        kinds: What goes up in a round; empty where no copy of the plan is kept.
        first: Time of the first.
        last: Time of the last.
    """

    plan: str
    digest: str
    rounds: int
    trained: int
    attempts: int
    scored: int
    bytes_up: int | None
    bytes_down: int | None
    seen: str
    kinds: tuple[MessageKind, ...]
    first: str
    last: str


class Refusal(Told):
    """Refusals of one reason.

    Attributes:
        reason: A fixed word.
        times: How often.
        last: When last.
        sentence: Of the last.
    """

    reason: str
    times: int
    last: str
    sentence: str


class LogTold(Told):
    """One audit log as this owner's mirror has it, verified while the report was made.

    Attributes:
        origin: Which log.
        plan: Of which plan; empty where the log does not say.
        entries: In it.
        rounds: Closed.
        holds: Whether nothing was found wrong.
        checks: Outcome, name, detail.
        receipts: Kept.
        root: Of the log, hex; empty of an empty one.
        file: The mirror.
    """

    origin: str
    plan: str
    entries: int
    rounds: int
    holds: bool
    checks: tuple[tuple[str, str, str], ...]
    receipts: int
    root: str
    file: str


class ColumnTold(Told):
    """One column of the owner's table, counted.

    Attributes:
        name: Of the column.
        role: ``input`` or ``answer``.
        kind: ``number`` or ``category``.
        unit: As the plan has it.
        usable: Cells with a usable value.
        missing: Cells without any.
        unusable: Cells with something else.
    """

    name: str
    role: str
    kind: str
    unit: str
    usable: int
    missing: int
    unusable: int


class DataTold(Told):
    """The owner's table, as testudo-client inspect counted it.

    Attributes:
        rows: Of this owner.
        plan_digest: Of the plan it was read by, hex.
        columns: Inputs in their order, and what is predicted.
    """

    rows: int
    plan_digest: str
    columns: tuple[ColumnTold, ...]


class WatchTold(Told):
    """What watching came to.

    Attributes:
        version: In use at the last check.
        state: ``steady``, ``warned``, ``due`` or ``proposed``.
        flags: Flagged checks in a row.
        checks: Made so far, of all versions.
        level: How often a check may flag something while nothing drifts.
        proposals: Of federated rounds, a sentence each.
    """

    version: int
    state: str
    flags: int
    checks: int
    level: float
    proposals: tuple[str, ...]


class Costs(Told):
    """What it took here.

    Attributes:
        bytes_up: Payload; None where it is not known.
        bytes_down: The same.
        attempts: At rounds of a federation.
        disk_bytes: Of the owner's folder.
    """

    bytes_up: int | None
    bytes_down: int | None
    attempts: int
    disk_bytes: int


class Problem(Told):
    """A part of the folder that could not be read, so that nothing is said from it."""

    part: str
    sentence: str


class OwnerReport(Told):
    """All of it.

    Attributes:
        owner: Name in the federation, or of the folder.
        created: UTC, ISO 8601.
        software: Version of Testudo.
        glance: What comes first.
        model: In use; None: none is.
        versions: All, the newest first.
        changes: What was put in use when, oldest first.
        watch: What watching came to; None where nothing was watched yet.
        evaluation: As the harness wrote it.
        evaluation_of_other: Whether that is of another model than the one in use.
        spent: The ledger; None where there is none, or it cannot be read.
        left: One a plan.
        refused: By reason.
        logs: Audit logs.
        costs: What it took.
        roles: Role -> what is known of it here.
        card: Of the model in use; None: none is.
        data: The owner's table, counted; None where it was not inspected.
        data_card: What the owner wrote of its data; None where there is no card.
        rmf: Evidence, line by line.
        problems: What could not be read.
    """

    version: Literal[1] = FORMAT_VERSION
    owner: str
    created: str
    software: str
    glance: Glance
    model: OwnModel | None
    versions: tuple[VersionLine, ...]
    changes: tuple[Change, ...]
    watch: WatchTold | None
    evaluation: Evaluation | None
    evaluation_of_other: bool
    spent: Spent | None
    left: tuple[PlanLeft, ...]
    refused: tuple[Refusal, ...]
    logs: tuple[LogTold, ...]
    costs: Costs
    roles: dict[str, str]
    card: Card | None
    data: DataTold | None
    data_card: Card | None
    rmf: tuple[RmfLine, ...]
    problems: tuple[Problem, ...]
