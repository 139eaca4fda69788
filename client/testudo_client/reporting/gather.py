"""One report of all that an owner's folder says. Reads only what folder.py does not: sizes, and who has which key."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from testudo_client.home import LOG_FILE, OwnerHome
from testudo_client.judging.results import EVALUATION_FILE, Evaluation
from testudo_client.reporting import evidence
from testudo_client.reporting.card import own_card
from testudo_client.reporting.data import data_card, of_data
from testudo_client.reporting.folder import Folder, OnStep, read_folder
from testudo_client.reporting.glance import glance_of
from testudo_client.reporting.model_values import VersionLine
from testudo_client.reporting.values import Costs, OwnerReport
from testudo_client.reporting.watched import advice_of, of_watch
from testudo_common.errors import KeyFileError
from testudo_common.reporting.rmf import Evidence, rmf_lines


def no_step(_part: str) -> None:
    """Nobody looks."""


def gather(
    folder: Path, now: datetime, *, software: str, evaluation: Path | None = None, on_step: OnStep = no_step
) -> OwnerReport:
    """The report.

    Args:
        folder: The owner's.
        now: When it is made.
        software: Version of Testudo.
        evaluation: Of the model, as the harness wrote it; None: the one in the folder, if there is one.
        on_step: Told what is read next.

    Raises:
        UsageError: Nothing of an owner's is in the folder, or the evaluation that was named cannot be read.
    """
    found = read_folder(OwnerHome(folder), evaluation, on_step)
    return _report(found, now, software, evaluation if evaluation is not None else folder / EVALUATION_FILE)


def _report(found: Folder, now: datetime, software: str, evaluation: Path) -> OwnerReport:
    model, current = found.model, next((one for one in found.versions if one.in_use), None)
    other = found.evaluation is not None and not _is_of(found.evaluation, current)
    own = None if other else found.evaluation
    card = None
    if model is not None and current is not None and found.version is not None:
        card = own_card(found.version.own.plan, model, current, own)
    costs = _costs(found)
    owner = found.policy.client if found.policy is not None else found.home.folder.resolve().name
    glance = glance_of(model, current, own, found.spent, found.left, found.logs, found.problems, advice_of(found.watch))
    return OwnerReport(
        owner=owner,
        created=now.isoformat(timespec="seconds"),
        software=software,
        glance=glance,
        model=model,
        versions=found.versions,
        changes=found.changes,
        watch=found.watch,
        evaluation=found.evaluation,
        evaluation_of_other=other,
        spent=found.spent,
        left=found.left,
        refused=found.refused,
        logs=found.logs,
        costs=costs,
        roles=_roles(found),
        card=card,
        data=found.data,
        data_card=None if found.data_card is None else data_card(found.data_card),
        rmf=rmf_lines(_evidence(found, costs, evaluation, other=other)),
        problems=tuple(found.problems),
    )


def _is_of(evaluation: Evaluation, current: VersionLine | None) -> bool:
    """Whether it judged the version in use, or the meta-model that this one came from."""
    if current is None or evaluation.kind == "simulation":
        return False
    if evaluation.kind == "own_model":
        return evaluation.model.version == current.id
    return evaluation.model.digest == current.meta_model


def _evidence(found: Folder, costs: Costs, evaluation: Path, *, other: bool) -> Iterator[Evidence]:
    home = found.home
    if found.policy is not None:
        yield from evidence.of_policy(home, found.policy, apart=_apart(found))
    if found.entries:
        yield from evidence.of_ledger(home, found.entries, found.spent)
    yield from evidence.of_federation(home, found.plans, found.roster)
    yield from evidence.of_logs(found.logs, found.refused, home.folder / LOG_FILE)
    yield from evidence.of_models(home, found.versions, found.changes, found.model)
    yield from of_watch(home.state, found.watch)
    yield from of_data(home.folder, home.state, found.data_card, found.data)
    if found.evaluation is not None and not other:
        yield from evidence.of_evaluation(found.evaluation, evaluation)
    yield from evidence.of_costs(costs)


def _costs(found: Folder) -> Costs:
    ups, downs = [one.bytes_up for one in found.left], [one.bytes_down for one in found.left]
    return Costs(
        bytes_up=sum(one for one in ups if one is not None) if None not in ups else None,
        bytes_down=sum(one for one in downs if one is not None) if None not in downs else None,
        attempts=sum(one.attempts for one in found.left),
        disk_bytes=sum(map(_size, found.home.folder.rglob("*"))),
    )


def _size(path: Path) -> int:
    """Of a file; nothing of what is gone meanwhile, since a node may be running."""
    try:
        found = path.lstat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _apart(found: Folder) -> bool:
    """Whether approvals are signed with another key than the node's."""
    pinned = None if found.policy is None else found.policy.pins.approvals
    if pinned is None or not found.home.identity_file.exists():
        return pinned is not None
    try:
        return found.home.key().public_key().public_bytes_raw().hex() != pinned
    except KeyFileError:
        return False


def _roles(found: Folder) -> dict[str, str]:
    home, apart = found.home, _apart(found)
    said = {}
    if found.policy is not None:
        said["Data owner"] = "approves with a key other than the node's" if apart else "approves with the node's key"
    if home.identity_file.exists():
        key = "has the node's key, not the one for approvals" if apart else "can sign approvals: one key for both"
        said["Operator of the node"] = key
    if home.federation_key_file.exists():
        said["Auditor"] = "can verify with federation.pub alone: testudo-client audit verify"
    return said
