"""How every command of ours ends: with its output, or with one clear sentence and a status that is not zero."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from testudo_common.errors import TestudoError

EXIT_FAILED = 1
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130
DEBUG_VARIABLE = "TESTUDO_DEBUG"


def at_a_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty()


def run_command(command: Callable[[], object], *, on_interrupt: str = "Interrupted") -> NoReturn:
    """Run ``command`` and leave the process.

    Args:
        command: A typer application, or anything callable.
        on_interrupt: What to say after Ctrl-C.
    """
    try:
        command()
    except TestudoError as error:
        _say(f"error: {error}")
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        _say(on_interrupt)
        sys.exit(EXIT_INTERRUPTED)
    except SystemExit as leaving:
        if leaving.code == EXIT_INTERRUPTED:  # typer's own end after Ctrl-C
            _say(on_interrupt)
        raise
    except BrokenPipeError:
        # The reader of our output went away, as `head` does: nothing to say, and nowhere to say it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        # Its text could carry data, so only its kind is shown.
        _say(
            f"error: this should not have happened ({type(error).__name__}). Please report it; "
            f"{DEBUG_VARIABLE}=1 shows the traceback, which may hold data"
        )
        sys.exit(EXIT_INTERNAL)
    sys.exit(0)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
