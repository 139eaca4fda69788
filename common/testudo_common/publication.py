"""A published meta-model: what a federation hands to those who adapt it. One safetensors file, no pickle, no code.

By example, the file's metadata::

    {"format": "testudo-meta-model-1", "plan": "{\\"name\\":\\"shops\\",...}", "plan_digest": "9f86...",
     "round": "50", "prior": "[...]"}

and one tensor, ``model``: ``float32[d]``. The digest of the model is what a federation's audit log names when it is
released; this file proves nothing by itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import rfc8785
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from testudo_common.errors import PlanError, UsageError
from testudo_common.files import write_atomically
from testudo_common.learning.calibration import CalibrationPrior
from testudo_common.plan import FederationPlan
from testudo_common.vectors import Vector, fault_of_vector, vector_digest

FORMAT = "testudo-meta-model-1"
_PRIORS: TypeAdapter[tuple[CalibrationPrior, ...]] = TypeAdapter(tuple[CalibrationPrior, ...])


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A meta-model with what is needed to adapt it.

    Attributes:
        plan: It was made under, complete.
        round: After which.
        model: ``float32[d]``.
        priors: What the federation found out together about how sure adapted models should be, one a support size;
            none where its plan did not ask.
        logged_plan: Digest of the plan when the file was written, hex; empty: the plan's own.
    """

    plan: FederationPlan
    round: int
    model: Vector = field(repr=False, compare=False)
    priors: tuple[CalibrationPrior, ...] = ()
    logged_plan: str = ""

    @property
    def plan_digest(self) -> str:
        """Of the plan as it was when the file was written, hex: later versions of this program add keys to plans."""
        return self.logged_plan or self.plan.digest

    @property
    def digest(self) -> str:
        """Of the model, as the audit log names it, hex."""
        return vector_digest(self.model)


def write_published(path: Path, published: PublishedModel) -> None:
    """Write the file, whole or not at all.

    Raises:
        UsageError: It cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "plan": rfc8785.dumps(published.plan.model_dump(mode="json")).decode(),
        "plan_digest": published.plan_digest,
        "round": str(published.round),
        "prior": _PRIORS.dump_json(published.priors).decode(),
    }
    try:
        write_atomically(path, save({"model": published.model}, metadata=metadata))
    except OSError as error:
        raise UsageError(
            f"the meta-model cannot be written: {error.strerror or 'no reason given'}",
            where=str(path),
            remedy="Name a file that may be written to",
        ) from error


def read_published(path: Path) -> PublishedModel:
    """Read the file.

    Raises:
        UsageError: It is not there, or no published meta-model, or damaged.
    """
    remedy = "Ask for it again: it is the file that testudo-server publish wrote"
    if not path.is_file():
        raise UsageError("there is no such file", where=str(path), remedy="Check the path")
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise UsageError("not a published meta-model", where=str(path), remedy=remedy)
            model = file.get_tensor("model")
        plan = FederationPlan.model_validate(json.loads(metadata["plan"]))
        priors = _PRIORS.validate_json(metadata["prior"])
        published = PublishedModel(plan, int(metadata["round"]), model, priors, metadata["plan_digest"])
    except (SafetensorError, OSError, KeyError, ValueError, ValidationError, PlanError) as error:
        raise UsageError("not a published meta-model, or damaged", where=str(path), remedy=remedy) from error
    if fault := fault_of_vector(published.model, published.model.size):
        raise UsageError(f"the meta-model is damaged: {fault}", where=str(path), remedy=remedy)
    return published
