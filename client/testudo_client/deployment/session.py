"""The session of an owner's node at the server, remembered over a kill, so that the node is let in again at once.

Flower lets no node in whose last session has not ended, and one that was killed ends 60 s later. The node may end it
itself: its number is kept here while it lasts. It is only believed on the same start of the same machine, in the same
folder: a copy of the folder must not push out the node that still runs with the original, or two ledgers would be
charged where one has to be.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from testudo_common.files import write_atomically

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class KeptSession:
    """The number of the session that the last node in a folder was given.

    Args:
        file: Where it is kept.
        boot: Tells one start of the machine from another; where it is not there, nothing is remembered.
    """

    def __init__(self, file: Path, boot: Path = _BOOT) -> None:
        self._file, self._boot = file, boot

    def last(self) -> int | None:
        """Of a node that ran here since the machine started, and may not have ended its session."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(self._file.read_text(encoding="ascii"))
            if kept["place"] == self._place():
                return int(kept["node"])
        return None

    def began(self, node: int) -> None:
        """A session has begun; what cannot be kept costs a minute after a kill, and nothing else."""
        with suppress(OSError):
            kept = {"node": node, "place": self._place()}
            write_atomically(self._file, json.dumps(kept).encode(), durable=False)

    def _place(self) -> list[object]:
        folder = self._file.parent.stat()
        return [self._boot.read_text(encoding="ascii").strip(), folder.st_dev, folder.st_ino]
