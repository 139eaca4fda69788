"""Documents as files that people hand each other. Verifies nothing."""

from __future__ import annotations

from pathlib import Path

from testudo_common.errors import UsageError
from testudo_common.files import write_atomically
from testudo_common.provisioning.documents import MAX_ANSWER_BYTES
from testudo_common.provisioning.signed_json import MAX_DOCUMENT_BYTES


def read_small(path: Path, max_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
    """What is in ``path``, and a byte more than the bound where it is larger: a document that large is refused.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path), remedy="check the path") from error


def read_answer(path: Path) -> bytes:
    """As :func:`read_small`, with room for a roster.

    Raises:
        UsageError: It cannot be read.
    """
    return read_small(path, MAX_ANSWER_BYTES)


def hand_out(path: Path, data: bytes) -> None:
    """Write a document where a person wants it; the same one may lie there, nothing else is overwritten.

    Raises:
        UsageError: There is another file, or it cannot be written.
    """
    try:
        if path.exists():
            if path.read_bytes() != data:
                raise UsageError(
                    "there is another file, and it is not overwritten",
                    where=str(path),
                    remedy="name another file, or move that one away",
                )
            return
        write_atomically(path, data)
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", where=str(path), remedy="name another file") from error
