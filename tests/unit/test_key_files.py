"""Key files: who may read them, that none is ever overwritten, and that no error tells what is in one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from testudo_common.errors import KeyFileError
from testudo_common.key_files import (
    LogKeyKind,
    create_key,
    create_log_key,
    parse_public,
    public_hex,
    read_key,
    read_log_key,
    read_public,
)


@pytest.fixture(params=[0o022, 0o000, 0o077], ids=["usual umask", "no umask", "strict umask"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def pem_of(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def keep(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


# --- making a key


def test_only_the_owner_may_read_it(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "keys" / "identity.pem"
    key = create_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert read_key(path).private_bytes_raw() == key.private_bytes_raw()


def test_all_missing_folders_are_the_owners(tmp_path: Path) -> None:
    create_key(tmp_path / "a" / "b" / "identity.pem")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700


def test_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    create_key(tmp_path / "identity.pem")
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_file_is_what_other_programs_read(tmp_path: Path) -> None:
    key = create_key(tmp_path / "identity.pem")
    assert (tmp_path / "identity.pem").read_bytes() == pem_of(key)


def test_each_key_is_another(tmp_path: Path) -> None:
    assert len({public_hex(create_key(tmp_path / str(number))) for number in range(5)}) == 5


def place_a_key(path: Path) -> None:
    create_key(path)


def place_an_empty_file(path: Path) -> None:
    path.touch()


def place_a_folder(path: Path) -> None:
    path.mkdir()


def place_a_dangling_link(path: Path) -> None:
    """Through which a key would land where somebody else chose."""
    path.symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize("place", [place_a_key, place_an_empty_file, place_a_folder, place_a_dangling_link])
def test_nothing_is_overwritten(tmp_path: Path, place: Callable[[Path], None]) -> None:
    path = tmp_path / "identity.pem"
    place(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(KeyFileError, match="not overwritten") as caught:
        create_key(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy
    assert (path.read_bytes() if path.is_file() else None) == before
    assert not (tmp_path / "elsewhere").exists()


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "keys").touch()
    with pytest.raises(KeyFileError) as caught:
        create_key(tmp_path / "keys" / "identity.pem")
    assert "there is a key already" not in str(caught.value)


def test_key_that_could_not_be_written_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(KeyFileError, match="No space left") as caught:
            create_key(tmp_path / "identity.pem")
    assert caught.value.where == str(tmp_path / "identity.pem")
    create_key(tmp_path / "identity.pem")


# --- reading a key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666, 0o777], ids=oct)
def test_key_that_others_may_touch(tmp_path: Path, mode: int) -> None:
    path = keep(tmp_path / "identity.pem", pem_of(Ed25519PrivateKey.generate()), mode)
    with pytest.raises(KeyFileError, match="others may read this key") as caught:
        read_key(path)
    assert caught.value.where == str(path)
    assert "chmod 600" in caught.value.remedy


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700], ids=oct)
def test_key_that_only_the_owner_may_touch(tmp_path: Path, mode: int) -> None:
    key = Ed25519PrivateKey.generate()
    assert public_hex(read_key(keep(tmp_path / "identity.pem", pem_of(key), mode))) == public_hex(key)


def private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | x25519.X25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


SOME_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SECRET_LINE = pem_of(SOME_KEY).decode().splitlines()[1]
NO_KEYS = {
    "empty": (b"", "not a private key"),
    "text": (b"hello", "not a private key"),
    "bytes": (b"\0\xff" * 20, "not a private key"),
    "half a key": (pem_of(SOME_KEY)[:60], "not a private key"),
    "a changed key": (pem_of(SOME_KEY).replace(b"MC4C", b"MC4D"), "not a private key"),
    "raw bytes": (SOME_KEY.private_bytes_raw(), "not a private key"),
    "hexadecimal": (SOME_KEY.private_bytes_raw().hex().encode(), "not a private key"),
    "a public key": (
        SOME_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "not a private key",
    ),
    "behind a password": (
        SOME_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")),
        "not a private key",
    ),
    "RSA": (private_pem(rsa.generate_private_key(65537, 2048)), "not an Ed25519 key"),
    "P-256": (private_pem(ec.generate_private_key(ec.SECP256R1())), "not an Ed25519 key"),
    "X25519": (private_pem(x25519.X25519PrivateKey.generate()), "not an Ed25519 key"),
}


@pytest.mark.parametrize(("data", "problem"), NO_KEYS.values(), ids=NO_KEYS)
def test_file_that_holds_no_key_of_ours(tmp_path: Path, data: bytes, problem: str) -> None:
    path = keep(tmp_path / "identity.pem", data)
    with pytest.raises(KeyFileError, match=problem) as caught:
        read_key(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy
    for error in (caught.value, caught.value.__cause__):
        assert SECRET_LINE not in f"{error}{error!r}"
        assert SOME_KEY.private_bytes_raw().hex() not in f"{error}{error!r}"
    assert path.read_bytes() == data


@pytest.mark.parametrize("read", [read_key, read_public])
def test_missing_file(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(KeyFileError, match="cannot be read: No such file") as caught:
        read(tmp_path / "identity.pem")
    assert caught.value.where == str(tmp_path / "identity.pem")
    assert caught.value.remedy


# --- public keys


def test_public_key_there_and_back(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    text = public_hex(key)
    assert len(text) == 64
    assert parse_public(text, source="x").public_bytes_raw() == key.public_key().public_bytes_raw()
    (tmp_path / "federation.pub").write_text(f"  {text}\r\n")
    assert read_public(tmp_path / "federation.pub").public_bytes_raw().hex() == text


@pytest.mark.parametrize("text", ["", "5f", "5f" * 31, "5f" * 33, "zz" * 32, "0x" + "5f" * 32, "é" * 64])
def test_text_that_is_no_public_key(text: str) -> None:
    with pytest.raises(KeyFileError, match="not a public key") as caught:
        parse_public(text, source="what ada sent")
    assert caught.value.where == "what ada sent"
    assert "64 hexadecimal digits" in caught.value.remedy
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", pem_of(SOME_KEY), SOME_KEY.private_bytes_raw()])
def test_file_that_is_no_public_key(tmp_path: Path, data: bytes) -> None:
    path = keep(tmp_path / "federation.pub", data)
    with pytest.raises(KeyFileError, match=r"not a public key|not text") as caught:
        read_public(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy
    for error in (caught.value, caught.value.__cause__):
        assert SECRET_LINE not in f"{error}"


# --- the key of an audit log


@pytest.mark.parametrize(("kind", "size"), [("ed25519", 32), ("ml-dsa-44", 1312)])
def test_key_of_a_log_is_kept_and_read_again(tmp_path: Path, kind: LogKeyKind, size: int) -> None:
    path = tmp_path / "keys" / "log.pem"
    made = create_log_key(path, kind)
    again = read_log_key(path)
    assert again.public_key().public_bytes_raw() == made.public_key().public_bytes_raw()
    assert len(made.public_key().public_bytes_raw()) == size
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["log.pem"]
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="there is a key already"):
        create_log_key(path, kind)
    assert path.read_bytes() == before


def test_key_of_a_log_is_no_key_of_a_member(tmp_path: Path) -> None:
    create_log_key(tmp_path / "log.pem", "ml-dsa-44")
    with pytest.raises(KeyFileError, match="not an Ed25519 key"):
        read_key(tmp_path / "log.pem")


def test_other_keys_are_none_of_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log.pem"
    other = x25519.X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(other)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="neither an Ed25519 nor an ML-DSA-44 key"):
        read_log_key(path)
    create_log_key(tmp_path / "open.pem", "ml-dsa-44")
    (tmp_path / "open.pem").chmod(0o640)
    with pytest.raises(KeyFileError, match="others may read this key"):
        read_log_key(tmp_path / "open.pem")
