"""``testudo-server publish``: a run's last model as a file that data owners adapt. Trains nothing.

Where the plan has an audit log, the release is written into it first, and only the model that the log ends in is
released: an owner that mirrors the log can tell this file from any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from testudo_common.audit.entries import ModelReleased
from testudo_common.errors import UsageError
from testudo_common.files import write_atomically
from testudo_common.learning.calibration import CalibrationPrior
from testudo_common.plan.load import load_plan
from testudo_common.publication import PublishedModel, write_published
from testudo_common.reporting.cards import as_markdown
from testudo_common.reporting.plan_card import meta_model_card
from testudo_server import audit_command
from testudo_server.store import RunStore

PLAN_FILE = "plan.toml"


@dataclass(frozen=True, slots=True)
class Publication:
    """What was published.

    Attributes:
        published: The meta-model.
        entry: Index of the release in the audit log; None where the plan has no log.
    """

    published: PublishedModel
    entry: int | None


def published_in(out: Path, *, unfinished: bool = False) -> PublishedModel:
    """The last model of the run in ``out``, with what its newcomers found out.

    Raises:
        UsageError: There is no run, or it is not finished.
        CheckpointError: Its checkpoint cannot be used.
    """
    plan_file = out / PLAN_FILE
    if not plan_file.is_file():
        raise UsageError("no run is here", where=str(out), remedy="name the folder of a run, its --out")
    plan = load_plan(plan_file)
    store = RunStore(out)
    state = store.load(plan.digest)
    if state.round < plan.rounds.count and not unfinished:
        raise UsageError(
            f"{state.round} of {plan.rounds.count} rounds are finished",
            where=str(out),
            remedy="let the run finish with --resume, or say --unfinished",
        )
    found = [record.calibration for record in store.records() if record.calibration]
    priors = tuple(CalibrationPrior.model_validate(one) for one in found[-1]) if found else ()
    return PublishedModel(plan, state.round, state.model, priors)


def publish(out: Path, keys: Path | None, to: Path, whom: str, *, unfinished: bool = False) -> Publication:
    """Write the release into the run's log, and then the file, and a model card beside it.

    Args:
        out: The run's folder.
        keys: Folder of the run's keys; None: its own.
        to: The file.
        whom: Whom it is given to, in words, for the log.
        unfinished: Although rounds are left.

    Raises:
        UsageError: There is no finished run, or the file cannot be written or is there already.
        AuditError: The log cannot be used, or ends in another model.
    """
    if to.exists():
        raise UsageError("there is such a file already", where=str(to), remedy="name another, or move it away")
    published = published_in(out, unfinished=unfinished)
    entry = None
    if published.plan.audited:
        entry = _logged(out, keys, published, whom)
    write_published(to, published)
    card = meta_model_card(published.plan, published.round, published.digest, {})
    write_atomically(card_beside(to), as_markdown(card).encode())
    return Publication(published, entry)


def card_beside(to: Path) -> Path:
    """Where the model card of a published file lies."""
    return to.with_suffix(".model-card.md")


def _logged(out: Path, keys: Path | None, published: PublishedModel, whom: str) -> int:
    release = audit_command.release_of(out, keys, whom)
    if (release.round, release.model_digest) != (published.round, published.digest):
        raise UsageError(
            "the audit log ends in another model than the checkpoint",
            where=str(out),
            remedy="go on with the run once, which brings them together; if that does not help, do not publish",
        )
    if (known := _released_before(out, release)) is not None:
        return known
    return int(audit_command.recorded(out, keys, release)["index"])


def _released_before(out: Path, release: ModelReleased) -> int | None:
    """Index of an entry that says the same; one release is enough."""
    for index, _, entry in audit_command.shown(out):
        same = all(entry.get(name) == getattr(release, name) for name in ("type", "round", "model_digest", "to"))
        if same:
            return index
    return None
