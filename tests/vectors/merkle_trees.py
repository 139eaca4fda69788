"""The tree of eight leaves that certificate logs are tested with: its roots and proofs, and every way to spoil a proof.

Source: transparency-dev/merkle (Apache-2.0), proof/verify_test.go, first published with RFC 6962's reference code;
values copied, and the ways to spoil a proof written anew from their names there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

LEAVES = tuple(
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
)
EMPTY_ROOT = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
ROOTS = tuple(
    bytes.fromhex(root)
    for root in (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
)
"""Of the first leaf, the first two, and so on."""
SOME_HASH = bytes.fromhex("abacaba000000000000000000000000000000000000000000060061e00123456")
WRAPPED = 1 << 64
"""What one below 0 is to a program that counts with 64 bits."""


@dataclass(frozen=True)
class Inclusion:
    """A proof that a leaf is in a tree."""

    index: int
    size: int
    root: bytes
    leaf: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Consistency:
    """A proof that one tree begins with another."""

    old: int
    new: int
    old_root: bytes
    new_root: bytes
    proof: tuple[bytes, ...]


def _hashes(*hexadecimal: str) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(each) for each in hexadecimal)


INCLUSION_PATHS: dict[tuple[int, int], tuple[bytes, ...]] = {
    (0, 1): (),
    (0, 8): _hashes(
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (5, 8): _hashes(
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 3): _hashes("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
    (1, 5): _hashes(
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
}
"""Leaf's index and tree's size -> proof."""
CONSISTENCY_PATHS: dict[tuple[int, int], tuple[bytes, ...]] = {
    (1, 1): (),
    (1, 8): INCLUSION_PATHS[0, 8],
    (6, 8): _hashes(
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 5): _hashes(
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
    (6, 7): _hashes(
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
}
"""Old and new size -> proof."""


def spoilt_inclusions(good: Inclusion) -> Iterator[tuple[str, Inclusion]]:
    """Every way to spoil it, by its published name."""
    proof = good.proof
    yield "leafIndex - 1", replace(good, index=(good.index - 1) % WRAPPED)
    yield "leafIndex - 1, below 0", replace(good, index=good.index - 1 - good.size)
    yield "leafIndex + 1", replace(good, index=good.index + 1)
    yield "leafIndex ^ 2", replace(good, index=good.index ^ 2)
    yield "treeSize * 2", replace(good, size=good.size * 2)
    yield "treeSize / 2", replace(good, size=good.size // 2)
    yield "wrong leaf", replace(good, leaf=b"WrongLeaf")
    yield "empty root", replace(good, root=EMPTY_ROOT)
    yield "random root", replace(good, root=SOME_HASH)
    yield "trailing garbage", replace(good, proof=(*proof, b""))
    yield "trailing root", replace(good, proof=(*proof, good.root))
    yield "preceding garbage", replace(good, proof=(b"", *proof))
    yield "preceding root", replace(good, proof=(good.root, *proof))
    for place in range(len(proof)):
        yield f"modified proof[{place}] bit 3", replace(good, proof=_flipped(proof, place, 8))
    if proof:
        yield "removed component", replace(good, proof=proof[:-1])
    if len(proof) > 1:
        yield "inserted component", replace(good, proof=(proof[0], SOME_HASH, *proof[1:]))


def spoilt_consistencies(good: Consistency) -> Iterator[tuple[str, Consistency]]:
    """Every way to spoil it, by its published name; its proof is not empty."""
    proof = good.proof
    yield "size1 - 1", replace(good, old=good.old - 1)
    yield "size1 + 1", replace(good, old=good.old + 1)
    yield "size1 ^ 2", replace(good, old=good.old ^ 2)
    yield "size2 * 2", replace(good, new=good.new * 2)
    yield "size2 / 2", replace(good, new=good.new // 2)
    yield "wrong root1", replace(good, old_root=b"WrongRoot")
    yield "wrong root2", replace(good, new_root=b"WrongRoot")
    yield "swapped roots", replace(good, old_root=good.new_root, new_root=good.old_root)
    yield "empty proof", replace(good, proof=())
    for name, more in (("garbage", b""), ("root1", good.old_root), ("root2", good.new_root)):
        yield f"trailing {name}", replace(good, proof=(*proof, more))
        yield f"preceding {name}", replace(good, proof=(more, *proof))
    yield "preceding proof[0]", replace(good, proof=(proof[0], *proof))
    yield "truncated proof", replace(good, proof=proof[:-1])
    for place in range(len(proof)):
        yield f"modified proof[{place}] bit 4", replace(good, proof=_flipped(proof, place, 16))


def _flipped(proof: tuple[bytes, ...], place: int, bit: int) -> tuple[bytes, ...]:
    changed = bytes([proof[place][0] ^ bit]) + proof[place][1:]
    return (*proof[:place], changed, *proof[place + 1 :])
