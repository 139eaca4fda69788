"""The digest of the code that runs here, which a policy can pin: of the installed packages of common and client.

It names what an owner looked at. It is no defence against code that lies about itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import testudo_client
import testudo_common


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256, in hex, of the two packages that this process imports; read once."""
    packages = (testudo_client, testudo_common)
    return digest_of_sources(Path(path) for package in packages for path in package.__path__)


def digest_of_sources(folders: Iterable[Path]) -> str:
    """SHA-256, in hex, over ``package/relative/path NUL digest NUL`` of every ``.py`` file, sorted by path."""
    files = {
        f"{folder.name}/{path.relative_to(folder).as_posix()}": path for folder in folders for path in _sources(folder)
    }
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(name.encode() + b"\0" + hashlib.sha256(files[name].read_bytes()).digest() + b"\0")
    return whole.hexdigest()


def _sources(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*.py") if path.is_file())
