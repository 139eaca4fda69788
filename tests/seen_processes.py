"""What the system tells of running processes: children, sockets they listen on, whether they are there. No tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_SECONDS = 120.0


def until(true: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until it is true; not for ever."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, f"not in time: {what}"
        time.sleep(0.05)


def running(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def children_of(pid: int) -> dict[str, int]:
    """Which of a server's or a node's processes -> its number."""
    names = {"superlink_process": "superlink", "deployment.door": "door", "deployment.supernode": "supernode"}
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            command = (path / "cmdline").read_bytes().decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid:
            found.update({name: int(path.name) for module, name in names.items() if module in command})
    return found


def listening_addresses(pid: int) -> set[str]:
    """Host and port, in the kernel's notation, of every socket that a process listens on, of either family."""
    links = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {link[8:-1] for link in links if link.startswith("socket:")}
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return {line[1] for line in lines if line[3] == "0A" and line[9] in inodes}


def loopback_ports(pid: int) -> set[int]:
    """Ports that a process listens on; fails if anything but IPv4's loopback can reach one."""
    addresses = listening_addresses(pid)
    assert all(address.startswith("0100007F:") for address in addresses), addresses
    return {int(address.partition(":")[2], 16) for address in addresses}
