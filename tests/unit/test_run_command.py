"""How every command ends: its exit status, one sentence, and never a traceback that could hold data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from testudo_common import files
from testudo_common.commands import (
    DEBUG_VARIABLE,
    EXIT_FAILED,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    run_command,
)
from testudo_common.errors import Fault, PlanError, UsageError
from testudo_common.files import write_atomically


@pytest.fixture(autouse=True)
def no_debugging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DEBUG_VARIABLE, raising=False)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # typer sets its own


def status_of(command: Callable[[], object], on_interrupt: str = "Stopped; go on with --resume") -> object:
    with pytest.raises(SystemExit) as ended:
        run_command(command, on_interrupt=on_interrupt)
    return ended.value.code


def raising(error: BaseException) -> Callable[[], object]:
    def command() -> None:
        raise error

    return command


def as_typer_application(command: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setattr(sys, "argv", ["testudo-test"])
    application = typer.Typer(add_completion=False)
    application.command()(command)
    return application


@pytest.fixture(params=["function", "typer"])
def ending(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """``status_of`` for a bare function, and for the same inside a typer application as ours are."""

    def end(command: Callable[[], object]) -> object:
        if request.param == "typer":
            return status_of(as_typer_application(command, monkeypatch))
        return status_of(command)

    return end


def test_statuses_are_what_is_documented() -> None:
    assert (EXIT_FAILED, EXIT_INTERRUPTED, EXIT_INTERNAL) == (1, 130, 70)


def test_success(ending: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(lambda: print("done")) == 0
    assert capsys.readouterr() == ("done\n", "")


def test_own_error_is_one_sentence(ending: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(raising(UsageError("no such file", where="--data x", remedy="Check it"))) == 1
    assert capsys.readouterr() == ("", "error: --data x: no such file. Check it\n")


def test_faults_of_a_plan_are_all_shown(capsys: pytest.CaptureFixture[str]) -> None:
    faults = [Fault("a", "wrong", "Do this"), Fault("b", "wrong", "Do that")]
    assert status_of(raising(PlanError(faults, source="plan.toml"))) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: plan.toml: 2 faults in the plan",
        "  - a: wrong. Do this",
        "  - b: wrong. Do that",
    ]


def test_interrupt_says_how_to_go_on(ending: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "Stopped; go on with --resume\n")


def test_unexpected_error_shows_its_kind_and_not_its_text(
    ending: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(raising(ValueError("could not convert 'secret 123'"))) == 70
    out, err = capsys.readouterr()
    assert out == ""
    assert "ValueError" in err
    assert DEBUG_VARIABLE in err
    assert len(err.splitlines()) == 1
    assert "secret" not in err
    assert "Traceback" not in err


def test_error_below_an_own_error_stays_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        try:
            raise ValueError("secret 123")
        except ValueError as error:
            raise UsageError("it does not fit") from error

    assert status_of(command) == 1
    assert capsys.readouterr().err == "error: it does not fit\n"


def test_debugging_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEBUG_VARIABLE, "1")
    with pytest.raises(ValueError, match="secret 123"):
        run_command(raising(ValueError("secret 123")))


@pytest.mark.parametrize("status", [0, 2, 3])
def test_own_exit_status_stays(status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(raising(SystemExit(status))) == status
    assert capsys.readouterr().err == ""


def test_usage_errors_are_typers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    application = as_typer_application(lambda: None, monkeypatch)
    monkeypatch.setattr(sys, "argv", ["testudo-test", "--no-such-option"])
    assert status_of(application) == 2
    assert "--no-such-option" in capsys.readouterr().err


PROGRAM = """
import sys
from testudo_common.commands import run_command
def command():
    {body}
run_command(command)
"""


def process(body: str, **environment: str) -> subprocess.Popen[str]:
    common = str(Path(files.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        env={"PYTHONPATH": common, "PATH": "/usr/bin:/bin", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_debugging_shows_the_traceback() -> None:
    for environment, shown in [({}, False), ({DEBUG_VARIABLE: "1"}, True)]:
        ran = process("raise ValueError('secret ' + '123')", **environment)
        _, err = ran.communicate(timeout=30)
        assert ("secret 123" in err) == ("Traceback" in err) == shown
        assert ran.returncode == (1 if shown else 70)


def test_reader_that_goes_away() -> None:
    ran = process("[print('x' * 1000, flush=True) for _ in range(10_000)]")
    assert ran.stdout is not None
    assert ran.stderr is not None
    ran.stdout.readline()
    ran.stdout.close()
    assert ran.stderr.read() == ""
    assert ran.wait(timeout=30) == 1


# --- files, whole or not at all


@pytest.mark.parametrize("durable", [True, False])
def test_file_is_replaced(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "new" / "file"
    for data in (b"old", b"", b"newer and longer"):
        write_atomically(path, data, durable=durable)
        assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_old_file_stays_when_the_new_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(*((Path, "replace") if failing == "replace" else ("os.fsync",)), fail)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_new_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    seen: list[bytes] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: seen.append(path.read_bytes()))
    write_atomically(path, b"new")
    assert seen == [b"old", b"new"], "the file under another name, then the folder"
