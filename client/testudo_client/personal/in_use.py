"""The version in use beside a new candidate: what it loses on the same rows, none of which it was made from.

Rows are known by keyed digests, so that a version can say which it has seen without holding one.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np

from testudo_client.ledger import FINGERPRINT_KEY_FILE
from testudo_client.ledger.fingerprint import fingerprint_key
from testudo_client.personal.adapting import losses_of, outputs_of, scored
from testudo_client.personal.promotion import Numbers
from testudo_client.personal.versions import Contender, VersionStore
from testudo_common.errors import UsageError
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import TableData

_ENOUGH_FRESH = 8  # rows that the version in use was not made from

Reader = Callable[[FederationPlan], Examples]
"""The owner's rows as a plan encodes them."""


def row_digests(folder: Path, examples: Examples) -> tuple[str, ...]:
    """A keyed digest of each example: equal ones for equal examples; without the owner's key no guess can be tested."""
    key = fingerprint_key(folder / FINGERPRINT_KEY_FILE)
    rows = zip(examples.inputs, examples.targets, strict=True)
    return tuple(hmac.new(key, b"row" + one.tobytes() + target.tobytes(), sha256).hexdigest() for one, target in rows)


def _target_of(plan: FederationPlan) -> tuple[object, ...]:
    data = plan.data
    assert isinstance(data, TableData)  # it was adapted from a table
    return data.target, data.labels, data.target_transform, data.target_center, data.target_scale


def losses_in_use(
    store: VersionStore, plan: FederationPlan, rows: int, reads: Reader
) -> tuple[Numbers, Contender] | None:
    """Losses of the version in use on the same rows; NaN for those that it was made from, if enough others are there.

    Else its own out-of-fold losses stand for them.

    Args:
        store: The owner's versions.
        plan: Of the candidate.
        rows: That the candidate was compared on.
        reads: The same rows, as a plan encodes them.

    Returns:
        ``float64[rows]``, and how it did; None where no version is in use.

    Raises:
        UsageError: It predicts something else, or other rows; a person has to take it out of use.
        DataError: It cannot read this table.
    """
    number = store.current_id()
    if number is None:
        return None
    version = store.load(number)
    own = version.own
    if _target_of(own.plan) != _target_of(plan):
        raise UsageError(
            "the version in use predicts another target, or scales it otherwise, and cannot be compared",
            where=str(store.models / str(number)),
            remedy="start a new folder for this meta-model",
        )
    examples = reads(own.plan)
    known = dict(zip(version.record.rows_digest, version.record.losses, strict=True))
    theirs = row_digests(store.folder, examples)
    losses = losses_of(own, examples)
    fresh = np.array([digest not in known for digest in theirs], dtype=np.bool_)
    if fresh.sum() < _ENOUGH_FRESH:
        losses = np.array([known.get(digest, loss) for digest, loss in zip(theirs, losses, strict=True)])
    else:
        losses = np.where(fresh, losses, np.nan)
    if len(losses) != rows:
        raise UsageError(
            "the version in use reads other rows of this table, and cannot be compared",
            where=str(store.models / str(number)),
            remedy="bring a table that fits both, or start a new folder",
        )
    there = losses[np.isfinite(losses)]
    unseen = examples.take(np.flatnonzero(fresh))
    metrics = scored("in_use", losses[fresh], outputs_of(own, unseen), unseen).metrics if len(unseen) else {}
    return losses, Contender(name="in_use", metrics=metrics, loss=float(there.mean()), examples=len(there))
