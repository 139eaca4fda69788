"""Everything that an owner's folder says, gathered into one report. What cannot be read is named, and left out."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from testudo_client.home import LOG_FILE, OwnerHome
from testudo_client.judging.results import EVALUATION_FILE, Evaluation
from testudo_client.ledger import Entry
from testudo_client.personal.versions import MODELS, Version, VersionStore
from testudo_client.policy.sections import OwnerPolicy
from testudo_client.quality.card import DataCard, read_data_card
from testudo_client.quality.profile import read_profile
from testudo_client.reporting import accounts, evidence
from testudo_client.reporting.card import own_card
from testudo_client.reporting.data import data_card, data_told, of_data
from testudo_client.reporting.glance import glance_of
from testudo_client.reporting.model_values import Change, OwnModel, VersionLine
from testudo_client.reporting.own_model import changes_in, model_in_use, versions_in
from testudo_client.reporting.values import (
    Costs,
    DataTold,
    LogTold,
    OwnerReport,
    PlanLeft,
    Problem,
    Refusal,
    Spent,
    WatchTold,
)
from testudo_client.reporting.watched import advice_of, of_watch, watch_of
from testudo_common.errors import PlanError, TestudoError, UsageError
from testudo_common.plan.load import load_plan
from testudo_common.reporting.rmf import Evidence, rmf_lines

OnStep = Callable[[str], None]


def no_step(_part: str) -> None:
    """Nobody looks."""


@dataclass(slots=True)
class _Folder:
    """What was read so far."""

    home: OwnerHome
    problems: list[Problem] = field(default_factory=list)
    policy: OwnerPolicy | None = None
    entries: tuple[Entry, ...] = ()
    version: Version | None = None
    versions: tuple[VersionLine, ...] = ()
    changes: tuple[Change, ...] = ()
    model: OwnModel | None = None
    evaluation: Evaluation | None = None
    spent: Spent | None = None
    left: tuple[PlanLeft, ...] = ()
    refused: tuple[Refusal, ...] = ()
    logs: tuple[LogTold, ...] = ()
    watch: WatchTold | None = None
    data: DataTold | None = None
    data_card: DataCard | None = None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Reading a part: where it fails, that is what the report says of it."""
        try:
            yield
        except TestudoError as error:
            self.problems.append(Problem(part=name, sentence=" ".join(str(error).split())))
        except OSError as error:  # such as of a folder that an auditor may only read
            self.problems.append(Problem(part=name, sentence=error.strerror or type(error).__name__))


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
    home = OwnerHome(folder)
    _require_owner(home)
    found = _Folder(home)
    place = evaluation if evaluation is not None else folder / EVALUATION_FILE
    if evaluation is not None:
        found.evaluation = read_evaluation(evaluation)
    elif place.exists():
        with found.part("evaluation"):
            found.evaluation = read_evaluation(place)
    on_step("own model")
    _read_models(found)
    on_step("data")
    with found.part("data card"):
        found.data_card = read_data_card(folder)
    with found.part("profile of the data"):
        profile = read_profile(home.state)
        found.data = None if profile is None else data_told(profile)
    with found.part("watch"):
        found.watch = watch_of(home.state)
    on_step("policy and ledger")
    _read_accounts(found)
    on_step("audit logs")
    if any(home.state.glob("audit-*.db")):
        with found.part("audit logs"):
            found.logs = accounts.logs_of(home, _ignore)
    on_step("owner's log")
    with found.part("your own log"):
        found.refused = accounts.refused_in(home)
    return _report(found, now, software, place)


def read_evaluation(path: Path) -> Evaluation:
    """An evaluation, as the harness wrote it.

    Raises:
        UsageError: It cannot be read, or is none.
    """
    remedy = "Make it again: testudo-client evaluate"
    try:
        return Evaluation.model_validate_json(path.read_bytes())
    except OSError as error:
        problem = f"the evaluation cannot be read: {error.strerror or 'no reason given'}"
        raise UsageError(problem, where=str(path), remedy="Check the path") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "(whole file)"
        raise UsageError(f"not an evaluation: {key} is not as it must be", where=str(path), remedy=remedy) from error


def _require_owner(home: OwnerHome) -> None:
    if not home.folder.is_dir():
        raise UsageError("there is no such folder", where=str(home.folder), remedy="Check the path")
    if not any((home.policy_file.exists(), (home.folder / MODELS).is_dir(), home.state.is_dir())):
        raise UsageError(
            "nothing of a data owner's is in this folder",
            where=str(home.folder),
            remedy="Name the folder that testudo-client init or join made",
        )


def _read_models(found: _Folder) -> None:
    store = VersionStore(found.home.folder)
    if not store.ids():
        return
    with found.part("own models"):
        found.versions, found.changes = versions_in(store), changes_in(store)
    if _in_use_or_damaged(store):
        with found.part("the model in use"):
            found.version = store.current()
            found.model = model_in_use(found.version, found.home.state)


def _in_use_or_damaged(store: VersionStore) -> bool:
    """Whether any version is in use, or the file that says so is damaged, which reading it tells."""
    try:
        return store.current_id() is not None
    except UsageError:
        return True


def _read_accounts(found: _Folder) -> None:
    home = found.home
    if home.policy_file.exists():
        with found.part("policy"):
            found.policy = home.policy()
    if found.policy is None:
        if not home.policy_file.exists() and home.has_ledger(None):
            found.problems.append(Problem(part="ledger", sentence="it is read by the policy, and there is none"))
        return
    if home.has_ledger(found.policy):
        with found.part("ledger"):
            found.entries = home.ledger(found.policy).entries()
    if found.entries:
        with found.part("accounts"):
            found.spent = accounts.spent_of(home, found.policy, found.entries)
        with found.part("what left"):
            found.left = accounts.left_of(home, found.policy, found.entries)


def _report(found: _Folder, now: datetime, software: str, evaluation: Path) -> OwnerReport:
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


def _evidence(found: _Folder, costs: Costs, evaluation: Path, *, other: bool) -> Iterator[Evidence]:
    home = found.home
    if found.policy is not None:
        yield from evidence.of_policy(home, found.policy)
    if found.entries:
        yield from evidence.of_ledger(home, found.entries, found.spent)
    yield from evidence.of_federation(home, found.left, _robust(home))
    yield from evidence.of_logs(found.logs, found.refused, home.folder / LOG_FILE)
    yield from evidence.of_models(home, found.versions, found.changes, found.model)
    yield from of_watch(home.state, found.watch)
    yield from of_data(home.folder, home.state, found.data_card, found.data)
    if found.evaluation is not None and not other:
        yield from evidence.of_evaluation(found.evaluation, evaluation)
    yield from evidence.of_costs(costs)


def _robust(home: OwnerHome) -> dict[str, str]:
    """Plan digest -> what its rule of aggregation withstands, where it does."""
    said = {}
    for file in home.approved.glob("*.toml"):
        try:
            plan = load_plan(file)
        except PlanError:
            continue
        if share := plan.robust_aggregation.corruption:
            said[file.stem] = f"{' then '.join(plan.robust_rule)}, for {100 * share:g} % of poisoned clients"
    return said


def _costs(found: _Folder) -> Costs:
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


def _roles(found: _Folder) -> dict[str, str]:
    home, policy = found.home, found.policy
    said = {}
    if policy is not None:
        apart = policy.pins.approvals is not None
        said["Data owner"] = (
            "approvals have a key of their own, pinned in the policy"
            if apart
            else "approvals are signed by the node's key"
        )
    if home.identity_file.exists():
        apart = policy is not None and policy.pins.approvals is not None
        said["Operator of the node"] = (
            "has the node's key, and not the one for approvals"
            if apart
            else "can sign approvals as well: one key for both"
        )
    if home.federation_key_file.exists():
        said["Auditor"] = "can verify with federation.pub alone: testudo-client audit verify"
    return said


def _ignore(_index: int) -> None:
    """Steps are shown, entries are not."""
