"""The commands by which a data owner joins a federation. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

import typer


def add_to(app: typer.Typer) -> None:
    """Add them to the program's commands."""
