"""The app bundle: the same bytes wherever it is made, no code in it, and the app as the repository names it."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from testudo_common import app_bundle as module
from testudo_common.app_bundle import app_bundle, bundle_digest, template_files
from testudo_common.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
KNOWN = "e2cea99ec02c0da80d261ae5ab5444c00e65a1d2861b1a84b76e68a7c00187ed"
"""Pinned by owners: where it changes, the changelog tells them to look at the bundle and to pin the new one."""


def test_digest_that_owners_have_pinned() -> None:
    assert bundle_digest() == KNOWN == hashlib.sha256(app_bundle()).hexdigest()


def test_the_same_bytes_in_another_process_place_and_time(tmp_path: Path) -> None:
    """From a copy with other times and modes, under another directory, umask, time zone, locale and hash seed."""
    package = tmp_path / "installed" / "testudo_common"
    for path in (ROOT / "common" / "testudo_common").rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            copy = package / path.relative_to(ROOT / "common" / "testudo_common")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
            copy.chmod(0o755)
            os.utime(copy, (978307200, 978307200))
    probe = (
        "import os, sys; os.umask(0o077); from testudo_common import app_bundle as it; "
        "sys.stdout.write(it.__file__ + chr(10) + it.bundle_digest())"
    )
    environment = {**os.environ, "TZ": "Pacific/Kiritimati", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    environment["PYTHONPATH"] = str(package.parent)
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    place, digest = done.stdout.splitlines()
    assert Path(place).is_relative_to(package), "it is the copy that was asked"
    assert digest == KNOWN


def test_line_ends_of_another_system_change_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    honest = template_files()
    monkeypatch.setattr(module, "files", lambda _: tmp_path)
    (tmp_path / "app_template").mkdir()
    for name, content in honest.items():
        (tmp_path / "app_template" / name).write_bytes(content.replace(b"\n", b"\r\n"))
    assert template_files() == honest


def test_installation_that_is_not_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "files", lambda _: tmp_path)
    with pytest.raises(UsageError, match="install testudo-fl again"):
        template_files()


def test_it_holds_no_code_and_nothing_compressed() -> None:
    """What is stored as it is depends on no version of a compressor."""
    with zipfile.ZipFile(io.BytesIO(app_bundle())) as bundle:
        names = bundle.namelist()
        assert sorted(names) == [".info/CONTENT", "LICENSE", "README.md", "pyproject.toml"]
        assert {entry.compress_type for entry in bundle.infolist()} == {zipfile.ZIP_STORED}
        assert {entry.date_time[:3] for entry in bundle.infolist()} == {(2024, 10, 1)}
        project = tomllib.loads(bundle.read("pyproject.toml").decode())
        assert bundle.read("LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert project["project"]["dependencies"] == []
    assert "build-system" not in project


def test_flower_takes_it() -> None:
    from flwr.cli.config_utils import get_fab_config, get_metadata_from_config

    config = get_fab_config(app_bundle())
    assert get_metadata_from_config(config) == ("testudo/testudo", "1.0.0")


def test_the_repository_and_the_template_name_the_same_app() -> None:
    repository = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    template = tomllib.loads(template_files()["pyproject.toml"].decode())
    assert template["tool"]["flwr"] == repository["tool"]["flwr"]
    for name, place in template["tool"]["flwr"]["app"]["components"].items():
        package, _, attribute = place.partition(":")
        assert (package, attribute) == (f"testudo_{name.removesuffix('app')}.app", "app")


def test_the_template_is_installed_with_the_package() -> None:
    """What a wheel takes: everything below the packages that is in version control."""
    repository = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = repository["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "common/testudo_common" in wheel["packages"]
    assert not {"exclude", "only-include", "include", "artifacts"} & set(wheel)
