"""The commands of operator and owner, called in this process as a person would type them; returns what they print."""

from __future__ import annotations

import contextlib
import io
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer


def said(app: typer.Typer, *words: object) -> str:
    """What a command prints on standard output. Raises what it raises.

    Args:
        app: ``testudo_server.cli.app`` or ``testudo_client.cli.app``.
        words: Of the command line.
    """
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        app(args=[str(word) for word in words], standalone_mode=False)
    return text.getvalue()


def answered(app: typer.Typer, *words: object) -> Any:
    """The same with ``--json``, read."""
    return json.loads(said(app, *words, "--json"))
