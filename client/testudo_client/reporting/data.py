"""The owner's data on its report: what the owner wrote of it, and what was counted. What is empty is shown as empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from testudo_client.quality.card import FILE as CARD_FILE
from testudo_client.quality.card import DataCard
from testudo_client.quality.profile import FILE as PROFILE_FILE
from testudo_client.quality.profile import ColumnProfile, Profile
from testudo_client.reporting.evidence import digest_of
from testudo_client.reporting.values import ColumnTold, DataTold
from testudo_common.reporting.cards import Card, CardPart
from testudo_common.reporting.rmf import Evidence, Kind

_AT_HOME = frozenset({"title", "contact"})
"""The title stands above, and the contact stays in the owner's file."""
_ORIGIN = ("provenance", "collected_by", "collected_from", "collected_to", "population", "known_gaps")
_GROUNDS = ("consent_basis", "licence", "sensitive")


def data_card(found: DataCard) -> Card:
    """What the owner wrote, field by field; those that are empty are there, without a fact."""
    said = {name: str(getattr(found, name) or "") for name in DataCard.model_fields if name not in _AT_HOME}
    parts = tuple(
        CardPart(title=name.replace("_", " ").capitalize(), facts=(("", text),) if text else ())
        for name, text in said.items()
    )
    return Card(title=f"Data card: {found.title or 'without a title'}", parts=parts)


def data_told(profile: Profile) -> DataTold:
    """Counts of the table; means and quantiles stay in the owner's file, since of few rows they tell of single ones."""
    columns = [_column(one, role="input") for one in profile.columns]
    return DataTold(
        rows=profile.rows,
        plan_digest=profile.plan_digest,
        columns=(*columns, _column(profile.target, role="answer")),
    )


def _column(one: ColumnProfile, *, role: str) -> ColumnTold:
    return ColumnTold(
        name=one.name,
        role=role,
        kind=one.kind,
        unit=one.unit,
        usable=one.count,
        missing=one.missing,
        unusable=one.unusable,
    )


def of_data(folder: Path, state: Path, card: DataCard | None, told: DataTold | None) -> Iterator[Evidence]:
    """Only what the owner filled in is evidence: an empty card is none."""
    if card is not None:
        digest = digest_of(folder / CARD_FILE)
        for kind, names in ((Kind.DATA_ORIGIN, _ORIGIN), (Kind.DATA_GROUNDS, _GROUNDS)):
            filled = [name.replace("_", " ") for name in names if getattr(card, name)]
            if filled:
                says = f"data card: {', '.join(filled)}"
                yield Evidence(kind=kind, says=says, file=CARD_FILE, digest=digest, anchor="data-card")
    if told is not None:
        says = f"{told.rows} rows, {len(told.columns)} columns counted"
        name = f"{state.name}/{PROFILE_FILE}"
        yield Evidence(kind=Kind.PROFILE, says=says, file=name, digest=digest_of(state / PROFILE_FILE), anchor="data")
