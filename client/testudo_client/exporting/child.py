"""A process that loads one exported file, answers 64 rows and prints the most memory it took, in bytes.

For ``measuring``; by example: ``python -m testudo_client.exporting.child model.onnx 45``.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np

from testudo_client.exporting.files import open_file


def main() -> None:
    """Of the file and input shape on the command line."""
    path, *shape = sys.argv[1:]
    open_file(Path(path))(np.zeros((64, *map(int, shape)), dtype=np.float32))
    unit = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


if __name__ == "__main__":
    main()
