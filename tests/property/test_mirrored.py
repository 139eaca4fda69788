"""An owner's mirror is a prefix of the log, whatever comes in whatever order; and it cosigns nothing else."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from hypothesis import given, settings
from hypothesis import strategies as st

from audit_logs import AuditLogBuilder, audited_plan
from testudo_common.audit.checkpoints import cosigners_of, open_checkpoint
from testudo_common.audit.extension import decode_testimony
from testudo_common.audit.notes import parse_line
from testudo_common.errors import AuditError, AuditFault
from testudo_common.wire import LogUpdate
from watching import Watching

ME = "owner-04"
"""Of five owners the one that two rounds of two leave out."""
HARMLESS = frozenset({AuditFault.TRUNCATED, AuditFault.PROOF, AuditFault.SIGNATURE, AuditFault.FORMAT})


@lru_cache(maxsize=1)
def two_rounds() -> AuditLogBuilder:
    log = AuditLogBuilder(audited_plan(), 5)
    log.rounds(2)
    log.incident()
    return log


def fresh(entries: list[bytes] | None = None) -> Watching:
    """A witness that has seen nothing, and a log that may be changed."""
    log = AuditLogBuilder(two_rounds().plan, 5, enrol=False)
    log.entries = list(two_rounds().entries if entries is None else entries)
    return Watching(log.plan, log=log, me=ME)


def mirrored(watching: Watching) -> list[bytes]:
    return list(watching.witness._mirror.log.entries())


SIZE = len(two_rounds().entries)
SENT = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(SENT)
def test_messages_of_any_size_in_any_order(sent: list[tuple[int, int]]) -> None:
    watching, known = fresh(), 0
    for one, other in sent:
        first, size = sorted((one, other))
        try:
            answer = watching.tell(first, size=size)
        except AuditError as error:
            assert error.fault is AuditFault.TRUNCATED and size < known
            continue
        if answer.body:
            assert answer.size == size >= known
            known = size
        else:
            assert answer.size == known < first
        assert mirrored(watching) == watching.log.entries[:known]
    assert watching.tell(0).body
    assert watching.witness._mirror.state.history == two_rounds().history


@settings(max_examples=100, deadline=None)
@given(st.integers(0, SIZE), st.integers(0, SIZE - 1), st.data())
def test_log_that_is_changed_in_one_place_and_signed_anew(known: int, place: int, data: st.DataObject) -> None:
    watching = fresh()
    watching.tell(size=known)
    entry = bytearray(watching.log.entries[place])
    at = data.draw(st.integers(0, len(entry) - 1))
    entry[at] = data.draw(st.integers(33, 126).filter(lambda byte: byte != entry[at]))
    watching.log.entries[place] = bytes(entry)
    try:
        answer = watching.tell()
        if not answer.body:
            assert (answer.size, place < known) == (0, True)
            answer = watching.tell(0)
    except AuditError as error:
        if place < known:
            assert (error.fault, error.index) == (AuditFault.REWRITTEN, place)
        else:
            assert error.index is not None and error.index >= place
        assert mirrored(watching) == two_rounds().entries[:known]
    else:
        assert place >= known, "what it had is not taken back"
        assert mirrored(watching) == watching.log.entries


@settings(max_examples=150, deadline=None)
@given(st.integers(0, SIZE), st.data())
def test_bit_that_flips_on_the_way(known: int, data: st.DataObject) -> None:
    watching = fresh()
    watching.tell(size=known)
    update = watching.update(known, cosigned=watching.log.note(max(1, known)))
    body = bytearray(update.body)
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        answer = watching.witness.answer(replace(update, body=bytes(body)))
    except AuditError as error:
        assert error.fault in HARMLESS
    else:
        if answer.body:  # a line of a key that nobody knows
            note = watching.log.note(cosigners=())
            line = parse_line(decode_testimony(answer.body).cosignature)
            _, signed = open_checkpoint(note, watching.log.watch)
            assert cosigners_of(signed.with_signatures([line]), watching.log.watch) == {ME}
        assert mirrored(watching) == watching.log.entries[: answer.size or known]
    watching.witness.refuse_if_halted()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 1 << 30))
def test_any_bytes(body: bytes, first: int) -> None:
    watching = fresh()
    try:
        answer = watching.witness.answer(LogUpdate(watching.plan.digest, 1, 0, first, body))
    except AuditError as error:
        assert error.fault in HARMLESS
    else:
        assert not answer.body
    assert watching.size == 0
