"""The audit log's parts on anything: proofs, forms in bytes, and a log against a list."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_logs import AuditLogBuilder, audited_plan
from testudo_common.audit.checkpoints import Checkpoint, cosigners_of, open_checkpoint, parse_checkpoint
from testudo_common.audit.entries import (
    AnyEntry,
    Evaluation,
    GroupsDrawn,
    Incident,
    IncidentKind,
    Reason,
    RoundOpened,
    UpdateReceived,
    UpdatesRejected,
    decode_entry,
    encode_entry,
)
from testudo_common.audit.extension import (
    decode_extension,
    decode_testimony,
    encode_extension,
)
from testudo_common.audit.log import AuditLog
from testudo_common.audit.merkle import Frontier, Tree, leaf_hash, verify_consistency, verify_inclusion
from testudo_common.audit.notes import Note, NoteSignature, parse_line, parse_note, parse_vkey
from testudo_common.audit.receipts import Receipt, decode_receipt, receipt_for, verify_receipt
from testudo_common.audit.statements import (
    Approval,
    Contribution,
    Withdrawal,
    canonical_words,
    encode_statement,
    parse_statement,
)
from testudo_common.errors import AuditError

LOG = AuditLogBuilder(audited_plan(), 4)
LOG.rounds(2)
HASHES = [leaf_hash(b"%d" % number) for number in range(300)]
TREE = Tree(HASHES)
hashes = st.binary(min_size=32, max_size=32)


# --- the tree


@given(st.lists(hashes, max_size=130))
def test_frontier_is_the_trees_root(leaves: list[bytes]) -> None:
    frontier, tree = Frontier(), Tree()
    for leaf in leaves:
        frontier.append(leaf)
        tree.append(leaf)
    assert frontier.root() == tree.root() == Tree(leaves).root()
    assert frontier.size == len(tree) == len(leaves)


@given(st.data())
def test_an_inclusion_holds_and_no_byte_of_it_is_idle(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, size - 1))
    proof = list(TREE.inclusion_proof(index, size))
    verify_inclusion(TREE.root(size), size, index, HASHES[index], proof)
    place = data.draw(st.integers(0, len(proof)))
    changed = [HASHES[index], *proof]
    changed[place] = flipped(data, changed[place])
    with pytest.raises(AuditError):
        verify_inclusion(TREE.root(size), size, index, changed[0], changed[1:])
    with pytest.raises(AuditError):
        verify_inclusion(flipped(data, TREE.root(size)), size, index, HASHES[index], proof)


@given(st.data())
def test_consistency_composes_and_no_byte_of_it_is_idle(data: st.DataObject) -> None:
    first, second, third = sorted(data.draw(st.lists(st.integers(0, 300), min_size=3, max_size=3)))
    for old, new in ((first, second), (second, third), (first, third)):
        proof = list(TREE.consistency_proof(old, new))
        verify_consistency(old, TREE.root(old), new, TREE.root(new), proof)
        if not proof:
            continue
        place = data.draw(st.integers(0, len(proof) - 1))
        spoilt = [*proof[:place], flipped(data, proof[place]), *proof[place + 1 :]]
        for roots, hashes_given in (
            ((TREE.root(old), TREE.root(new)), spoilt),
            ((flipped(data, TREE.root(old)), TREE.root(new)), proof),
            ((TREE.root(old), flipped(data, TREE.root(new))), proof),
        ):
            with pytest.raises(AuditError):
                verify_consistency(old, roots[0], new, roots[1], hashes_given)


@given(st.integers(2, 60), st.data())
def test_reordered_truncated_or_forked_is_another_root(size: int, data: st.DataObject) -> None:
    leaves = HASHES[:size]
    one, other = sorted(data.draw(st.lists(st.integers(0, size - 1), min_size=2, max_size=2, unique=True)))
    reordered = leaves.copy()
    reordered[one], reordered[other] = reordered[other], reordered[one]
    forked = [*leaves[:one], HASHES[-1], *leaves[one + 1 :]]
    roots = [Tree(each).root() for each in (leaves, reordered, leaves[:other], forked, [*leaves, HASHES[-1]])]
    assert len(set(roots)) == len(roots)


def flipped(data: st.DataObject, value: bytes) -> bytes:
    """One bit of it."""
    place = data.draw(st.integers(0, 8 * len(value) - 1))
    changed = bytearray(value)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


# --- one form in bytes


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
counts = st.integers(0, (1 << 31) - 1)
rounds = st.integers(1, (1 << 31) - 1)
clients = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=20)
times = st.datetimes().map(lambda moment: moment.strftime("%Y").zfill(4) + moment.strftime("-%m-%dT%H:%M:%SZ"))
floats = st.floats(allow_nan=False, allow_infinity=False)
names = st.lists(clients, max_size=4).map(tuple)
metrics = st.dictionaries(text, st.dictionaries(text, floats, max_size=3), max_size=2)
contributions = st.builds(
    Contribution, client=clients, round=rounds, attempt=counts, commitment=digests, ledger=digests
)
statements = st.one_of(
    contributions,
    st.builds(Approval, client=clients, number=counts),
    st.builds(Withdrawal, client=clients, number=counts),
)
entries: st.SearchStrategy[AnyEntry] = st.one_of(
    st.builds(
        RoundOpened,
        time=times,
        round=rounds,
        attempt=counts,
        model_digest=digests,
        cohort=names,
        barred=names,
        clip=st.none() | floats,
    ),
    st.builds(GroupsDrawn, time=times, round=rounds, attempt=counts, coin=digests, groups=st.lists(names).map(tuple)),
    st.builds(UpdateReceived, time=times, statement=contributions),
    st.builds(
        UpdatesRejected,
        time=times,
        round=rounds,
        attempt=counts,
        clients=st.dictionaries(clients, st.sampled_from(Reason), max_size=4),
    ),
    st.builds(Evaluation, time=times, round=rounds, metrics=metrics, noise=metrics),
    st.builds(Incident, time=times, kind=st.sampled_from(IncidentKind), round=st.none() | counts, note=text),
)


@given(entries)
def test_entries_come_back(entry: AnyEntry) -> None:
    data = encode_entry(entry)
    assert decode_entry(data) == entry
    assert data == rfc8785.dumps(entry.model_dump(mode="json"))
    assert b"\n" not in data, "an extension has one a line"


@given(statements)
def test_statements_come_back(statement: Any) -> None:
    assert parse_statement(encode_statement(statement)) == statement


@given(
    st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=5), text | counts | st.lists(text) | st.none())
)
def test_canonical_words_are_rfc_8785(value: dict[str, Any]) -> None:
    assert canonical_words(value) == rfc8785.dumps(value)


@given(st.lists(entries.map(encode_entry), max_size=4), st.booleans())
def test_extensions_come_back(lines: list[bytes], earlier: bool) -> None:
    data = encode_extension(lines, LOG.note(), LOG.note(2) if earlier else b"")
    found = decode_extension(data)
    assert (list(found.entries), found.note) == (lines, LOG.note())
    assert encode_extension(found.entries, found.note, found.cosigned) == data


@given(
    st.builds(
        Receipt,
        entry=st.binary(min_size=1, max_size=50),
        index=st.integers(0, 10**18 - 1),
        proof=st.lists(hashes, max_size=64).map(tuple),
        note=st.binary(max_size=50),
    )
)
def test_receipts_come_back(receipt: Receipt) -> None:
    assert decode_receipt(receipt.encode()) == receipt


@given(
    st.lists(text.map(lambda line: "".join(each for each in line if each >= " ")), min_size=1).filter(any),
    st.lists(
        st.builds(
            NoteSignature,
            st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9),
            st.binary(min_size=5, max_size=90),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_notes_come_back(lines: list[str], signatures: list[NoteSignature]) -> None:
    note = Note("\n".join(lines) + "\n", tuple(signatures))
    assert parse_note(note.encode()) == note


@given(
    st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=40),
    st.integers(0, 10**18 - 1),
    hashes,
)
def test_checkpoints_come_back(origin: str, size: int, root: bytes) -> None:
    checkpoint = Checkpoint(origin, size, root)
    assert parse_checkpoint(checkpoint.text()) == checkpoint


# --- anything else


NOTE = LOG.note()
MIRROR = AuditLog(None)
MIRROR.append(LOG.entries, NOTE)
RECEIPT = receipt_for(MIRROR, 9)
CONTRIBUTION = next(entry.statement for data in LOG.entries if isinstance(entry := decode_entry(data), UpdateReceived))
PARSERS: dict[str, tuple[Callable[[bytes], Any], Callable[[Any], bytes], bytes]] = {
    "entry": (decode_entry, encode_entry, LOG.entries[-1]),
    "statement": (
        parse_statement,
        lambda statement: encode_statement(statement).encode(),
        encode_statement(CONTRIBUTION).encode(),
    ),
    "note": (parse_note, Note.encode, NOTE),
    "receipt": (decode_receipt, Receipt.encode, RECEIPT.encode()),
    "testimony": (decode_testimony, lambda testimony: testimony.encode(), b'{"cosignature":"","statements":[]}'),
    "extension": (
        decode_extension,
        lambda found: encode_extension(found.entries, found.note, found.cosigned),
        LOG.exported(),
    ),
    "checkpoint": (
        lambda data: parse_checkpoint(data.decode("utf-8", "surrogatepass")),
        lambda checkpoint: checkpoint.text().encode(),
        NOTE.partition(b"\n\n")[0] + b"\n",
    ),
    "line": (
        lambda data: parse_line(data.decode("utf-8", "surrogatepass")),
        lambda line: line.line().encode(),
        NOTE.splitlines(keepends=True)[-1],
    ),
    "key": (
        lambda data: parse_vkey(data.decode("utf-8", "surrogatepass")),
        lambda key: key.vkey().encode(),
        LOG.watch.log.vkey().encode(),
    ),
}


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_refused_or_mean_exactly_themselves(name: str, data: st.DataObject) -> None:
    parse, encode, good = PARSERS[name]
    assert encode(parse(good)) == good
    spliced = st.tuples(st.integers(0, len(good)), st.binary(max_size=6), st.integers(0, 6)).map(
        lambda cut: good[: cut[0]] + cut[1] + good[cut[0] + cut[2] :]
    )
    noise = data.draw(st.one_of(st.binary(max_size=60), spliced, st.integers(0, len(good)).map(lambda cut: good[:cut])))
    try:
        found = parse(noise)
    except AuditError as error:
        assert str(error)
        return
    except UnicodeDecodeError:
        assert name in {"checkpoint", "line", "key"}, "which are given texts"
        return
    # The newline of a line and the space around a key do not belong to them.
    assert encode(found).strip() == noise.strip()


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_flipped_bit_of_a_note_is_noticed(data: st.DataObject) -> None:
    """It is refused, or one witness less has cosigned."""
    changed = flipped(data, NOTE)
    try:
        checkpoint, note = open_checkpoint(changed, LOG.watch)
        cosigners = cosigners_of(note, LOG.watch)
    except AuditError:
        return
    assert checkpoint == Checkpoint(LOG.watch.origin, len(LOG.entries), LOG.root())
    assert len(cosigners) == len(LOG.owners) - 1


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_flipped_bit_of_an_entry_is_noticed(data: st.DataObject) -> None:
    """Whatever it means then, or does not: nobody who has the note takes it."""
    index = data.draw(st.integers(0, len(LOG.entries) - 1))
    changed = flipped(data, LOG.entries[index])
    leaves = [leaf_hash(changed if place == index else entry) for place, entry in enumerate(LOG.entries)]
    assert Tree(leaves).root() != LOG.root()
    receipt = Receipt(changed, index, MIRROR.inclusion_proof(index), NOTE)
    with pytest.raises(AuditError):
        verify_receipt(receipt, LOG.watch, 1)


# --- a log against a list


def note_over(leaves: list[bytes], size: int) -> bytes:
    text = Checkpoint("testudo/shops/1", size, Tree(leaves[:size]).root()).text()
    return Note(text, (NoteSignature("log", b"12345"),)).encode()


steps = st.lists(
    st.tuples(st.lists(st.binary(max_size=6), max_size=5), st.none() | st.integers(0, 1 << 30), st.booleans()),
    max_size=8,
)


@pytest.mark.parametrize("in_file", [False, True], ids=["memory", "file"])
@given(steps=steps)
@settings(max_examples=40, deadline=None)
def test_a_log_is_a_list_and_its_notes(in_file: bool, steps: list[tuple[list[bytes], int | None, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.db" if in_file else None
        log, known, notes = AuditLog(path, durable=False), list[bytes](), dict[int, bytes]()
        for entries, size, again in steps:
            whole = [*known, *entries]
            note = None
            if size is not None:
                over = size % (len(whole) + 1)
                note = notes[over] = note_over([leaf_hash(entry) for entry in whole], over)
            assert log.append(entries, note) == len(known)
            known = whole
            if again and in_file:
                log.close()
                log = AuditLog(path, durable=False)
            leaves = [leaf_hash(entry) for entry in known]
            assert (log.size, list(log.entries()), log.root()) == (len(known), known, Tree(leaves).root())
            assert list(log.notes()) == [notes[each] for each in sorted(notes)]
            assert log.latest_note() == (notes[max(notes)] if notes else None)
            middle = len(known) // 2
            larger = [each for each in notes if each > middle]
            covering = notes[min(larger)] if larger and middle < len(known) else None
            assert log.note_covering(middle) == covering
            assert list(log.entries(middle)) == known[middle:]
            assert log.root(middle) == Tree(leaves[:middle]).root()
            assert log.consistency_proof(middle) == Tree(leaves).consistency_proof(middle)
        log.close()
