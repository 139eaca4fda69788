"""Progress bars for runs: one a run, with what it is doing, rounds, rate and time left, on standard error."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Rate(ProgressColumn):
    """Steps a second of the present activity."""

    def render(self, task: Task) -> Text:
        """Draw it."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="dim")


class JobProgress:
    """A bar for each job; a context manager, so that the screen is left as it was found.

    Args:
        titles: One a job.
    """

    def __init__(self, titles: list[str]) -> None:
        self._progress = Progress(
            TextColumn("{task.fields[title]}"),
            TextColumn("[dim]{task.fields[what]}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._tasks = [self._progress.add_task("", title=title, what="waiting", total=None) for title in titles]
        self._titles = titles
        self._doing = ["" for _ in titles]

    def __enter__(self) -> JobProgress:
        self._progress.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, number: int, what: str, done: int, total: int) -> None:
        """Job ``number`` has done ``done`` of ``total`` steps of ``what``."""
        task = self._tasks[number]
        if what != self._doing[number]:
            self._doing[number] = what
            self._progress.reset(task, total=total, completed=done, what=what, title=self._titles[number])
        self._progress.update(task, completed=done, total=total, what=what)
