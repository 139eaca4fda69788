"""Two network namespaces with a line between them that can be cut. Needs root; no tests in here."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


def ip(*words: str) -> None:
    """One command of iproute2."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass(frozen=True)
class Line:
    """A line between a server's namespace and an owner's.

    Attributes:
        server: Name of the namespace.
        owner: Name of the other.
        address: Of the server, seen from both.
    """

    server: str
    owner: str
    address: str = "10.77.0.1"

    def cut(self) -> None:
        """As if the cable were pulled out at the owner's."""
        ip("-n", self.owner, "link", "set", "line", "down")

    def mend(self) -> None:
        """And put back."""
        ip("-n", self.owner, "link", "set", "line", "up")


@contextmanager
def line() -> Iterator[Line]:
    """One, as long as the block lasts. Its addresses are in no other namespace."""
    made = Line(f"testudo-s{os.getpid()}", f"testudo-o{os.getpid()}")
    spaces = {made.server: made.address, made.owner: "10.77.0.2"}
    try:
        for space in spaces:
            ip("netns", "add", space)
        ip("link", "add", "line", "netns", made.server, "type", "veth", "peer", "name", "line", "netns", made.owner)
        for space, address in spaces.items():
            ip("-n", space, "address", "add", f"{address}/30", "dev", "line")
            for device in ("lo", "line"):
                ip("-n", space, "link", "set", device, "up")
        yield made
    finally:
        for space in spaces:
            subprocess.run(["ip", "netns", "delete", space], check=False, capture_output=True)


def why_not() -> str:
    """Why there can be none here; empty if there can."""
    if os.geteuid() != 0:
        return "network namespaces and mounts need root"
    if shutil.which("ip") is None:
        return "no iproute2"
    name = f"testudo-t{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
    return "" if tried.returncode == 0 else "network namespaces are not permitted here"


@contextmanager
def small_disk(folder: object, kilobytes: int) -> Iterator[None]:
    """A disk of its own, in memory, for a folder."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=0700", "tmpfs", str(folder)],
        check=True, capture_output=True,
    )  # fmt: skip
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)
