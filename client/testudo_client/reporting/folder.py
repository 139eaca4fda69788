"""An owner's folder, read part by part. A part that cannot be read is named as a problem, and nothing is made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from testudo_client.home import OwnerHome
from testudo_client.judging.results import EVALUATION_FILE, Evaluation
from testudo_client.ledger import Entry
from testudo_client.membership import read_membership
from testudo_client.personal.versions import MODELS, Version, VersionStore
from testudo_client.policy.sections import OwnerPolicy
from testudo_client.quality.card import DataCard, read_data_card
from testudo_client.quality.profile import read_profile
from testudo_client.reporting import accounts
from testudo_client.reporting.data import data_told
from testudo_client.reporting.model_values import Change, OwnModel, VersionLine
from testudo_client.reporting.own_model import changes_in, model_in_use, versions_in
from testudo_client.reporting.values import DataTold, LogTold, PlanLeft, Problem, Refusal, Spent, WatchTold
from testudo_client.reporting.watched import watch_of
from testudo_common.errors import PlanError, TestudoError, UsageError
from testudo_common.plan import FederationPlan
from testudo_common.plan.load import load_plan
from testudo_common.roster import Roster

OnStep = Callable[[str], None]


@dataclass(slots=True)
class Folder:
    """What was read so far."""

    home: OwnerHome
    problems: list[Problem] = field(default_factory=list)
    policy: OwnerPolicy | None = None
    entries: tuple[Entry, ...] = ()
    plans: Mapping[str, FederationPlan] = field(default_factory=dict)
    roster: Roster | None = None
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


def read_folder(home: OwnerHome, evaluation: Path | None, on_step: OnStep) -> Folder:
    """Everything that is there.

    Args:
        home: The owner's folder.
        evaluation: As the harness wrote it; None: the one in the folder, if there is one.
        on_step: Told what is read next.

    Raises:
        UsageError: Nothing of an owner's is in the folder, or the evaluation that was named cannot be read.
    """
    _require_owner(home)
    found = Folder(home)
    if evaluation is not None:
        found.evaluation = read_evaluation(evaluation)
    elif (home.folder / EVALUATION_FILE).exists():
        with found.part("evaluation"):
            found.evaluation = read_evaluation(home.folder / EVALUATION_FILE)
    on_step("own model")
    _read_models(found)
    on_step("data")
    _read_data(found)
    on_step("policy and ledger")
    _read_accounts(found)
    on_step("audit logs")
    if any(home.state.glob("audit-*.db")):
        with found.part("audit logs"):
            found.logs = accounts.logs_of(home)
    on_step("owner's log")
    with found.part("your own log"):
        found.refused = accounts.refused_in(home)
    return found


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


def _read_models(found: Folder) -> None:
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


def _read_data(found: Folder) -> None:
    home = found.home
    with found.part("data card"):
        found.data_card = read_data_card(home.folder)
    with found.part("profile of the data"):
        profile = read_profile(home.state)
        found.data = None if profile is None else data_told(profile)
    with found.part("watch"):
        found.watch = watch_of(home.state)


def _read_accounts(found: Folder) -> None:
    home = found.home
    if home.policy_file.exists():
        with found.part("policy"):
            found.policy = home.policy()
    if found.policy is None:
        if not home.policy_file.exists() and home.has_ledger(None):
            found.problems.append(Problem(part="ledger", sentence="it is read by the policy, and there is none"))
        return
    found.plans = approved_plans(home)
    if home.roster_file.exists():
        with found.part("roster"):
            found.roster = read_membership(home.folder).roster
    if home.has_ledger(found.policy):
        with found.part("ledger"):
            found.entries = home.ledger(found.policy).entries()
    if found.entries:
        with found.part("accounts"):
            found.spent = accounts.spent_of(home, found.policy, found.entries)
        with found.part("what left"):
            found.left = accounts.left_of(found.policy, found.entries, found.plans, found.roster)


def approved_plans(home: OwnerHome) -> dict[str, FederationPlan]:
    """Digest -> plan, of the copies that are what their name says."""
    plans = {}
    for file in sorted(home.approved.glob("*.toml")):
        try:
            plan = load_plan(file)
        except PlanError:
            continue
        if plan.digest == file.stem:
            plans[plan.digest] = plan
    return plans
