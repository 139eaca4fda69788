"""The commands that run a federation on real machines. Reads the command line; everything else is elsewhere."""

from __future__ import annotations

import typer


def add_to(app: typer.Typer) -> None:
    """Add them to the program's commands."""
