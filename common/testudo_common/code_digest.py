"""What runs here, by digests: of Python sources, and of everything that is installed.

They name what somebody looked at. They are no defence against code that lies about itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import distributions
from pathlib import Path


def digest_of_sources(folders: Iterable[Path]) -> str:
    """SHA-256, in hex, over ``package/relative/path NUL digest NUL`` of every ``.py`` file, sorted by path."""
    files = {
        f"{folder.name}/{path.relative_to(folder).as_posix()}": path for folder in folders for path in _sources(folder)
    }
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(name.encode() + b"\0" + hashlib.sha256(files[name].read_bytes()).digest() + b"\0")
    return whole.hexdigest()


@lru_cache(maxsize=1)
def digest_of_environment() -> str:
    """SHA-256, in hex, over ``name==version`` of all installed distributions, one a line, sorted; read once."""
    lines = {f"{each.metadata['Name']}=={each.version}\n" for each in distributions()}
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _sources(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*.py") if path.is_file())
