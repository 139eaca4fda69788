"""A command line, in a process of its own or in this one."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def process(tmp_path: Path) -> Command:
    """Run one of our commands in ``tmp_path``, in a new interpreter; output and errors are kept apart."""

    def run(name: str, *arguments: str, timeout: float = 240.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", f"testudo_{name}.cli", *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """The same by the same ``main``, but in this process, which has waited for torch and Flower before."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        main = import_module(f"testudo_{name}.cli").main
        out, errors = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", [f"testudo-{name}", *arguments])
            with pytest.raises(SystemExit) as left:
                main()
        code = left.value.code
        assert isinstance(code, int), "a status, as a shell sees it"
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), errors.getvalue())

    yield run
    torch.set_num_threads(threads)
