"""Cards: named parts, each with facts; what nobody stated is shown as such, not made up. As a page and as Markdown.

Source of the parts of a model card: Mitchell et al. 2019, "Model Cards for Model Reporting", section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from testudo_common.markup import Markup, join, printable, tag

NOT_STATED = "Not stated."
_MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]{}<>|~&$"})


class Part(StrEnum):
    """The nine parts of a model card, in order."""

    DETAILS = "Model details"
    USE = "Intended use"
    FACTORS = "Factors"
    METRICS = "Metrics"
    EVALUATION = "Evaluation data"
    TRAINING = "Training data"
    ANALYSES = "Quantitative analyses"
    ETHICS = "Ethical considerations"
    CAVEATS = "Caveats and recommendations"


Fact = tuple[str, str]
"""What it is about (empty: a sentence that stands by itself), and what is so."""
Facts = Mapping[Part, Sequence[Fact]]


class CardPart(BaseModel):
    """One part of a card; without facts, nobody stated any."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: str
    facts: tuple[Fact, ...]


class Card(BaseModel):
    """A model card or a data card.

    Attributes:
        title: Of what it is.
        parts: In order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: str
    parts: tuple[CardPart, ...]


def model_card(title: str, *found: Facts) -> Card:
    """The card of a model: all nine parts, with what each of ``found`` says about them, in order."""
    parts = []
    for part in Part:
        facts = [fact for facts in found for fact in facts.get(part, ())]
        parts.append(CardPart(title=part.value, facts=tuple(facts)))
    return Card(title=title, parts=tuple(parts))


def as_markdown(card: Card) -> str:
    """The card as a Markdown file; names that came from somebody else can make neither markup nor HTML of it."""
    lines = [f"# {_plain(card.title)}", ""]
    for part in card.parts:
        lines += [f"## {_plain(part.title)}", ""]
        lines += [f"- **{_plain(name)}**: {_plain(said)}" if name else f"- {_plain(said)}" for name, said in part.facts]
        lines += ["" if part.facts else f"{NOT_STATED}\n"]
    return "\n".join(lines).rstrip() + "\n"


def as_markup(card: Card) -> Markup:
    """The card's parts as headings and lists, without its title."""
    return join(*(join(tag("h3", part.title), _facts(part)) for part in card.parts))


def _facts(part: CardPart) -> Markup:
    if not part.facts:
        return tag("p", NOT_STATED, class_="empty")
    return tag(
        "ul", *(tag("li", tag("b", f"{name}: "), said) if name else tag("li", said) for name, said in part.facts)
    )


def _plain(text: str) -> str:
    """Text of which Markdown shows every character as it is; only what looks like markup is escaped."""
    return printable(" ".join(text.split())).translate(_MARKDOWN)
