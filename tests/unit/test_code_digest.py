"""The digest of the installed code changes with every source file, and with nothing else."""

from __future__ import annotations

import hashlib
import time
from importlib import metadata
from pathlib import Path

import testudo_client
import testudo_common
from testudo_client.code_digest import code_digest
from testudo_common.code_digest import digest_of_environment, digest_of_sources


def package(folder: Path) -> Path:
    root = folder / "pack"
    (root / "part").mkdir(parents=True)
    (root / "__init__.py").write_text("one = 1\n")
    (root / "part" / "two.py").write_text("two = 2\n")
    return root


def test_by_example(tmp_path: Path) -> None:
    one, two = (hashlib.sha256(text).digest() for text in (b"one = 1\n", b"two = 2\n"))
    whole = b"pack/__init__.py\0" + one + b"\0pack/part/two.py\0" + two + b"\0"
    assert digest_of_sources([package(tmp_path)]) == hashlib.sha256(whole).hexdigest()


def test_every_change_of_a_source_shows(tmp_path: Path) -> None:
    root = package(tmp_path)
    seen = {digest_of_sources([root])}
    (root / "part" / "two.py").write_text("two = 3\n")
    seen.add(digest_of_sources([root]))
    (root / "part" / "two.py").rename(root / "part" / "three.py")
    seen.add(digest_of_sources([root]))
    (root / "new.py").touch()
    seen.add(digest_of_sources([root]))
    assert len(seen) == 4


def test_nothing_else_shows(tmp_path: Path) -> None:
    root = package(tmp_path)
    before = digest_of_sources([root])
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "two.cpython-311.pyc").write_bytes(b"x")
    (root / "notes.txt").write_text("x")
    assert digest_of_sources([root]) == before


def test_of_what_is_imported_here() -> None:
    folders = [Path(module.__file__ or "").parent for module in (testudo_common, testudo_client)]
    assert code_digest() == digest_of_sources(folders)


def test_is_quick() -> None:
    folders = [Path(path) for module in (testudo_common, testudo_client) for path in module.__path__]
    started = time.process_time()
    digest_of_sources(folders)
    assert time.process_time() - started < 0.2


def test_environment_is_every_distribution_in_order() -> None:
    lines = sorted({f"{one.metadata['Name']}=={one.version}\n" for one in metadata.distributions()})
    assert any(line.startswith("pydantic==") for line in lines)
    digest_of_environment.cache_clear()  # Ray, once imported, brings distributions of its own
    assert digest_of_environment() == hashlib.sha256("".join(lines).encode()).hexdigest()
