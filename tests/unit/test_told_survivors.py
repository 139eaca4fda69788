"""Who an owner was told is in the sum of its group, and what the log says of it: kept over a restart, and compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit_logs import TIME, digest_of
from testudo_client.own_checks import survivors_are_as_told
from testudo_client.own_record import AuditFiles, OwnRecord, Told
from testudo_common.audit.entries import RoundClosed
from testudo_common.errors import AuditError, AuditFault

GROUP = ("cyd", "ada", "dan", "bob")
TOLD = Told(round=3, attempt=1, places=(0, 1, 3))


def closed(*survivors: tuple[str, ...]) -> RoundClosed:
    return RoundClosed(
        time=TIME,
        round=3,
        attempt=1,
        model_digest=digest_of("model"),
        survivors=survivors,
        rule=("mean",),
        withstood=0,
    )


@pytest.mark.parametrize("survivors", [(("ada", "bob", "cyd"),), (("eve", "fay"), ("ada", "bob", "cyd")), ()])
def test_log_that_says_what_the_owner_was_told_passes(survivors: tuple[tuple[str, ...], ...]) -> None:
    """Of a group that was not opened, the log has nobody."""
    survivors_are_as_told(17, closed(*survivors), GROUP, TOLD)


@pytest.mark.parametrize(
    ("survivors", "named"),
    [
        (("ada", "bob"), "cyd"),
        (("ada", "bob", "cyd", "dan"), "dan"),
        (("ada", "bob", "dan"), "cyd, dan"),
    ],
    ids=["left out", "put in", "exchanged"],
)
def test_log_that_says_otherwise_is_found_out(survivors: tuple[str, ...], named: str) -> None:
    with pytest.raises(AuditError, match=f"in the sum: {named}$") as caught:
        survivors_are_as_told(17, closed(("eve", "fay"), survivors), GROUP, TOLD)
    assert (caught.value.fault, caught.value.index) == (AuditFault.CONTRIBUTION, 17)


@pytest.mark.parametrize("in_memory", [True, False])
def test_what_was_told_last_is_kept(tmp_path: Path, in_memory: bool) -> None:
    files = None if in_memory else AuditFiles(tmp_path, "ab" * 32)
    record = OwnRecord(files, durable=False)
    assert record.told() is None
    record.keep_told(TOLD)
    record.keep_told(later := Told(round=4, attempt=0, places=(2,)))
    assert record.told() == later
    if files is not None:
        assert OwnRecord(files).told() == later
        files.survivors.write_text("{}", encoding="utf-8")
        with pytest.raises(AuditError, match="what you were told of your group is damaged") as caught:
            record.told()
        assert caught.value.fault is AuditFault.STORAGE
