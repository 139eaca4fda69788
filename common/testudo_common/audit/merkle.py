"""The Merkle tree of an append-only log: roots and proofs. Knows no entry, no signature and no storage.

    leaf = SHA-256(0x00 | entry),   node = SHA-256(0x01 | left | right),   root of no entries = SHA-256("")

A tree of n leaves splits at the largest power of two below n. Source: RFC 6962, section 2.1 (the same in RFC 9162).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

from testudo_common.errors import AuditError, AuditFault

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """The hash of one entry, 32 bytes."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees, 32 bytes."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The root of a log that grows, in the space of one path: no proofs.

    Args:
        leaves: Hashes of the leaves so far.
    """

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self.size = 0
        self._peaks: list[bytes] = []  # of the complete subtrees, largest first
        for leaf in leaves:
            self.append(leaf)

    def append(self, leaf: bytes) -> None:
        """Add one leaf's hash."""
        size = self.size
        while size & 1:
            leaf = node_hash(self._peaks.pop(), leaf)
            size >>= 1
        self._peaks.append(leaf)
        self.size += 1

    def copy(self) -> Frontier:
        """The same, to be grown apart."""
        other = Frontier()
        other.size, other._peaks = self.size, self._peaks.copy()
        return other

    def root(self) -> bytes:
        """The root, 32 bytes."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in self._peaks[-2::-1]:
            root = node_hash(peak, root)
        return root


class Tree:
    """All leaves of a log, and the hash of every complete subtree: for proofs. 64 bytes a leaf.

    Args:
        leaves: Hashes of the leaves so far.
    """

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]
        for leaf in leaves:
            self.append(leaf)

    def __len__(self) -> int:
        return len(self._levels[0])

    def append(self, leaf: bytes) -> None:
        """Add one leaf's hash."""
        level = 0
        self._levels[0].append(leaf)
        while len(self._levels[level]) % 2 == 0:
            if level + 1 == len(self._levels):
                self._levels.append([])
            left, right = self._levels[level][-2:]
            level += 1
            self._levels[level].append(node_hash(left, right))

    def root(self, size: int | None = None) -> bytes:
        """The root of the first ``size`` leaves, or of all; 32 bytes."""
        size = self._checked(size)
        return EMPTY_ROOT if size == 0 else self._subtree(0, size)

    def inclusion_proof(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """That leaf ``index`` is one of the first ``size``: hashes from the leaf's sibling up to the root's child."""
        size = self._checked(size)
        if not 0 <= index < size:
            raise IndexError(f"leaf {index} of {size}")
        proof: list[bytes] = []
        start, stop = 0, size
        while stop - start > 1:
            middle = start + _split(stop - start)
            if index < middle:
                proof.append(self._subtree(middle, stop))
                stop = middle
            else:
                proof.append(self._subtree(start, middle))
                start = middle
        return tuple(reversed(proof))

    def consistency_proof(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        """That the first ``new`` leaves begin with the first ``old`` ones; empty for the trivial cases."""
        new = self._checked(new)
        if not 0 <= old <= new:
            raise IndexError(f"{old} leaves of {new}")
        if old in (0, new):
            return ()
        proof: list[bytes] = []
        start, stop, whole = 0, new, True  # whole: the old tree is exactly [start, stop) and known to the verifier
        while old != stop:
            middle = start + _split(stop - start)
            if old <= middle:
                proof.append(self._subtree(middle, stop))
                stop = middle
            else:
                proof.append(self._subtree(start, middle))
                start, whole = middle, False
        if not whole:
            proof.append(self._subtree(start, stop))
        return tuple(reversed(proof))

    def _checked(self, size: int | None) -> int:
        size = len(self) if size is None else size
        if not 0 <= size <= len(self):
            raise IndexError(f"{size} leaves of {len(self)}")
        return size

    def _subtree(self, start: int, stop: int) -> bytes:
        """The hash of the leaves from ``start`` to ``stop``, where ``start`` is a multiple of the power above."""
        length = stop - start
        if length & (length - 1) == 0:
            level = length.bit_length() - 1
            return self._levels[level][start >> level]
        middle = start + _split(length)
        return node_hash(self._subtree(start, middle), self._subtree(middle, stop))


def _split(length: int) -> int:
    """The largest power of two below ``length``, which is 2 or more."""
    return 1 << (length - 1).bit_length() - 1


def verify_inclusion(root: bytes, size: int, index: int, leaf: bytes, proof: Sequence[bytes]) -> None:
    """Return only if ``leaf`` is the hash at ``index`` of the ``size`` leaves with that root.

    Raises:
        AuditError: It is not, or the proof is not of the right length.
    """
    if not 0 <= index < size:
        raise _wrong(f"a proof for leaf {index} of {size}", index)
    inner = (index ^ (size - 1)).bit_length()
    border = (index >> inner).bit_count()
    if len(proof) != inner + border or any(len(each) != HASH_BYTES for each in proof):
        raise _wrong(f"an inclusion proof of {len(proof)} hashes where {inner + border} belong", index)
    node = leaf
    for level, sibling in enumerate(proof):
        left = level >= inner or index >> level & 1
        node = node_hash(sibling, node) if left else node_hash(node, sibling)
    if node != root:
        raise _wrong("the inclusion proof does not lead to the root", index)


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Return only if the ``new`` leaves under ``new_root`` begin with the ``old`` ones under ``old_root``.

    Raises:
        AuditError: They do not, or the proof is not of the right length.
    """
    if not 0 <= old <= new:
        raise _wrong(f"a proof that {new} leaves extend {old}")
    if (old == 0 and old_root != EMPTY_ROOT) or (old == new and old_root != new_root):
        raise _wrong("two roots of one size")
    if old in (0, new):
        if proof:
            raise _wrong("a consistency proof where none belongs")
        return
    shift = (old & -old).bit_length() - 1  # the old tree ends in a complete subtree of so many levels
    inner = (old - 1 ^ (new - 1)).bit_length() - shift
    border = (old - 1 >> inner + shift).bit_count()
    given = list(proof) if old & (old - 1) else [old_root, *proof]
    if len(given) != 1 + inner + border or any(len(each) != HASH_BYTES for each in given):
        raise _wrong(f"a consistency proof of {len(proof)} hashes")
    index = old - 1 >> shift
    before = after = given[0]
    for level, sibling in enumerate(given[1:]):
        if level >= inner or index >> level & 1:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
        else:
            after = node_hash(after, sibling)
    if before != old_root:
        raise _wrong("the consistency proof does not lead to the old root")
    if after != new_root:
        raise _wrong("the consistency proof does not lead to the new root")


def _wrong(problem: str, index: int | None = None) -> AuditError:
    return AuditError(AuditFault.PROOF, problem, index=index)
