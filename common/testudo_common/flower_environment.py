"""The environment of our Flower processes: it tells nobody, installs nothing, and writes into a folder of its own.

Nor does it go through a proxy by itself. Imports nothing of Flower, which reads these variables when it is imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from testudo_common.files import make_private

PROXIES = ("http_proxy", "https_proxy", "all_proxy")
LOOPBACK = "127.0.0.1,localhost,::1"


def proxies_in(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the variables that would send a connection through a proxy."""
    return tuple(sorted(name for name, value in environment.items() if name.lower() in PROXIES and value))


def flower_environment(environment: Mapping[str, str], flower_home: Path, *, use_proxies: bool) -> dict[str, str]:
    """``environment`` as a Flower process of ours gets it.

    Args:
        environment: Of this process.
        flower_home: A private folder.
        use_proxies: Whether the proxies that it names stay in it. Loopback never goes through one.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if not name.startswith("FLWR_") and (use_proxies or name.lower() not in PROXIES) and name.lower() != "no_proxy"
    }
    excepted = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    no_proxy = ",".join(filter(None, (excepted, LOOPBACK)))
    return {
        **kept,
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "FLWR_HOME": str(flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }


def enter_flower_environment(home: Path) -> None:
    """Make this process, and those that it starts, work in such an environment; the folder is made."""
    make_private(home)
    os.environ.update(flower_environment(os.environ, home.resolve(), use_proxies=True))
