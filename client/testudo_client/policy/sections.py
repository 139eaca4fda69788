"""The sections of a data owner's policy: fields, bounds and units. No plan, no file, no verdict.

A policy is the owner's own and is never sent. What it does not allow in so many words is refused: a key that could
open something must be written, or is closed by default. Types are strict: ``"8"`` is no number here.
"""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Annotated, Literal, Self

import rfc8785
from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator

from testudo_common.plan.sections import PositiveFloat, Section
from testudo_common.roster import is_client_id

Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Pins = Literal["any"] | tuple[Hex, ...]
"""What a pin allows: anything, or one of a list; an empty list allows nothing."""
Statistic = Literal["confusion", "calibration", "brier", "errors"]
ModelName = Annotated[str, StringConstraints(pattern=r"^(mlp|conv|linear|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$")]


class Rules(Section):
    """Base of every section: as a plan's, and nothing is taken for another type."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)


class UnitLimits(Rules):
    """What stands in the section of either unit of privacy."""

    epsilon_per_run: PositiveFloat = Field(le=100, description="the most that one plan may spend, in all")
    epsilon_for_life: PositiveFloat = Field(le=100, description="the most that all plans together may ever spend")
    delta: float = Field(gt=0, lt=0.5, description="of both; a plan's own delta must not be larger")

    @model_validator(mode="after")
    def _run_within_life(self) -> Self:
        if self.epsilon_per_run > self.epsilon_for_life:
            raise ValueError("epsilon_per_run is above epsilon_for_life")
        return self


class ExampleLimits(UnitLimits):
    """What one example of mine may lose, against whoever sees everything that I send."""

    accountant: Literal["prv", "rdp"] = Field("prv", description="prv is tight, rdp looser and faster")


class ClientLimits(UnitLimits):
    """What I may lose as a whole, against whoever sees sums over enough clients only; accounted by RDP."""


class PrivacyRules(Rules):
    """What must be private, and by how much: each unit that stands here is needed. None at all must be said."""

    none: bool = Field(False, description="true: plans without any differential privacy may train on my data")
    example: ExampleLimits | None = Field(None, description="a section: plans must hide every example of mine")
    client: ClientLimits | None = Field(None, description="a section: plans must hide me as a whole")

    @model_validator(mode="after")
    def _said_in_so_many_words(self) -> Self:
        limited = self.example is not None or self.client is not None
        if self.none and limited:
            raise ValueError("none = true, and limits beside it")
        if not self.none and not limited:
            raise ValueError(
                "neither [privacy.example] nor [privacy.client]; without any limit, none = true must stand"
            )
        return self


class AggregationRules(Rules):
    """Who may see what I send, how often, and together with whom."""

    secure: bool = Field(True, description="true: nobody may see my update by itself, only sums over groups")
    min_cohort: int = Field(ge=3, le=100_000, description="secure: fewer clients must never be grouped")
    min_group: int = Field(ge=3, le=10_000, description="secure: a sum over fewer clients must never be opened")
    min_corruption: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        description="secure: share of the clients that must be able to collude with the server without harm to me"
    )
    max_left_out: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="secure: the most of a cohort that the server may leave out when it can know the groups"
    )
    max_attempts: int = Field(ge=1, le=100, description="secure: how often one round may be begun")
    max_participations: int = Field(ge=1, le=1_000_000, description="rounds of one plan that I may take part in")
    weighted: bool = Field(False, description="true: my number of examples may travel, as a weight in a secure sum")

    @model_validator(mode="after")
    def _group_within_cohort(self) -> Self:
        if self.min_group > self.min_cohort:
            raise ValueError("min_group is above min_cohort, and a group is part of a cohort")
        return self


class TensorRule(Rules):
    """One shared tensor of the model."""

    name: str = Field(min_length=1, max_length=256, description="as torch names the parameter")
    shape: tuple[Annotated[int, Field(ge=0, le=1 << 31)], ...] = Field(description="its size in each dimension")
    dtype: Literal["float32"] = Field("float32", description="of what travels: only this type does")


class ModelRules(Rules):
    """Which code may be run as a model, and how much of it may leave."""

    allowed: tuple[ModelName, ...] = Field(
        description="mlp, conv, linear; a factory stands here in full, package.module:function, or is never imported"
    )
    max_bytes: int = Field(ge=4, le=1 << 40, description="of one update, as float32")
    tensors: tuple[TensorRule, ...] | None = Field(
        None, description="the exact shared tensors, in order; none: any within max_bytes"
    )


class MetricRules(Rules):
    """What may leave besides updates: sums of scores on my own examples, inside a secure sum."""

    statistics: tuple[Statistic, ...] = Field(
        (), description="of classification: confusion, calibration, brier; of regression: errors; empty: none leaves"
    )
    min_noise_multiplier: PositiveFloat = Field(
        1.0, le=1000, description="noise that they must have under a private plan"
    )
    min_cell: int = Field(10, ge=1, le=1_000_000, description="a class or bin with fewer examples must not be reported")


class AuditRules(Rules):
    """Whether the server must show everybody the same log of what it does, before I train."""

    required: bool = Field(True, description="true: only plans whose server keeps a log that the clients cosign")
    max_window: int = Field(
        1, ge=1, le=100, description="rounds for which an earlier cosignature may count; above 1, two views can last"
    )
    lower_quorum: bool = Field(
        False, description="true: a plan may be content with two thirds of the witnesses, or with fewer"
    )


class PinRules(Rules):
    """What must be exactly what I looked at. A pin that cannot be checked here and now is a refusal."""

    federation_key: Pins = Field(description="of federation.pub, which signs the roster; any of these, or anything")
    code: Pins = Field(description="digest of the installed testudo_common and testudo_client")
    bundle: Pins = Field(description="SHA-256 of the Flower app bundle that my node was sent")
    server_certificate: Pins = Field(
        "any", description="SHA-256 of the server's certificate, or of one above it in its chain"
    )
    approvals: Hex | None = Field(
        None, description="public key that signs my approvals; none: the node's own, identity.pem"
    )
    witnesses: tuple[Hex, ...] = Field(
        (), description="keys of members that must be among those who watch the federation's log"
    )


class DateRules(Rules):
    """When training is allowed at all; both days included."""

    not_before: date = Field(description="the first day")
    not_after: date = Field(description="the last day; a policy does not go on by itself")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.not_before > self.not_after:
            raise ValueError("not_before is later than not_after")
        return self


class LogRules(Rules):
    """What becomes of my own log."""

    ship: Literal["never"] = Field("never", description="it never leaves: there is no other choice")


class LedgerRules(Rules):
    """Where else it is noted how far my ledger has come, so that an old copy of it is found out."""

    anchors: tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...] = Field(
        (), description="further files for the ledger's anchor, best on another disk"
    )


class OwnerPolicy(Rules):
    """A data owner's rules for every plan. Frozen; digest-able; wrong policies do not come into being."""

    version: Literal[1] = Field(description="of this format")
    client: str = Field(description="my name in the federation")
    privacy: PrivacyRules
    aggregation: AggregationRules
    model: ModelRules
    metrics: MetricRules = MetricRules()
    audit: AuditRules = AuditRules()
    pins: PinRules
    dates: DateRules
    log: LogRules = LogRules()
    ledger: LedgerRules = LedgerRules()

    @field_validator("client")
    @classmethod
    def _may_name_a_client(cls, name: str) -> str:
        if not is_client_id(name):
            raise ValueError("a client's name is 1 to 128 printable characters")
        return name

    @property
    def digest(self) -> str:
        """SHA-256 of the policy as RFC 8785 canonical JSON, in hex; keys left at their defaults count too."""
        return hashlib.sha256(rfc8785.dumps(self.model_dump(mode="json"))).hexdigest()
