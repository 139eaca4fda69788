"""The NIST AI Risk Management Framework as a table of evidence: a line without any is empty, and claims nothing.

Source: NIST AI 100-1 (January 2023), tables 1 to 4; the words here are short paraphrases, the ids are its own. Which
kind of evidence bears on which line is our reading. A line with evidence is not thereby fulfilled: somebody reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict

from testudo_common.markup import Markup, join, table, tag
from testudo_common.reporting.page import section, unbroken

EMPTY = "No evidence here."
EXPLAINED = (
    "Each line of the framework that this software can bear on, with what there is to look at: a file with the digest "
    "that it had, or a section of this page. A line without evidence says so. Evidence is not a verdict: that a file "
    "exists does not say that what it holds is good enough, and lines that no file can show are not listed."
)
_SHORT = 12


class Kind(StrEnum):
    """What a piece of evidence is."""

    POLICY = "policy"
    ROLES = "roles kept apart"
    APPROVAL = "approvals"
    WITHDRAWAL = "withdrawals"
    ROSTER = "roster"
    PLAN = "plan"
    CEILINGS = "ceilings on epsilon"
    LEDGER = "ledger"
    STATEMENT = "privacy statement"
    AUDIT_LOG = "audit log"
    RECEIPTS = "receipts"
    REFUSALS = "refusals"
    ROBUST = "robust aggregation"
    VERSIONS = "versions"
    PROMOTIONS = "promotions and rollbacks"
    CONTRACT = "feature contract"
    GATE = "gate"
    COVERAGE = "coverage"
    CALIBRATION = "calibration"
    EVALUATION = "evaluation"
    SLICES = "slices"
    SHIFTS = "shifts"
    RELEASE_GATE = "comparison with the model before"
    WATCH = "watch"
    DATA_ORIGIN = "where data comes from"
    DATA_GROUNDS = "grounds for using data"
    PROFILE = "data profile"
    COST = "cost"
    MODEL_CARD = "model card"
    INTENDED_USE = "intended use"


class Evidence(BaseModel):
    """Something that was read while the report was made.

    Attributes:
        kind: What it is.
        says: In a few words, what is in it; also where that is nothing good.
        file: In the folder; None: it is a section of the report only.
        digest: SHA-256 of that file then, hex; or what the file itself goes by.
        anchor: Id of the section of the page that shows it; empty: none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Kind
    says: str
    file: str | None = None
    digest: str | None = None
    anchor: str = ""


class RmfLine(BaseModel):
    """One subcategory and the evidence that bears on it; empty where there is none.

    Attributes:
        id: Such as ``MEASURE 2.10``.
        says: A paraphrase.
        evidence: In the order of the line's kinds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    says: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Subcategory:
    """One line of the framework, and which kinds of evidence bear on it."""

    id: str
    says: str
    kinds: tuple[Kind, ...]


SUBCATEGORIES: Final = (
    Subcategory("GOVERN 1.2", "What makes an AI system trustworthy is part of policies and practice.", (Kind.POLICY,)),
    Subcategory("GOVERN 1.4", "Risks are managed by transparent policies and controls.", (Kind.POLICY, Kind.APPROVAL)),
    Subcategory("GOVERN 1.5", "Risk management is monitored and reviewed from time to time.", (Kind.WATCH,)),
    Subcategory("GOVERN 1.6", "AI systems are kept in an inventory.", (Kind.VERSIONS,)),
    Subcategory("GOVERN 1.7", "Systems can be phased out safely.", (Kind.WITHDRAWAL,)),
    Subcategory("GOVERN 2.1", "Roles and responsibilities are documented and clear.", (Kind.ROLES,)),
    Subcategory("GOVERN 6.1", "Risks from third parties are covered by policies.", (Kind.POLICY, Kind.ROSTER)),
    Subcategory("MAP 1.1", "Purpose, setting and expectations are understood and written down.", (Kind.INTENDED_USE,)),
    Subcategory("MAP 1.5", "How much risk is tolerated is determined.", (Kind.CEILINGS,)),
    Subcategory("MAP 2.1", "The task and the methods for it are defined.", (Kind.PLAN,)),
    Subcategory("MAP 2.2", "What the system cannot know is documented.", (Kind.CONTRACT, Kind.COVERAGE)),
    Subcategory("MAP 2.3", "How data was collected and chosen, and whether it fits.", (Kind.DATA_ORIGIN, Kind.PROFILE)),
    Subcategory("MAP 3.5", "People oversee it, by a defined process.", (Kind.APPROVAL,)),
    Subcategory("MAP 4.1", "Legal risks of data and components are mapped.", (Kind.DATA_GROUNDS,)),
    Subcategory("MEASURE 2.1", "Test sets, metrics and tools are documented.", (Kind.EVALUATION,)),
    Subcategory("MEASURE 2.3", "Performance is measured in conditions like in use.", (Kind.EVALUATION, Kind.GATE)),
    Subcategory("MEASURE 2.4", "The system is monitored while in use.", (Kind.WATCH,)),
    Subcategory(
        "MEASURE 2.5", "It is valid and reliable, and where that ends is known.",
        (Kind.CALIBRATION, Kind.COVERAGE, Kind.SHIFTS),
    ),
    Subcategory("MEASURE 2.7", "Security and resilience are evaluated.", (Kind.AUDIT_LOG, Kind.ROBUST, Kind.SHIFTS)),
    Subcategory("MEASURE 2.8", "Transparency and accountability are examined.", (Kind.AUDIT_LOG, Kind.RECEIPTS)),
    Subcategory("MEASURE 2.9", "The model is documented, and its output read in context.", (Kind.MODEL_CARD,)),
    Subcategory("MEASURE 2.10", "The risk to privacy is examined.", (Kind.LEDGER, Kind.STATEMENT)),
    Subcategory("MEASURE 2.11", "Fairness and bias are evaluated.", (Kind.SLICES,)),
    Subcategory("MEASURE 2.12", "What it takes of the environment is assessed.", (Kind.COST,)),
    Subcategory(
        "MANAGE 1.1", "It is decided whether the system does what it is for, and should be used.",
        (Kind.RELEASE_GATE, Kind.GATE),
    ),
    Subcategory("MANAGE 1.4", "Risks that remain are documented.", (Kind.STATEMENT,)),
    Subcategory(
        "MANAGE 2.4", "What does not perform is superseded or switched off.", (Kind.PROMOTIONS, Kind.WITHDRAWAL)
    ),
    Subcategory("MANAGE 3.2", "Pre-trained models are monitored as part of maintenance.", (Kind.VERSIONS,)),
    Subcategory("MANAGE 4.1", "There is monitoring after deployment, and people's input counts.", (Kind.WATCH,)),
    Subcategory("MANAGE 4.3", "Incidents and errors are told to those concerned.", (Kind.AUDIT_LOG, Kind.REFUSALS)),
)  # fmt: skip


def rmf_lines(evidence: Iterable[Evidence]) -> tuple[RmfLine, ...]:
    """All lines, each with what there is of its kinds."""
    found = list(evidence)
    return tuple(
        RmfLine(
            id=one.id,
            says=one.says,
            evidence=tuple(piece for kind in one.kinds for piece in found if piece.kind == kind),
        )
        for one in SUBCATEGORIES
    )


def rmf_section(lines: Iterable[RmfLine]) -> Markup:
    """The table on a page."""
    rows = [[unbroken(line.id), line.says, _evidence(line)] for line in lines]
    head = ["Line", "Asks for", "Evidence"]
    made = table(head, rows, caption="NIST AI RMF 1.0: evidence, line by line", numbers=range(0))
    return section("NIST AI Risk Management Framework", tag("p", EXPLAINED), made, anchor="rmf")


def _evidence(line: RmfLine) -> Markup:
    if not line.evidence:
        return tag("span", EMPTY, class_="empty")
    return tag("ul", *(tag("li", _piece(piece)) for piece in line.evidence), class_="bare")


def _piece(piece: Evidence) -> Markup:
    name = tag("a", piece.kind.value, href=f"#{piece.anchor}") if piece.anchor else tag("span", piece.kind.value)
    parts = [name, f": {piece.says}"]
    if piece.file is not None:
        parts += [" ", tag("code", piece.file)]
    if piece.digest is not None:
        parts += [" ", tag("code", f"{piece.digest[:_SHORT]}…", title=piece.digest)]
    return join(*parts)
