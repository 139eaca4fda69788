"""A process that loads one exported file, answers 64 rows and prints the most memory it took, in bytes.

For ``measuring``; by example: ``python -m testudo_client.exporting.child model.onnx 45``.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np

from testudo_client.exporting.files import open_file

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Of this process. Linux keeps ``ru_maxrss`` across ``exec``, so that there it would be the parent's."""
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Of the file and input shape on the command line."""
    path, *shape = sys.argv[1:]
    open_file(Path(path))(np.zeros((64, *map(int, shape)), dtype=np.float32))
    print(peak_bytes())


if __name__ == "__main__":
    main()
