"""How a SuperNode is started: with Flower's own arguments, on loopback, and not at all where it would be open."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode
from typer.testing import CliRunner

from testudo_client.cli import app
from testudo_client.deployment.node import EXIT_REFUSED
from testudo_client.deployment.supernode import arguments_of_flower
from testudo_common.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]


def test_flower_takes_the_arguments(tmp_path: Path) -> None:
    options = argparse.Namespace(secret=tmp_path / "s", port=1234, certificate=tmp_path / "c", key=tmp_path / "k")
    files = {"ca": tmp_path / "ca", "node_key": tmp_path / "n"}
    made = _parse_args_run_supernode().parse_args(arguments_of_flower(options, "door.test:9092", files)[1:])
    assert made.isolation == "process", "it executes nothing"
    assert made.superexec_auth_secret_file == str(tmp_path / "s"), "and gives nothing to who does not know the secret"
    assert (made.host, made.port, made.superlink) == ("127.0.0.1", 1234, "door.test:9092")
    assert not made.insecure and made.ssl_certfile and made.node_config is None
    assert made.runtime_dependency_install is False


def test_without_a_connection_flower_is_not_started(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    ran = subprocess.run(
        [
            sys.executable, "-X", "importtime", "-m", "testudo_client.deployment.supernode", "--folder", str(tmp_path),
            "--port", "1", "--secret", "s", "--certificate", "c", "--key", "k", "--report", str(writing),
            "--parent-pid", str(os.getpid()),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / top) for top in ("common", "client"))},
        pass_fds=(writing,), capture_output=True, text=True, check=False,
    )  # fmt: skip
    os.close(reading)
    os.close(writing)
    assert ran.returncode == EXIT_REFUSED
    (said,) = [line for line in ran.stderr.splitlines() if not line.startswith("import time")]
    assert said.startswith("error: ") and "testudo-client join" in said
    assert " flwr" not in ran.stderr


def test_run_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        CliRunner().invoke(app, ["run", str(tmp_path / "none"), "--plan", "p", "--data", "d"], catch_exceptions=False)
    with pytest.raises(UsageError, match="testudo-client join"):
        CliRunner().invoke(app, ["run", str(tmp_path), "--plan", "p", "--data", "d"], catch_exceptions=False)
