"""``testudo-client bundle``: the app bundle as this installation makes it, to compare with what a server sends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from testudo_common.app_bundle import app_bundle, bundle_digest
from testudo_common.errors import UsageError
from testudo_common.files import write_atomically


def made_bundle(to: Path | None) -> dict[str, Any]:
    """The bundle, written to a file if one is named; what was made, as JSON has it.

    Raises:
        UsageError: It cannot be made, or not be written.
    """
    bundle = app_bundle()
    if to is not None:
        try:
            write_atomically(to, bundle)
        except OSError as error:
            raise UsageError(
                f"cannot be written: {error.strerror}", where=str(to), remedy="name a file in a folder that is there"
            ) from error
    return {"digest": bundle_digest(), "bytes": len(bundle), "file": None if to is None else str(to)}
