"""Makes secagg-1.json: known answers of secure aggregation, from rounds that our own code runs. No test in here.

All randomness of the operating system is replaced by a stream made from a name, so each run makes the same bytes.

    python tests/vectors/make_secagg.py             writes the file
    python tests/vectors/make_secagg.py --check     exits with status 1 if the file is not what would be written

In the file, bytes are hex, words and field elements are numbers, and keys such as "0-3" are positions in a group: a
pair with the lower one in front, or who sent to whom. What it holds:

``primitives``  Each building block for itself: what goes in and what comes out.
``messages``    One message of each kind: its fields and its bytes.
``rounds``      Whole rounds: what each client knew and drew, and every value that follows from it. ``silent_from`` says
                from which step on a client did not answer. The first round has all shares and messages; the others
                have, for each kind of message, the SHA-256 of all of them behind each other, by rising client id.
                Ciphertexts stand in SharedKeys. Nobody has a share of its own mask key.
``refused``     What must be refused, named by its fault: by the decoder, by a client of the first round ``after`` a
                step of its, by that round's server, or where a share is read. With ``front`` and ``back``, ``bytes``
                replaces what lies between so many bytes of that round's message of this kind. A client says whose
                fault it is where that is ``named``. The server always does, and goes on without that message where a
                cohort of three is enough for it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from testudo_common.secagg.messages import MESSAGES
from testudo_common.secagg.primitives import PROTOCOL
from vectors.secagg_primitives import primitives_of, samples
from vectors.secagg_refused import Refusals
from vectors.secagg_rounds import first_round, round_of, second_round, third_round

VECTORS = Path(__file__).with_name("secagg-1.json")
ABOUT = "Known answers of secure aggregation. tests/vectors/make_secagg.py makes them, and says what stands where."
LINE = 118


def known_answers() -> dict[str, Any]:
    """All that stands in the file."""
    first = first_round()
    shown = [
        {"kind": type(sample).__name__, "fields": sample, "bytes": MESSAGES.encode(sample)} for sample in samples()
    ]
    rounds = [round_of(first, whole=True)]
    rounds += [round_of(trace, whole=False) for trace in (second_round(), third_round())]
    return {
        "about": ABOUT,
        "protocol": PROTOCOL.decode(),
        "primitives": primitives_of(),
        "messages": shown,
        "rounds": rounds,
        "refused": Refusals(first).all(),
    }


def plain(value: Any) -> Any:
    """Bytes as hex, arrays as lists, dataclasses as tables."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    if is_dataclass(value):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    return value


def as_text(value: Any, indent: int = 0) -> str:
    """JSON in which what is short stands on one line: a column of numbers would be hard to read."""
    line = json.dumps(value)
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if len(line) + indent <= LINE or not any(isinstance(item, dict | list | str) for item in items):
        return line
    pad, end = " " * (indent + 1), "\n" + " " * indent
    if isinstance(value, list):
        return "[\n" + ",\n".join(pad + as_text(item, indent + 1) for item in value) + end + "]"
    lines = (f"{pad}{json.dumps(key)}: {as_text(item, indent + 1)}" for key, item in value.items())
    return "{\n" + ",\n".join(lines) + end + "}"


def main(arguments: Sequence[str] | None = None, path: Path = VECTORS) -> int:
    """Write ``path``, or compare it."""
    parser = argparse.ArgumentParser(description="Make the known answers of secure aggregation.")
    parser.add_argument("--check", action="store_true", help="compare with the file instead of writing it")
    check = parser.parse_args(arguments).check
    made = (as_text(plain(known_answers())) + "\n").encode("ascii")
    if not check:
        path.write_bytes(made)
        return 0
    if path.is_file() and path.read_bytes() == made:
        return 0
    print(f"{path.name} is not what the code makes now: run tests/vectors/make_secagg.py and look at the difference")
    return 1


if __name__ == "__main__":
    sys.exit(main())
