"""The commands of operator and owner, called in this process as a person would type them; returns what they print."""

from __future__ import annotations

import contextlib
import io
import json
from typing import TYPE_CHECKING, Any

from testudo_common.errors import UsageError

if TYPE_CHECKING:
    import typer


def said(app: typer.Typer, *words: object) -> str:
    """What a command prints on standard output.

    Args:
        app: ``testudo_server.cli.app`` or ``testudo_client.cli.app``.
        words: Of the command line.

    Raises:
        UsageError: It ended with another status than 0.
        TestudoError: What the command itself raises.
    """
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        status = app(args=[str(word) for word in words], standalone_mode=False)
    if isinstance(status, int) and status:
        raise UsageError(f"a command failed: {' '.join(map(str, words[:2]))}\n{text.getvalue()}")
    return text.getvalue()


def answered(app: typer.Typer, *words: object) -> Any:
    """The same with ``--json``, read."""
    return json.loads(said(app, *words, "--json"))
