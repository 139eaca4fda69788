"""``testudo-server init`` and ``check``, as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers import make_plan
from testudo_common.errors import KeyFileError, TestudoError, UsageError
from testudo_common.plan.load import dump_plan
from testudo_server.cli import app
from testudo_server.roster import keys_in, roster_in


def said(*words: str | Path) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(done.exception, TestudoError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(("kind", "begins"), [(None, "01"), ("ed25519", "01"), ("ml-dsa-44", "06")])
def test_federation_gets_the_logs_key(tmp_path: Path, kind: str | None, begins: str) -> None:
    words = ["init", tmp_path / "shops", "--federation", "shops", "--host", "localhost", "--json"]
    found = json.loads(said(*words, *([] if kind is None else ["--log-key", kind])))
    assert roster_in(tmp_path / "shops").log.hex().startswith(begins)
    assert keys_in(tmp_path / "shops").roster == roster_in(tmp_path / "shops")
    assert json.loads(said(*words)) == found, "it stays as it is"


def test_another_kind_of_log_key_is_refused(tmp_path: Path) -> None:
    folder, words = tmp_path / "shops", ["--federation", "shops", "--host", "localhost", "--log-key"]
    with pytest.raises(UsageError, match=r"'rsa' is no kind of key"):
        said("init", folder, *words, "rsa")
    assert not folder.exists()
    said("init", folder, *words, "ed25519")
    with pytest.raises(KeyFileError, match="there is a key of kind ed25519 already"):
        said("init", folder, *words, "ml-dsa-44")


def test_check_tells_what_the_log_withstands(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(dump_plan(make_plan("audit.mode=log")))
    found = json.loads(said("check", plan, "--clients", "12", "--json"))
    assert found["owners_that_have_to_cosign"] == 9
    lines = said("check", plan, "--clients", "12")
    assert "owners that may be absent" in lines
    assert "owners that may collude in two views" in lines
    assert "bytes down of the log about" in lines
