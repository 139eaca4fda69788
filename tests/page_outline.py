"""What a browser would make of a page: for tests that it loads nothing, runs nothing, and can be read without eyes."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Outline(HTMLParser):
    """Tags left open, ids, and everything that could make a browser load or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.unlabelled: list[str] = []
        self.handlers: list[str] = []
        self.headings: list[int] = []
        self.scopes: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "th":
            self.scopes.append(dict(attrs).get("scope"))
        if tag not in ("meta", "br", "hr"):
            self.open.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(value or "")
            if key in ("src", "href", "xlink:href", "data", "action", "srcset"):
                self.references.append(value or "")
            if key.startswith("on"):
                self.handlers.append(key)
            self.references += re.findall(r"url\(([^)]*)\)", value or "") if key in ("style", "clip-path") else []
        if tag == "svg" and not dict(attrs).get("aria-label"):
            self.unlabelled.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    return parser


def check_page(page: str) -> None:
    """Well formed; no script, no handler, nothing from outside; headings in order, and tables with headers."""
    seen = outline(page)
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page.lower()
    assert "default-src 'none'" in page
    assert not seen.tags & {"script", "link", "iframe", "img", "image", "object", "embed", "base", "form"}
    assert not seen.handlers
    assert seen.references
    assert all(reference.startswith("#") for reference in seen.references)
    assert {reference[1:] for reference in seen.references} <= set(seen.ids)
    assert len(seen.ids) == len(set(seen.ids))
    assert not seen.open
    assert not seen.unlabelled
    assert seen.headings[0] == 1
    assert seen.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(seen.headings, seen.headings[1:], strict=False))
    assert all(scope in {"col", "row"} for scope in seen.scopes)
