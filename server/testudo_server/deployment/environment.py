"""The environment of every Flower process of ours: it reports nothing, fetches nothing and writes into a folder of its
own. To be entered before Flower is imported, since it reads these when it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from testudo_common.files import make_private

_FIXED = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def flower_environment(home: Path, before: Mapping[str, str]) -> dict[str, str]:
    """``before`` with what Flower has to find in it.

    Args:
        home: Flower's own folder.
        before: The environment that it is made from. A proxy in it is not used for this machine's own addresses.
    """
    named = [name for name in before.get("NO_PROXY", before.get("no_proxy", "")).split(",") if name]
    direct = ",".join(dict.fromkeys([*named, *_LOOPBACK]))
    return {**before, **_FIXED, "FLWR_HOME": str(home), "NO_PROXY": direct, "no_proxy": direct}


def enter_flower_environment(home: Path) -> None:
    """Make this process, and those that it starts, work in such an environment; the folder is made."""
    make_private(home)
    os.environ.update(flower_environment(home.resolve(), os.environ))
