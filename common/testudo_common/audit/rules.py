"""What may stand in a log at all, and who may take part: rules of charter, enrolment and owners' decisions.

One function a rule; each names what it stops. A rule raises without an index, which the fold knows (history.py). Those
of rounds are round_rules.py's and closing_rules.py's.
"""

from __future__ import annotations

import hashlib

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from testudo_common.audit.checkpoints import default_quorum
from testudo_common.audit.entries import AnyEntry, Charter, Enrolment, OwnerWithdrawn, PlanApproved
from testudo_common.audit.state import History, plan_of
from testudo_common.audit.statements import Signed, verify_statement
from testudo_common.errors import AuditError, AuditFault, RosterError, TestudoError
from testudo_common.plan import FederationPlan
from testudo_common.roster import Roster, read_roster


def begins_with_charter_and_enrolment(state: History, entry: AnyEntry) -> None:
    """Stops a log that does not say what it is of, or whose keys count, before anything else is said in it.

    Raises:
        AuditError: PLAN or ENROLMENT.
    """
    if (state.charter is None) != isinstance(entry, Charter):
        what = "the log does not begin with a charter" if state.charter is None else "a second charter"
        raise AuditError(AuditFault.PLAN, what)
    if state.charter is not None and state.roster is None and not isinstance(entry, Enrolment):
        raise AuditError(AuditFault.ENROLMENT, "the second entry does not enrol anybody")


def plan_is_the_one_approved(state: History, entry: Charter) -> FederationPlan:
    """Stops a server that logs one plan under the digest of another; the plan.

    Raises:
        AuditError: PLAN.
    """
    written = hashlib.sha256(rfc8785.dumps(entry.plan)).hexdigest()
    if not entry.plan_digest == state.plan_digest == written:
        raise AuditError(AuditFault.PLAN, "the charter is of another plan")
    try:
        plan = FederationPlan.model_validate(entry.plan)
    except (ValidationError, TestudoError) as error:
        raise AuditError(
            AuditFault.PLAN, "the charter's plan is not valid", remedy="check it with the version that wrote the log"
        ) from error
    if plan.digest != state.plan_digest:
        raise AuditError(AuditFault.PLAN, "the charter's plan reads differently from how it is written")
    if not plan.audited:
        raise AuditError(AuditFault.PLAN, "the charter's plan has no audit log")
    return plan


def window_is_the_plans(state: History, entry: Charter) -> None:
    """Stops old cosignatures from counting for longer than everybody agreed on.

    Raises:
        AuditError: QUORUM.
    """
    window = plan_of(state).audit.window
    if entry.window != window:
        raise AuditError(AuditFault.QUORUM, f"a window of {entry.window} rounds where the plan says {window}")


def roster_is_the_federations(state: History, entry: Enrolment) -> Roster:
    """Stops a server that enrols keys of its own; the roster.

    Raises:
        AuditError: ENROLMENT.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(state.federation_key)
        return read_roster(rfc8785.dumps(entry.roster), key, source="the log's roster")
    except (RosterError, ValueError) as error:
        problem = error.problem if isinstance(error, RosterError) else "the federation's key is not one"
        raise AuditError(AuditFault.ENROLMENT, problem) from error


def roster_is_of_this_log(state: History, roster: Roster) -> None:
    """Stops another federation's roster, a change of the log's own key, and a roster that changes nothing.

    Raises:
        AuditError: ENROLMENT.
    """
    assert state.charter is not None
    if roster.federation != state.charter.federation:
        raise AuditError(AuditFault.ENROLMENT, "the roster is another federation's")
    if state.roster is not None and roster.log != state.roster.log:
        raise AuditError(AuditFault.ENROLMENT, "the roster names another key of the log")
    if state.roster is not None and roster.digest == state.roster.digest:
        raise AuditError(AuditFault.ENROLMENT, "the roster is the one that counts already")


def quorum_of(state: History, roster: Roster) -> int:
    """Stops a quorum that two histories could both reach with few to help: k for a roster.

    Raises:
        AuditError: QUORUM: the charter says another one, or there are not so many witnesses.
    """
    assert state.charter is not None
    members = len(roster.members)
    quorum = plan_of(state).audit.quorum or default_quorum(members)
    if quorum > members:
        raise AuditError(AuditFault.QUORUM, f"a quorum of {quorum} where {members} are enrolled")
    if state.roster is None and state.charter.quorum != quorum:
        raise AuditError(
            AuditFault.QUORUM, f"the charter says a quorum of {state.charter.quorum}, where it must be {quorum}"
        )
    return quorum


def is_enrolled(state: History, client: str) -> bytes:
    """Stops statements of clients that nobody enrolled; the client's key.

    Raises:
        AuditError: ENROLMENT.
    """
    assert state.roster is not None
    key = state.roster.members.get(client)
    if key is None:
        raise AuditError(AuditFault.ENROLMENT, "it is not enrolled", where=client)
    return key


def is_signed(state: History, statement: Signed) -> None:
    """Stops a server that puts words into an owner's mouth, or moves them here from another plan.

    Raises:
        AuditError: ENROLMENT or SIGNATURE.
    """
    verify_statement(statement, is_enrolled(state, statement.client), state.plan_digest)


def is_a_later_decision(state: History, entry: PlanApproved | OwnerWithdrawn) -> None:
    """Stops an old approval from being played back after a withdrawal.

    Raises:
        AuditError: APPROVAL.
    """
    statement = entry.statement
    last = state.decisions.get(statement.client, -1)
    if statement.number <= last:
        raise AuditError(
            AuditFault.APPROVAL, f"decision {statement.number} after decision {last}", where=statement.client
        )


def names_the_rounds_it_is_in(state: History, entry: OwnerWithdrawn) -> None:
    """Stops a tombstone that forgets what the owner's updates went into.

    Raises:
        AuditError: CONTRIBUTION.
    """
    client = entry.statement.client
    rounds = state.survived.get(client, ())
    if entry.rounds != rounds:
        raise AuditError(
            AuditFault.CONTRIBUTION,
            f"its withdrawal names {len(entry.rounds)} rounds, and they are not the {len(rounds)} that it is in",
            where=client,
        )
