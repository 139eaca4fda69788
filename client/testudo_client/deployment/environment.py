"""The environment of a Flower process at the owner: tells nobody, installs nothing, goes through no proxy by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

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
        use_proxies: Whether the owner wants connections to the server to go through the proxies it names. Loopback
            never does.
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
