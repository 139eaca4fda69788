"""The data card: where an owner's data comes from and on what grounds it is used, written by the owner itself.

A TOML file in the owner's folder. Nothing here can be found out from the rows, so nothing is filled in; what is empty
is said to be. Its digest may be logged: it says that a card existed, and nothing of what stands in it.
Source: Gebru et al. 2021, arXiv:1803.09010 (datasheets for datasets), cut down to what a small owner can say.
"""

from __future__ import annotations

import hashlib
import tomllib
from datetime import date, datetime
from pathlib import Path
from typing import Any

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from testudo_common.errors import UsageError
from testudo_common.files import write_new

FILE = "data-card.toml"
MAX_BYTES = 100_000


class DataCard(BaseModel):
    """What an owner says of its data; every field may be empty, and a report says which are.

    Attributes:
        title: What the data is, in a few words.
        provenance: Where it comes from: which system, instrument or survey.
        collected_by: Who collected it.
        collected_from: First day it covers.
        collected_to: Last day it covers, not before the first.
        population: Whom or what a row stands for, and who is not in it.
        consent_basis: On what grounds it may be used for this: consent, contract, law, or that it is of no person.
        licence: Under which it may be used.
        sensitive: Which columns are of health, origin, belief, money or the like; or "none".
        known_gaps: What is missing, wrong or changed over time, as far as is known; or "none".
        contact: Who answers questions; it stays in this file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)
    title: str = Field("", max_length=200, description="what the data is, in a few words")
    provenance: str = Field("", max_length=2000, description="where it comes from: which system, instrument or survey")
    collected_by: str = Field("", max_length=500, description="who collected it")
    collected_from: date | None = Field(None, description="first day it covers, such as 2024-01-31")
    collected_to: date | None = Field(None, description="last day it covers")
    population: str = Field("", max_length=2000, description="whom or what a row stands for, and who is not in it")
    consent_basis: str = Field(
        "", max_length=2000, description="why it may be used for this: consent, contract, law, or it is of no person"
    )
    licence: str = Field("", max_length=500, description="under which it may be used")
    sensitive: str = Field(
        "", max_length=2000, description='columns of health, origin, belief, money or the like; or "none"'
    )
    known_gaps: str = Field("", max_length=2000, description='what is missing, wrong or has changed; or "none"')
    contact: str = Field("", max_length=500, description="who answers questions; it stays in this file")

    @field_validator("collected_from", "collected_to", mode="before")
    @classmethod
    def _no_date_yet(cls, value: object) -> object:
        """TOML has no word for nothing: the template has an empty text."""
        return None if value == "" else value.date() if isinstance(value, datetime) else value

    @model_validator(mode="after")
    def _in_order(self) -> DataCard:
        if self.collected_from and self.collected_to and self.collected_to < self.collected_from:
            raise ValueError("collected_to is before collected_from")
        return self

    @property
    def empty(self) -> tuple[str, ...]:
        """Fields that say nothing yet, in their order."""
        return tuple(name for name in type(self).model_fields if not getattr(self, name))

    @property
    def digest(self) -> str:
        """SHA-256 of the card as RFC 8785 canonical JSON, in hex."""
        return hashlib.sha256(rfc8785.dumps(self.model_dump(mode="json"))).hexdigest()


def read_data_card(folder: Path) -> DataCard | None:
    """The card in an owner's folder; None where there is none.

    Raises:
        UsageError: It cannot be read, or is no card: with the first field that is wrong.
    """
    path = folder / FILE
    remedy = f"Correct it, or move it away: testudo-client inspect {folder} writes an empty one"
    try:
        if not path.exists():
            return None
        text = path.read_bytes()[: MAX_BYTES + 1]
        if len(text) > MAX_BYTES:
            raise UsageError(f"the data card has more than {MAX_BYTES} bytes", where=str(path), remedy="Shorten it")
        return DataCard.model_validate(tomllib.loads(text.decode()))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"]))
        told = fault["msg"].removeprefix("Value error, ")
        raise UsageError(f"{place + ': ' if place else ''}{told}", where=str(path), remedy=remedy) from error
    except (OSError, ValueError) as error:  # what is no TOML or no UTF-8 is a ValueError; its text could hold data
        raise UsageError("the data card is not a TOML file", where=str(path), remedy=remedy) from error


def keep_template(folder: Path) -> bool:
    """Write a card that says nothing yet, unless there is one; whether it was written.

    Raises:
        UsageError: It cannot be written.
    """
    try:
        write_new(folder / FILE, template().encode())
    except FileExistsError:
        return False
    except OSError as error:
        problem = f"the data card cannot be written: {error.strerror or 'no reason given'}"
        raise UsageError(problem, where=str(folder / FILE), remedy="Let this user write there") from error
    return True


def template() -> str:
    """The empty card, with what belongs into each field."""
    fields: dict[str, Any] = DataCard.model_fields
    lines = ["# Your data card. Fill in what you know; nothing of it leaves this computer.", ""]
    lines += [f'# {field.description}\n{name} = ""\n' for name, field in fields.items()]
    return "\n".join(lines)
