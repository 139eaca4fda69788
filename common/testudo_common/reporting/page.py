"""The frame of a report's page: one offline HTML document, its sections and figures. No script, nothing loaded."""

from __future__ import annotations

import re

from testudo_common.markup import Markup, join, tag, text
from testudo_common.reporting.drawing import Drawing
from testudo_common.reporting.style import CSS

_BEFORE_A_NUMBER = re.compile(r" (?=[\d.]+$)")


def page(title: str, *body: str) -> str:
    """The whole document. The policy forbids the browser to load or run anything, whatever the page holds."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = join(
        Markup('<meta charset="utf-8">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("title", title),
        tag("style", Markup(CSS)),
    )
    return f"<!DOCTYPE html>\n{tag('html', tag('head', head), tag('body', *body), lang='en')}\n"


def section(title: str, *content: str, anchor: str = "") -> Markup:
    """One section with its title; ``anchor`` is the id that links on the page lead to."""
    named = {"id": anchor} if anchor else {}
    return tag("section", tag("h2", title), *content, **named)


def details(title: str, *content: str) -> Markup:
    """A block that is closed until asked for."""
    return tag("details", tag("summary", title), *content)


def figure(drawing: Drawing | None) -> Markup:
    """A figure with its caption; nothing where there is nothing to draw."""
    if drawing is None:
        return Markup("")
    return tag("figure", tag("div", drawing.svg, tabindex="0"), tag("figcaption", drawing.caption))


def unbroken(sentence: str) -> Markup:
    """Escaped, and no line ends between a number and its percent sign, or before a number at the end."""
    return Markup(_BEFORE_A_NUMBER.sub("&nbsp;", text(sentence).replace(" %", "&nbsp;%")))
