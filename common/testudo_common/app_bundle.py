"""The app bundle that Flower (1.41) wants of every run, made anew from a template in this package. Holds no code.

Flower stores it and hands it on; nobody runs anything out of it. It is made by Flower's own function, which writes the
files sorted, uncompressed and with one fixed date, so that its bytes depend on nothing but the template: whoever has
the same release can make it again and compare.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.resources import files

from testudo_common.errors import UsageError

_TEMPLATE = "app_template"
_FILES = ("pyproject.toml", "README.md", "LICENSE")


def template_files() -> dict[str, bytes]:
    """Name -> content of every file that the bundle is made from, with the line ends of POSIX.

    Raises:
        UsageError: The installation is not whole.
    """
    folder = files(__package__) / _TEMPLATE
    try:
        return {name: (folder / name).read_bytes().replace(b"\r\n", b"\n") for name in _FILES}
    except OSError as error:
        raise UsageError(
            f"the template of the app bundle cannot be read: {error.strerror}",
            where=_TEMPLATE,
            remedy="install testudo-fl again",
        ) from error


@lru_cache(maxsize=1)
def app_bundle() -> bytes:
    """The bundle's bytes, as a SuperLink takes them.

    Raises:
        UsageError: The installation is not whole.
    """
    from flwr.cli.build import build_fab_from_files

    bundle, _ = build_fab_from_files(template_files())
    return bundle


def bundle_digest() -> str:
    """SHA-256 of :func:`app_bundle`, in hex: what Flower calls the bundle's hash, and a policy pins.

    Raises:
        UsageError: The installation is not whole.
    """
    return hashlib.sha256(app_bundle()).hexdigest()
