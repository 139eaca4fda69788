"""The Merkle tree against a naive one, and against the published vectors of certificate logs, spoilt ones included."""

from __future__ import annotations

import itertools
from hashlib import sha256

import pytest

from testudo_common.audit.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    Frontier,
    Tree,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)
from testudo_common.errors import AuditError, AuditFault
from vectors import merkle_trees
from vectors.merkle_trees import (
    CONSISTENCY_PATHS,
    INCLUSION_PATHS,
    LEAVES,
    ROOTS,
    SOME_HASH,
    WRAPPED,
    Consistency,
    Inclusion,
    spoilt_consistencies,
    spoilt_inclusions,
)

MOST = 40
HASHES = [leaf_hash(b"%d" % number) for number in range(MOST)]


# --- the tree as RFC 6962, section 2.1, has it: slow, recursive, and written from the text alone


def naive_root(leaves: list[bytes]) -> bytes:
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    middle = largest_power_below(len(leaves))
    return sha256(b"\x01" + naive_root(leaves[:middle]) + naive_root(leaves[middle:])).digest()


def naive_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH(m, D[n]) of section 2.1.1."""
    if len(leaves) == 1:
        return []
    middle = largest_power_below(len(leaves))
    if index < middle:
        return [*naive_path(index, leaves[:middle]), naive_root(leaves[middle:])]
    return [*naive_path(index - middle, leaves[middle:]), naive_root(leaves[:middle])]


def naive_proof(old: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF(m, D[n], b) of section 2.1.2."""
    if old == len(leaves):
        return [] if whole else [naive_root(leaves)]
    middle = largest_power_below(len(leaves))
    if old <= middle:
        return [*naive_proof(old, leaves[:middle], whole), naive_root(leaves[middle:])]
    return [*naive_proof(old - middle, leaves[middle:], False), naive_root(leaves[:middle])]


def largest_power_below(length: int) -> int:
    power = 1
    while power * 2 < length:
        power *= 2
    return power


def test_hashes_of_leaves_and_nodes_cannot_be_taken_for_each_other() -> None:
    left, right = leaf_hash(b"left"), leaf_hash(b"right")
    assert leaf_hash(b"left") == sha256(b"\x00left").digest()
    assert node_hash(left, right) == sha256(b"\x01" + left + right).digest()
    assert node_hash(left, right) != leaf_hash(left + right)
    assert len(left) == HASH_BYTES


@pytest.mark.parametrize("size", range(MOST + 1))
def test_every_root_and_every_proof_is_the_naive_trees(size: int) -> None:
    leaves = HASHES[:size]
    tree, frontier = Tree(leaves), Frontier(leaves)
    root = naive_root(leaves)
    assert (len(tree), frontier.size) == (size, size)
    assert tree.root() == frontier.root() == root
    for index in range(size):
        proof = tree.inclusion_proof(index)
        assert list(proof) == naive_path(index, leaves)
        verify_inclusion(root, size, index, leaves[index], proof)
    for old in range(1, size):
        proof = tree.consistency_proof(old)
        assert list(proof) == naive_proof(old, leaves)
        verify_consistency(old, naive_root(leaves[:old]), size, root, proof)
    assert tree.consistency_proof(0) == tree.consistency_proof(size) == ()
    verify_consistency(0, EMPTY_ROOT, size, root, ())
    verify_consistency(size, root, size, root, ())


def test_smaller_trees_are_inside_a_large_one() -> None:
    tree = Tree(HASHES)
    for size in range(1, MOST + 1):
        small = Tree(HASHES[:size])
        assert tree.root(size) == small.root()
        assert tree.inclusion_proof(size // 2, size) == small.inclusion_proof(size // 2)
        assert tree.consistency_proof(size // 3, size) == small.consistency_proof(size // 3)
    assert tree.root(0) == EMPTY_ROOT


@pytest.mark.parametrize("size", range(1, 20))
def test_no_proof_of_one_leaf_holds_for_another(size: int) -> None:
    tree = Tree(HASHES[:size])
    for index, other in itertools.permutations(range(size), 2):
        with pytest.raises(AuditError):
            verify_inclusion(tree.root(), size, other, HASHES[index], tree.inclusion_proof(index))
        with pytest.raises(AuditError):
            verify_inclusion(tree.root(), size, index, HASHES[other], tree.inclusion_proof(index))


@pytest.mark.parametrize("size", range(2, 20))
def test_no_proof_holds_for_a_forked_history(size: int) -> None:
    """Two logs that differ in one leaf: neither is proved to extend the other's beginning."""
    tree = Tree(HASHES[:size])
    for fork, old in itertools.product(range(size), range(1, size)):
        if fork >= old:
            continue
        forked = Tree([*HASHES[:fork], leaf_hash(b"another"), *HASHES[fork + 1 : size]])
        for proof in (tree.consistency_proof(old), forked.consistency_proof(old)):
            with pytest.raises(AuditError) as refused:
                verify_consistency(old, forked.root(old), size, tree.root(), proof)
            assert refused.value.fault is AuditFault.PROOF


def test_frontier_is_copied_apart() -> None:
    one = Frontier(HASHES[:5])
    other = one.copy()
    other.append(HASHES[5])
    assert (one.size, other.size) == (5, 6)
    assert one.root() == naive_root(HASHES[:5])
    assert other.root() == naive_root(HASHES[:6])


@pytest.mark.parametrize(
    ("ask", "words"),
    {
        "index at the size": (lambda tree: tree.inclusion_proof(3), "leaf 3 of 3"),
        "index below 0": (lambda tree: tree.inclusion_proof(-1), "leaf -1 of 3"),
        "size beyond": (lambda tree: tree.inclusion_proof(0, 4), "4 leaves of 3"),
        "root beyond": (lambda tree: tree.root(4), "4 leaves of 3"),
        "root below 0": (lambda tree: tree.root(-1), "-1 leaves of 3"),
        "old beyond new": (lambda tree: tree.consistency_proof(3, 2), "3 leaves of 2"),
        "old below 0": (lambda tree: tree.consistency_proof(-1), "-1 leaves of 3"),
    }.values(),
)
def test_what_the_tree_does_not_have(ask, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(IndexError, match=words):
        ask(Tree(HASHES[:3]))


# --- published vectors


def test_published_roots() -> None:
    assert merkle_trees.EMPTY_ROOT == EMPTY_ROOT == Tree().root() == Frontier().root()
    for size, root in enumerate(ROOTS, 1):
        assert Tree(map(leaf_hash, LEAVES[:size])).root() == root
        assert Frontier(map(leaf_hash, LEAVES[:size])).root() == root


def holds(proof: Inclusion | Consistency) -> None:
    if isinstance(proof, Inclusion):
        verify_inclusion(proof.root, proof.size, proof.index, proof.leaf, proof.proof)
    else:
        verify_consistency(proof.old, proof.old_root, proof.new, proof.new_root, proof.proof)


INCLUSIONS = {
    f"{index} in {size}": Inclusion(index, size, ROOTS[size - 1], leaf_hash(LEAVES[index]), path)
    for (index, size), path in INCLUSION_PATHS.items()
}
CONSISTENCIES = {
    f"{old} to {new}": Consistency(old, new, ROOTS[old - 1], ROOTS[new - 1], path)
    for (old, new), path in CONSISTENCY_PATHS.items()
}
SPOILT = {
    f"{name}, {fault}": spoilt for name, good in INCLUSIONS.items() for fault, spoilt in spoilt_inclusions(good)
} | {
    f"{name}, {fault}": spoilt
    for name, good in CONSISTENCIES.items()
    if good.proof
    for fault, spoilt in spoilt_consistencies(good)
}


@pytest.mark.parametrize("good", INCLUSIONS.values(), ids=INCLUSIONS)
def test_published_inclusion(good: Inclusion) -> None:
    holds(good)
    assert Tree(map(leaf_hash, LEAVES)).inclusion_proof(good.index, good.size) == good.proof


@pytest.mark.parametrize("good", CONSISTENCIES.values(), ids=CONSISTENCIES)
def test_published_consistency(good: Consistency) -> None:
    holds(good)
    assert Tree(map(leaf_hash, LEAVES)).consistency_proof(good.old, good.new) == good.proof


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT)
def test_spoilt_proof(spoilt: Inclusion | Consistency) -> None:
    with pytest.raises(AuditError) as refused:
        holds(spoilt)
    assert refused.value.fault is AuditFault.PROOF


DATA = leaf_hash(b"data")
SINGLE = {  # TestVerifyInclusionSingleEntry
    "leaf of no bytes": Inclusion(0, 1, DATA, b"", ()),
    "root of no bytes": Inclusion(0, 1, b"", DATA, ()),
}
NO_TREE = {  # TestVerifyInclusion
    f"{index} of {size}, {name}": Inclusion(index, size, root, leaf, ())
    for index, size in ((0, 0), (0, 1), (1, 0), (2, 1), (WRAPPED - 1, 1), (-1, 0))
    for name, root, leaf in (
        ("no root", b"", SOME_HASH),
        ("no leaf", EMPTY_ROOT, b""),
        ("root of nothing", EMPTY_ROOT, SOME_HASH),
    )
}
ONE, TWO = b"don't care 1", b"don't care 2"
TRIVIAL = {  # TestVerifyConsistency
    "two roots of 0": Consistency(0, 0, ONE, TWO, ()),
    "two roots of 1": Consistency(1, 1, ONE, TWO, ()),
    "1 to 0": Consistency(1, 0, ONE, TWO, ()),
    "2 to 1": Consistency(2, 1, ONE, TWO, ()),
    "1 to 2 without a proof": Consistency(1, 2, ONE, TWO, ()),
    "0 to 0, another root": Consistency(0, 0, EMPTY_ROOT, TWO, ()),
    "1 to 1, another root": Consistency(1, 1, EMPTY_ROOT, TWO, ()),
    "0 to 0 with a proof": Consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, (EMPTY_ROOT,)),
    "0 to 1 with a proof": Consistency(0, 1, EMPTY_ROOT, EMPTY_ROOT, (EMPTY_ROOT,)),
    "1 to 1 with a proof": Consistency(1, 1, EMPTY_ROOT, EMPTY_ROOT, (EMPTY_ROOT,)),
    # There anything is consistent with nothing; here the root of no leaves is known.
    "0 to 0, not the root of nothing": Consistency(0, 0, ONE, ONE, ()),
    "0 to 1, not the root of nothing": Consistency(0, 1, ONE, TWO, ()),
    "below 0": Consistency(-1, 1, ONE, TWO, ()),
}


@pytest.mark.parametrize("bad", (SINGLE | NO_TREE | TRIVIAL).values(), ids=SINGLE | NO_TREE | TRIVIAL)
def test_trees_of_none_and_one(bad: Inclusion | Consistency) -> None:
    with pytest.raises(AuditError) as refused:
        holds(bad)
    assert refused.value.fault is AuditFault.PROOF


def test_trivial_proofs_that_hold() -> None:
    holds(Inclusion(0, 1, DATA, DATA, ()))
    holds(Consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, ()))
    holds(Consistency(0, 1, EMPTY_ROOT, TWO, ()))
    holds(Consistency(1, 1, TWO, TWO, ()))


def test_a_wrong_proof_names_the_entry() -> None:
    with pytest.raises(AuditError, match="entry 4: the inclusion proof does not lead to the root") as refused:
        verify_inclusion(SOME_HASH, 8, 4, HASHES[4], Tree(HASHES[:8]).inclusion_proof(4))
    assert refused.value.index == 4


def test_an_index_below_0_is_no_way_around_the_size() -> None:
    """Its bits are all ones, so that a path of left siblings alone would do, of a tree of any size."""
    tree = Tree(HASHES[:4])
    with pytest.raises(AuditError, match="leaf -1 of 1"):
        verify_inclusion(tree.root(), 1, -1, HASHES[3], tree.inclusion_proof(3))


def test_huge_trees_are_no_work() -> None:
    """A size costs nobody more than the length of its proof."""
    with pytest.raises(AuditError, match="where 62 belong"):
        verify_inclusion(SOME_HASH, 1 << 62, 0, SOME_HASH, ())
    with pytest.raises(AuditError, match="a consistency proof of 0 hashes"):
        verify_consistency((1 << 62) - 1, SOME_HASH, 1 << 62, SOME_HASH, ())
