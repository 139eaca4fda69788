"""HTML built so that nothing is left unescaped: text is, unless it already is ``Markup``. No templates."""

from __future__ import annotations

from html import escape

VOID = frozenset({"meta", "br", "hr"})
FEW_COLUMNS = 3  # a table of no more is as wide as it needs, so that a row can be followed


class Markup(str):
    """Text that is HTML already. Made by ``tag`` and ``join``, and by hand only of constants."""

    __slots__ = ()


def printable(value: str) -> str:
    """The text without control, bidirectional and other invisible characters, which names could carry."""
    return "".join(character if character.isprintable() else "\ufffd" for character in value)


def text(value: str) -> Markup:
    """Escaped, and without control or bidirectional characters; what is Markup stays as it is."""
    return value if isinstance(value, Markup) else Markup(escape(printable(value)))


def block(value: str) -> Markup:
    """Escaped text of several lines, such as JSON."""
    return Markup("\n".join(text(line) for line in value.split("\n")))


def join(*parts: str) -> Markup:
    """One after the other, each escaped."""
    return Markup("".join(text(part) for part in parts))


def tag(name: str, /, *children: str, **attributes: str) -> Markup:
    """One element.

    Args:
        name: Of the element, a constant.
        children: Text, escaped here, or Markup.
        attributes: Values are escaped; ``class_`` stands for ``class`` and ``aria_label`` for ``aria-label``.
    """
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(printable(value))}"' for key, value in attributes.items()
    )
    if name in VOID:
        return Markup(f"<{name}{pairs}>")
    return Markup(f"<{name}{pairs}>{join(*children)}</{name}>")


def table(head: list[str], rows: list[list[str]], *, caption: str, numbers: range | None = None) -> Markup:
    """A table that scrolls sideways on a narrow screen.

    Args:
        head: Column titles.
        rows: Cells; the first of a row is its title.
        caption: What the table shows.
        numbers: Columns aligned to the right; None: all but the first.
    """
    right = range(1, len(head)) if numbers is None else numbers

    def cell(kind: str, column: int, content: str, **attributes: str) -> Markup:
        if column in right:
            attributes["class_"] = "number"
        return tag(kind, content, **attributes)

    top = join(*(cell("th", i, title, scope="col") for i, title in enumerate(head)))
    body = [
        tag("tr", tag("th", row[0], scope="row"), *(cell("td", i, one) for i, one in enumerate(row[1:], 1)))
        for row in rows
    ]
    inner = join(tag("caption", caption), tag("thead", tag("tr", top)), tag("tbody", *body))
    of_few = {"class_": "narrow"} if len(head) <= FEW_COLUMNS else {}
    return tag("div", tag("table", inner, **of_few), class_="wide", role="region", tabindex="0", aria_label=caption)
