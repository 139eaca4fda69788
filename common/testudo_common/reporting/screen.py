"""A terminal, and how text gets onto it unharmed: no markup, no control characters, only what its encoding has."""

from __future__ import annotations

from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from testudo_common.markup import printable

_ASCII = str.maketrans({"±": "+/-", "−": "-", "–": "-", "·": "-", "…": "..."})


@dataclass(frozen=True, slots=True)
class Screen:
    """A console, and how text gets onto it unharmed."""

    console: Console

    @property
    def ascii_only(self) -> bool:
        """Whether the terminal's encoding lacks the characters that lines and signs are made of."""
        return not self.console.encoding.lower().startswith("utf")

    @property
    def shape(self) -> box.Box:
        """The lines of tables."""
        return box.ASCII2 if self.ascii_only else box.SIMPLE_HEAD

    def text(self, content: str, style: str = "") -> Text:
        """Text that is never markup and has no control characters."""
        clean = printable(content)
        if self.ascii_only:
            encoding = self.console.encoding
            clean = clean.translate(_ASCII).encode(encoding, "replace").decode(encoding)
        return Text(clean, style=style, overflow="fold")

    def rule(self, title: str, *, heavy: bool = False) -> Rule:
        """A line across the screen with a title in it, which is cut where it is too long."""
        room = max(self.console.width - 8, 8)
        cut = title if len(title) <= room else title[: room - 1] + "…"
        drawn = ("=" if heavy else "-") if self.ascii_only else ("━" if heavy else "─")
        return Rule(
            self.text(cut, "bold"), characters=drawn, style="bold" if heavy else "dim",
            align="center" if heavy else "left",
        )  # fmt: skip
