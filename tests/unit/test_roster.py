"""The roster: what its signature covers, what it refuses, and how the federation adds to it on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from testudo_common.audit.notes import KeyKind, Signer
from testudo_common.errors import KeyFileError, RosterError
from testudo_common.key_files import public_hex, read_key
from testudo_common.roster import MAX_CLIENT_ID_CHARACTERS, MAX_ROSTER_BYTES, Roster, read_roster, sign_roster
from testudo_server.roster import FEDERATION_KEY, FEDERATION_PUBLIC, LOG_KEY, ROSTER, admit, keys_in, roster_in

FEDERATION = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"federation").digest())
STRANGER = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"stranger").digest())


def key_of(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def public_of(name: str) -> bytes:
    return key_of(name).public_key().public_bytes_raw()


MEMBERS = {name: public_of(name) for name in ("shop-1", "shop-2", "zoë")}
LOG = b"\x01" + public_of("log")
SHOPS = Roster("shops", MEMBERS, LOG)
SIGNED = sign_roster(SHOPS, FEDERATION)


def read(data: bytes) -> Roster:
    return read_roster(data, FEDERATION.public_key(), source="roster.json")


# --- the format


def test_there_and_back() -> None:
    again = read(SIGNED)
    assert again == SHOPS
    assert dict(again.members) == MEMBERS
    assert again.digest == SHOPS.digest


def test_file_is_as_described() -> None:
    """The module's own description, followed by hand."""
    members = {name: key.hex() for name, key in MEMBERS.items()}
    content = {"federation": "shops", "log": "01" + public_of("log").hex(), "members": members}
    signature = FEDERATION.sign(b"testudo-roster-2" + rfc8785.dumps(content))
    assert rfc8785.dumps({**content, "signature": signature.hex()}) == SIGNED
    assert hashlib.sha256(b"testudo-roster-2" + rfc8785.dumps(content)).digest() == SHOPS.digest
    content["log"] = ""
    signature = FEDERATION.sign(b"testudo-roster-2" + rfc8785.dumps(content))
    assert sign_roster(Roster("shops", MEMBERS), FEDERATION) == rfc8785.dumps({**content, "signature": signature.hex()})


@given(st.permutations(sorted(MEMBERS)))
def test_order_of_members_means_nothing(order: list[str]) -> None:
    again = Roster("shops", {name: MEMBERS[name] for name in order}, LOG)
    assert again.digest == SHOPS.digest
    assert sign_roster(again, FEDERATION) == SIGNED


def test_digest_names_everything() -> None:
    others = [
        SHOPS,
        Roster("shop", MEMBERS, LOG),
        Roster("shops", {name: MEMBERS[name] for name in ("shop-1", "shop-2")}, LOG),
        Roster("shops", {**MEMBERS, "zoë": public_of("shop-9")}, LOG),
        Roster("shops", {"shop-1": MEMBERS["shop-2"], "shop-2": MEMBERS["shop-1"], "zoë": MEMBERS["zoë"]}, LOG),
        Roster("shops", {}, LOG),
        Roster("shops", MEMBERS, b"\x01" + public_of("another log")),
        Roster("shops", MEMBERS),
    ]
    assert len({roster.digest for roster in others}) == len(others)


def test_keys_are_not_printed() -> None:
    assert MEMBERS["shop-1"].hex() not in repr(SHOPS)
    assert repr(MEMBERS["shop-1"]) not in repr(SHOPS)
    assert public_of("log").hex() not in repr(SHOPS)
    assert "log" not in repr(SHOPS)


# --- signatures that do not hold


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(SIGNED), **fields}).encode()


def with_members(change: Callable[[dict[str, str]], object]) -> bytes:
    members = dict(json.loads(SIGNED)["members"])
    change(members)
    return changed(members=members)


SIGNATURE = json.loads(SIGNED)["signature"]
NOT_SIGNED = {
    "federation renamed": changed(federation="shopS"),
    "member added": with_members(lambda members: members.update(eve=public_of("eve").hex())),
    "member taken out": with_members(lambda members: members.pop("shop-2")),
    "member renamed": with_members(lambda members: members.update({"shop-3": members.pop("shop-2")})),
    "key substituted": with_members(lambda members: members.update({"shop-1": public_of("eve").hex()})),
    "keys swapped": with_members(
        lambda members: members.update({"shop-1": members["shop-2"], "shop-2": members["shop-1"]})
    ),
    "another log's key": changed(log=(bytes([KeyKind.ED25519]) + public_of("eve")).hex()),
    "no log": changed(log=""),
    "one bit of the signature": changed(signature=f"{int(SIGNATURE, 16) ^ 1:0128x}"),
    "empty signature": changed(signature=""),
    "signature of another roster": changed(
        signature=json.loads(sign_roster(Roster("shops", {}, LOG), FEDERATION))["signature"]
    ),
    "signed by another federation": sign_roster(SHOPS, STRANGER),
    "signed without the domain": changed(
        signature=FEDERATION.sign(
            rfc8785.dumps({key: value for key, value in json.loads(SIGNED).items() if key != "signature"})
        ).hex()
    ),
    "signed for an earlier format": changed(
        signature=FEDERATION.sign(
            b"testudo-roster-1"
            + rfc8785.dumps(
                {key: value for key, value in json.loads(SIGNED).items() if key in {"federation", "members"}}
            )
        ).hex()
    ),
    "log's key substituted": changed(log="01" + public_of("eve").hex()),
    "log's key left out": changed(log=""),
    "log's key a member's": changed(log="01" + MEMBERS["shop-1"].hex()),
    "log's key of another kind": changed(log="06" + "00" * 1312),
}


@pytest.mark.parametrize("data", NOT_SIGNED.values(), ids=NOT_SIGNED)
def test_roster_that_the_federation_did_not_sign(data: bytes) -> None:
    with pytest.raises(RosterError, match="not signed with the federation's key") as caught:
        read(data)
    assert caught.value.where == "roster.json"
    assert "ask for the roster again" in caught.value.remedy


def test_order_and_spaces_of_the_file_do_not_matter() -> None:
    """Otherwise the cases above, which are written by another program, could fail for that."""
    assert read(json.dumps(json.loads(SIGNED), indent=2, sort_keys=False).encode()) == SHOPS


# --- files that are no rosters

MALFORMED = {
    "empty": b"",
    "not JSON": b"{",
    "not UTF-8": b"\xff\xfe\x00",
    "a list": b"[]",
    "a number": b"7",
    "no signature": json.dumps({"federation": "shops", "log": "", "members": {}}).encode(),
    "no members": json.dumps({"federation": "shops", "log": "", "signature": SIGNATURE}).encode(),
    "no log": json.dumps({"federation": "shops", "members": {}, "signature": SIGNATURE}).encode(),
    "a field more": changed(version=2),
    "signature not hexadecimal": changed(signature="zz"),
    "signature a number": changed(signature=7),
    "federation a number": changed(federation=7),
    "log a number": changed(log=7),
    "log nothing": changed(log=None),
    "log not hexadecimal": changed(log="01zz"),
    "members a list": changed(members=["shop-1"]),
    "key not hexadecimal": with_members(lambda members: members.update({"shop-1": "zz"})),
    "key a number": changed(members={"shop-1": 7}),
    "nested too deeply": b"[" * 100_000,
    "too large": b" " * (MAX_ROSTER_BYTES + 1),
    "a key's file": b"-----BEGIN PRIVATE KEY-----\n",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_file_that_is_no_roster(data: bytes) -> None:
    with pytest.raises(RosterError, match="not a roster") as caught:
        read(data)
    assert caught.value.where == "roster.json"
    assert "ask the federation" in caught.value.remedy


def test_federation_whose_name_is_no_text() -> None:
    with pytest.raises(RosterError):
        read(changed(federation="\ud800"))


BAD_NAMES = ["", "x" * (MAX_CLIENT_ID_CHARACTERS + 1), "two\nlines", "bell\a", "nothing\u200b", "\ud800", "null\0"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_name_that_cannot_be_a_clients(name: str) -> None:
    with pytest.raises(RosterError, match="1 to 128 printable characters") as caught:
        Roster("shops", {name: public_of("x")})
    assert caught.value.where.isprintable(), "it is shown to people"
    assert len(caught.value.where) <= 80
    with pytest.raises(RosterError, match="1 to 128 printable characters"):
        read(changed(members={name: public_of("x").hex()}))


def test_longest_name() -> None:
    assert "ü" * MAX_CLIENT_ID_CHARACTERS in Roster("shops", {"ü" * MAX_CLIENT_ID_CHARACTERS: public_of("x")}).members


def test_two_clients_with_one_key() -> None:
    """Two names for one key are one client twice: it would hide behind itself."""
    with pytest.raises(RosterError, match="it has the same key as 'shop-1'") as caught:
        Roster("shops", {**MEMBERS, "twin": public_of("shop-1")})
    assert caught.value.where == "twin"
    with pytest.raises(RosterError, match="the same key as"):
        read(with_members(lambda members: members.update(twin=members["shop-1"])))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_key_of_another_length(length: int) -> None:
    with pytest.raises(RosterError, match="not 32 bytes") as caught:
        Roster("shops", {"shop-1": b"k" * length})
    assert caught.value.where == "shop-1"


BAD_LOGS = {
    "one byte short": LOG[:-1],
    "one byte more": LOG + b"\0",
    "kind alone": LOG[:1],
    "key without its kind": LOG[1:],
    "kind of a witness": b"\x04" + LOG[1:],
    "unknown kind": b"\x02" + LOG[1:],
    "ML-DSA-44 with a key of Ed25519": b"\x06" + LOG[1:],
    "Ed25519 with a key of ML-DSA-44": b"\x01" + bytes(1312),
}


@pytest.mark.parametrize("log", BAD_LOGS.values(), ids=BAD_LOGS)
def test_key_that_cannot_be_a_logs(log: bytes) -> None:
    with pytest.raises(RosterError, match="the log's key is not one"):
        Roster("shops", MEMBERS, log)
    with pytest.raises(RosterError, match="the log's key is not one"):
        read(changed(log=log.hex()))


@pytest.mark.parametrize("log", [b"", LOG, b"\x06" + bytes(1312)], ids=["none", "Ed25519", "ML-DSA-44"])
def test_log_there_and_back(log: bytes) -> None:
    assert read(sign_roster(Roster("shops", MEMBERS, log), FEDERATION)).log == log


# --- on disk, at the federation's


def hex_of(*names: str) -> dict[str, str]:
    return {name: public_hex(key_of(name)) for name in names}


def test_first_members_make_the_federations_key(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    roster = admit(folder, "shops", hex_of("b", "a"))
    assert roster_in(folder) == roster
    assert list(roster.members) == ["a", "b"]
    assert {path.name for path in folder.iterdir()} == {FEDERATION_KEY, FEDERATION_PUBLIC, LOG_KEY, ROSTER}
    for key in (FEDERATION_KEY, LOG_KEY):
        assert (folder / key).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_more_members_with_the_same_key(tmp_path: Path) -> None:
    first = admit(tmp_path, "shops", hex_of("a"))
    public = (tmp_path / FEDERATION_PUBLIC).read_bytes()
    second = admit(tmp_path, "shops", hex_of("b"))
    assert dict(second.members) == {**first.members, "b": public_of("b")}
    assert (tmp_path / FEDERATION_PUBLIC).read_bytes() == public
    assert admit(tmp_path, "shops", hex_of("a", "b")) == second, "to admit somebody again changes nothing"


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


REFUSED: dict[str, tuple[str, dict[str, str], type[Exception], str]] = {
    "another key for a member": ("shops", {"a": public_hex(key_of("x"))}, RosterError, "a: .*another key"),
    "a member's key again": ("shops", {"b": public_hex(key_of("a"))}, RosterError, "b: it has the same key as 'a'"),
    "another federation": ("banks", hex_of("b"), RosterError, "the roster of 'shops'"),
    "not a key": ("shops", {"b": "5f0c"}, KeyFileError, "b: not a public key"),
    "a bad name": ("shops", {"": public_hex(key_of("b"))}, RosterError, "printable"),
}


@pytest.mark.parametrize(("federation", "members", "error", "text"), REFUSED.values(), ids=REFUSED)
def test_member_that_is_refused_changes_nothing(
    tmp_path: Path, federation: str, members: dict[str, str], error: type[Exception], text: str
) -> None:
    admit(tmp_path, "shops", hex_of("a"))
    before = files_in(tmp_path)
    with pytest.raises(error) as caught:
        admit(tmp_path, federation, members)
    assert caught.match(text)
    assert files_in(tmp_path) == before


def test_roster_of_somebody_else_is_not_added_to(tmp_path: Path) -> None:
    admit(tmp_path, "shops", hex_of("a"))
    (tmp_path / ROSTER).write_bytes(sign_roster(Roster("shops", {"eve": public_of("eve")}), STRANGER))
    with pytest.raises(RosterError, match="not signed with the federation's key"):
        admit(tmp_path, "shops", hex_of("b"))
    with pytest.raises(RosterError, match="not signed with the federation's key"):
        roster_in(tmp_path)


def test_key_that_others_may_read_signs_nothing(tmp_path: Path) -> None:
    admit(tmp_path, "shops", hex_of("a"))
    (tmp_path / FEDERATION_KEY).chmod(0o640)
    before = files_in(tmp_path)
    with pytest.raises(KeyFileError, match="others may read this key"):
        admit(tmp_path, "shops", hex_of("b"))
    assert files_in(tmp_path) == before


def test_folder_without_the_private_key_is_left_as_it_is(tmp_path: Path) -> None:
    """It is not needed to run rounds, so it may be kept elsewhere: a new one would make the roster worthless."""
    admit(tmp_path, "shops", hex_of("a"))
    (tmp_path / FEDERATION_KEY).unlink()
    before = files_in(tmp_path)
    with pytest.raises(KeyFileError, match="private key is not here") as caught:
        admit(tmp_path, "shops", hex_of("b"))
    assert caught.value.where == str(tmp_path / FEDERATION_KEY)
    assert caught.value.remedy
    assert files_in(tmp_path) == before
    assert dict(roster_in(tmp_path).members) == {"a": public_of("a")}


@pytest.mark.parametrize(
    ("missing", "error", "remedy"),
    [(FEDERATION_PUBLIC, KeyFileError, "check the path"), (ROSTER, RosterError, "testudo-server init")],
)
def test_missing_file_is_named(
    tmp_path: Path, missing: str, error: type[KeyFileError | RosterError], remedy: str
) -> None:
    admit(tmp_path, "shops", hex_of("a"))
    (tmp_path / missing).unlink()
    with pytest.raises(error, match="cannot be read") as caught:
        roster_in(tmp_path)
    assert caught.value.where == str(tmp_path / missing)
    assert remedy in caught.value.remedy


# --- the log's key


@pytest.mark.parametrize(("wanted", "kind", "size"), [(None, 1, 32), ("ed25519", 1, 32), ("ml-dsa-44", 6, 1312)])
def test_logs_key_is_on_the_roster(tmp_path: Path, wanted: Any, kind: int, size: int) -> None:
    roster = admit(tmp_path, "shops", hex_of("a"), log_key=wanted)
    keys = keys_in(tmp_path)
    assert keys.roster == roster == roster_in(tmp_path)
    assert keys.signed_roster == (tmp_path / ROSTER).read_bytes()
    assert (roster.log[0], len(roster.log)) == (kind, 1 + size)
    assert roster.log[1:] == keys.log_key.public_key().public_bytes_raw()
    text = f"shops\n0\n{'A' * 43}=\n"
    Signer("shops", keys.log_key).sign(text, 7).verify(Signer("shops", keys.log_key).key, text)
    assert admit(tmp_path, "shops", hex_of("b")).log == roster.log, "it stays"
    assert admit(tmp_path, "shops", {}, log_key=wanted).log == roster.log


def test_logs_key_of_another_kind_is_not_made_in_its_place(tmp_path: Path) -> None:
    admit(tmp_path, "shops", hex_of("a"))
    before = files_in(tmp_path)
    with pytest.raises(KeyFileError, match="a key of kind ed25519 already"):
        admit(tmp_path, "shops", hex_of("b"), log_key="ml-dsa-44")
    assert files_in(tmp_path) == before


def test_roster_without_a_log_gets_one_when_it_is_signed_again(tmp_path: Path) -> None:
    admit(tmp_path, "shops", hex_of("a"))
    signed = sign_roster(Roster("shops", {"a": public_of("a")}), read_key(tmp_path / FEDERATION_KEY))
    (tmp_path / ROSTER).write_bytes(signed)
    with pytest.raises(KeyFileError, match="names another key for the audit log") as caught:
        keys_in(tmp_path)
    assert "testudo-server init" in caught.value.remedy
    (tmp_path / LOG_KEY).unlink()
    assert admit(tmp_path, "shops", {}).log
    assert keys_in(tmp_path).roster == roster_in(tmp_path)


def test_lost_key_of_a_log_is_not_replaced(tmp_path: Path) -> None:
    """Owners would take everything under a new one for forged."""
    admit(tmp_path, "shops", hex_of("a"))
    (tmp_path / LOG_KEY).unlink()
    before = files_in(tmp_path)
    with pytest.raises(KeyFileError, match="audit log's private key is not here"):
        admit(tmp_path, "shops", hex_of("b"))
    assert files_in(tmp_path) == before
    with pytest.raises(KeyFileError, match="cannot be read"):
        keys_in(tmp_path)


def test_key_of_another_log_signs_nothing(tmp_path: Path) -> None:
    admit(tmp_path / "shops", "shops", hex_of("a"))
    admit(tmp_path / "banks", "banks", hex_of("a"))
    (tmp_path / "shops" / LOG_KEY).write_bytes((tmp_path / "banks" / LOG_KEY).read_bytes())
    for call in (lambda: keys_in(tmp_path / "shops"), lambda: admit(tmp_path / "shops", "shops", hex_of("b"))):
        with pytest.raises(KeyFileError, match="the roster names another key for the audit log"):
            call()


def test_logs_key_that_others_may_read_signs_nothing(tmp_path: Path) -> None:
    admit(tmp_path, "shops", hex_of("a"))
    (tmp_path / LOG_KEY).chmod(0o644)
    with pytest.raises(KeyFileError, match="others may read this key"):
        keys_in(tmp_path)
