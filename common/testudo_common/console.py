"""What a command shows while a person waits: a line on standard error that says what is being done. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def working(first: str) -> Iterator[Callable[[str], None]]:
    """A spinner with what is being done, for work of seconds; nothing where standard error is no terminal.

    Args:
        first: What is done first.

    Yields:
        To be called with what is done next.
    """
    from rich.console import Console

    with Console(stderr=True).status(first) as status:
        yield status.update
