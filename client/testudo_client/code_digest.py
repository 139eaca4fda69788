"""The digest of the code that runs here, which a policy can pin: of the installed packages of common and client.

It names what an owner looked at. It is no defence against code that lies about itself.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import testudo_client
import testudo_common
from testudo_common.code_digest import digest_of_sources


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256, in hex, of the two packages that this process imports; read once."""
    packages = (testudo_client, testudo_common)
    return digest_of_sources(Path(path) for package in packages for path in package.__path__)
