"""What an owner compares the log with, beyond the log's own rules: what it holds itself, and what it was sent.

Every check is a function of its own that names the attack it stops. Each returns, or raises.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from testudo_client.ledger.entries import Adopted, Withdrawn
from testudo_client.ledger.entries import Entry as LedgerEntry
from testudo_client.own_record import OwnRecord, Told
from testudo_common.audit.checkpoints import Checkpoint
from testudo_common.audit.entries import AnyEntry, Charter, GroupsDrawn, RoundClosed, RoundOpened, UpdateReceived
from testudo_common.audit.history import History
from testudo_common.audit.statements import Contribution
from testudo_common.errors import AuditError, AuditFault, LedgerError
from testudo_common.plan import FederationPlan
from testudo_common.privacy.events import Events
from testudo_common.privacy.planned import scores_spending, sum_spending, training_spending
from testudo_common.roster import Roster
from testudo_common.wire import TrainRequest

_SAME_NOISE = 0.002
"""Two computers find the noise multiplier of a target epsilon to 0.1 % each."""
_ROLLED_BACK = (
    'if you know why, as after a restored backup, run testudo-client ledger with --adopt "reason", and charge what the '
    "missing entries spent with --charge-elsewhere; if you do not, somebody may have put back an old copy of it"
)


def roster_is_mine(history: History, roster: Roster) -> None:
    """Attack: an enrolment of keys that this owner was never shown. It may also just lack the newest roster."""
    if history.roster is not None and history.roster.digest != roster.digest:
        raise AuditError(
            AuditFault.ENROLMENT,
            "the log is under another roster than the one in your folder",
            where=roster.federation,
            remedy="get roster.json from the federation, compare who is in it, put it into your folder, and start your "
            "node again",
        )


def bundle_is_mine(history: History, bundle_digest: str | None) -> None:
    """Attack: an app bundle of its own for one owner, while the log names another, or none, to everybody.

    Args:
        history: Of the log.
        bundle_digest: SHA-256 of the bundle that came here, hex; None: not known here, and not compared.
    """
    if bundle_digest is not None and history.charter is not None and history.charter.bundle != bundle_digest:
        named = f"names {history.charter.bundle}" if history.charter.bundle else "names none"
        raise AuditError(
            AuditFault.PLAN,
            f"the app bundle that came here is {bundle_digest}, and the log's charter {named}",
            index=0,
            remedy="ask the federation which it runs, and compare it with testudo-client bundle",
        )


def charter_states_my_prices(charter: Charter, plan: FederationPlan) -> None:
    """Attack: a log that counts less than training costs, so that its epsilon looks small."""
    stated_and_computed = (
        (charter.training, training_spending(plan)),
        (charter.scores, scores_spending(plan)),
        (charter.sum, sum_spending(plan)),
    )
    for stated, computed in stated_and_computed:
        if plan.private and not _same(stated.example, computed.example):
            raise _other_price("an example")
        if plan.client_private and not _same(stated.client, computed.client):
            raise _other_price("a client")


def contributions_are_mine(
    entries: Iterable[tuple[int, AnyEntry]],
    before: Iterable[Contribution],
    ledger: Sequence[LedgerEntry],
    record: OwnRecord,
) -> None:
    """Attack: an old copy of the ledger was put back, to spend again; or somebody else signs with this owner's key.

    Args:
        entries: New in the log under this owner's name, in order, with their indices.
        before: Of this owner, and in the log already.
        ledger: The owner's, as it is now.
        record: What it remembers having signed.

    Raises:
        LedgerError: The log has a contribution of this owner whose ledger is not this one, or not any more.
        AuditError: CONTRIBUTION: the owner never signed it.
    """
    places = {entry.hash.hex(): entry.index for entry in ledger}
    adopted = [(entry.index, entry.time) for entry in ledger if isinstance(entry.content, Adopted)]
    last_known = max((places.get(statement.ledger, -1) for statement in before), default=-1)
    for index, entry in entries:
        assert isinstance(entry, UpdateReceived)
        statement = entry.statement
        place = places.get(statement.ledger)
        if place is None:
            # A person has seen that, if it adopted the ledger after its last entry that the log knows of.
            if any(at > last_known and time >= entry.time for at, time in adopted):
                continue
            raise LedgerError(
                f"the ledger was rolled back: the federation's log holds, in entry {index}, what you signed in round "
                f"{statement.round} with an entry of the ledger that is not there any more",
                remedy=_ROLLED_BACK,
            )
        last_known = max(last_known, place)
        signed = record.signed(statement.round, statement.attempt)
        if signed is None or statement not in signed.statements:
            raise AuditError(
                AuditFault.CONTRIBUTION,
                "the log holds a contribution in your name that you did not make: somebody else has your key",
                index=index,
            )


def withdrawal_is_mine(history: History, client_id: str, ledger: Sequence[LedgerEntry], plan_digest: str) -> None:
    """Attack: a ledger is put back to before the owner withdrew, so that it trains again.

    Raises:
        LedgerError: The log has the owner's signed withdrawal, and its ledger has none.
    """
    if client_id in history.withdrawn and not any(
        isinstance(entry.content, Withdrawn) and entry.content.plan_digest == plan_digest for entry in ledger
    ):
        raise LedgerError(
            "the ledger was rolled back: the federation's log holds your withdrawal, and your ledger does not",
            remedy=_ROLLED_BACK,
        )


def note_is_over_my_mirror(checkpoint: Checkpoint, size: int) -> None:
    """Attack: a checkpoint from before or after what this owner has seen, with cosignatures of those who saw other."""
    if checkpoint.size != size:
        raise _not_logged(
            f"a request under a checkpoint of {checkpoint.size} entries, where this owner has seen {size}"
        )


def quorum_has_seen(cosigners: frozenset[str], quorum: int | None) -> None:
    """Attack: a history that is shown to this owner alone."""
    if quorum is None or len(cosigners) < quorum:
        raise AuditError(
            AuditFault.QUORUM,
            f"{len(cosigners)} witnesses have cosigned what is in the log, and {quorum} have to",
            remedy="nothing is lost: training goes on when enough witnesses answer",
        )


def attempt_is_open(history: History, request: TrainRequest) -> tuple[int, RoundOpened]:
    """Attack: a round that is not in the log, or one that is over, is asked for again. Index and entry of it."""
    if history.opened is None:
        raise _not_logged(f"round {request.round} is not in the log")
    index, opened = history.opened
    if (opened.round, opened.attempt) != (request.round, request.attempt):
        raise _not_logged(
            f"round {request.round}, attempt {request.attempt} was asked for, and the log has round {opened.round}, "
            f"attempt {opened.attempt}",
            index,
        )
    return index, opened


def model_is_logged(index: int, opened: RoundOpened, request: TrainRequest) -> None:
    """Attack: models of one's own for some clients, which single out their updates in the sum (model inconsistency)."""
    if opened.model_digest != request.model_digest:
        raise _not_logged("the model that was sent is another than the one in the log", index)
    if opened.clip != request.clip:
        raise _not_logged("the clipping norm that was sent is another than the one in the log", index)


def cohort_holds_me(index: int, opened: RoundOpened, client_id: str) -> None:
    """Attack: an owner is asked beside the round that everybody sees."""
    if client_id not in opened.cohort:
        raise _not_logged("this owner is asked, and is not in the cohort that the log has", index)


def run_began_from_the_plans_model(index: int, model_digest: str | None, initial_model: str) -> None:
    """Attack: a run begins from weights that were chosen, to make the first updates tell more.

    Args:
        index: Of the entry that opened the first round.
        model_digest: That the log has for it.
        initial_model: Of the model that the plan begins with, by this owner's computation.
    """
    if model_digest != initial_model:
        raise AuditError(AuditFault.MODEL, "the run began from another model than the plan's", index=index)


def groups_are_logged(
    groups: tuple[int, GroupsDrawn] | None, round_number: int, attempt: int, coin: bytes, members: tuple[str, ...]
) -> None:
    """Attack: a client is put among colluders, in a group that nobody else is shown.

    Args:
        groups: That the log has for the open attempt.
        round_number: Of the attempt that this owner is in.
        attempt: The same.
        coin: As this owner computed it.
        members: Of this owner's group, by the coin.

    Raises:
        AuditError: NOT_LOGGED: there are none. GROUPS: they are others.
    """
    if groups is None or (groups[1].round, groups[1].attempt) != (round_number, attempt):
        raise _not_logged(f"the groups of round {round_number}, attempt {attempt} are not in the log")
    index, drawn = groups
    if drawn.coin != coin.hex() or members not in drawn.groups:
        raise AuditError(
            AuditFault.GROUPS, "the log has another coin or other groups than this owner drew", index=index
        )


def survivors_are_as_told(index: int, closed: RoundClosed, group: tuple[str, ...], told: Told) -> None:
    """Attack: the log leaves an owner's update out of a sum that it is in, or says that it is in one without it.

    Args:
        index: Of the entry that closes the round.
        closed: That entry.
        group: This owner's, in order, as it is in the log.
        told: Of the attempt that closed.

    Raises:
        AuditError: CONTRIBUTION.
    """
    mine = {group[place] for place in told.places}
    logged = {client for survivors in closed.survivors for client in survivors}.intersection(group)
    if logged and logged != mine:  # of a group that was not opened there is no sum
        named = ", ".join(sorted(logged ^ mine))
        raise AuditError(
            AuditFault.CONTRIBUTION,
            f"the log says otherwise than this owner was told who of its group is in the sum: {named}",
            index=index,
        )


def _not_logged(problem: str, index: int | None = None) -> AuditError:
    return AuditError(AuditFault.NOT_LOGGED, problem, index=index)


def _other_price(unit: str) -> AuditError:
    problem = f"the price that the log states for {unit} is not the one that this owner computes"
    return AuditError(AuditFault.EPSILON, problem, index=0)


def _same(stated: Sequence[tuple[float, float, int]], computed: Events) -> bool:
    return len(stated) == len(computed) and all(
        math.isclose(noise, event.noise_multiplier, rel_tol=_SAME_NOISE)
        and math.isclose(rate, event.sample_rate, rel_tol=1e-9)
        and steps == event.steps
        for (noise, rate, steps), event in zip(sorted(stated), sorted(computed), strict=True)
    )
