"""Who may ask a server, from where, and by which certificate: whatever was not allowed in so many words is refused."""

from __future__ import annotations

import ssl
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from own_models import NOON, SHOP, make_version, plan_of, shop_table, store_with, write_csv
from testudo_client.personal.versions import VersionRecord
from testudo_client.serving.access import Address, check_exposure, check_plain, token_in
from testudo_client.serving.certificate import own_certificate
from testudo_client.serving.core import Core
from testudo_client.serving.counts import Counts
from testudo_client.serving.exchange import Source
from testudo_client.serving.serve_command import ServeRequest, run_server
from testudo_common.errors import KeyFileError, UsageError
from testudo_common.publication import PublishedModel, write_published


def record(*, stays: bool) -> VersionRecord:
    return make_version().record.model_copy(update={"stays": stays})


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1:80", True), ("127.9.9.9:0", True), ("[::1]:443", True), ("localhost:1", True),
        ("0.0.0.0:80", False), ("[::]:80", False), ("192.168.1.4:80", False), ("example.org:80", False),
        ("localhost.example.org:80", False), ("127.0.0.1.example.org:80", False),
    ],
)  # fmt: skip
def test_only_this_machine_is_loopback(text: str, loopback: bool) -> None:
    address = Address.parse(text)
    assert (str(address), address.loopback) == (text, loopback)


@pytest.mark.parametrize("text", ["", "127.0.0.1", ":80", "a:b", "a:65536", "::1:80", "[1.2.3.4]:80", "a:-1", "a:²"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not an address"):
        Address.parse(text)


def test_an_unprotected_model_is_answered_on_this_machine_only_unless_it_is_said() -> None:
    check_exposure(record(stays=True), exposed=False, share_unprotected=False)
    check_exposure(record(stays=False), exposed=True, share_unprotected=False)
    check_exposure(record(stays=True), exposed=True, share_unprotected=True)
    with pytest.raises(UsageError, match="without differential privacy"):
        check_exposure(record(stays=True), exposed=True, share_unprotected=False)


def test_nothing_goes_over_a_network_in_clear_unless_it_is_said_twice() -> None:
    check_plain([Address("127.0.0.1", 1)], said_again=False)
    check_plain([Address("0.0.0.0", 1)], said_again=True)
    with pytest.raises(UsageError, match="in clear"):
        check_plain([Address("127.0.0.1", 1), Address("0.0.0.0", 1)], said_again=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"http": "0.0.0.0:0"}, "without differential privacy"),
        ({"grpc": "[::]:0"}, "without differential privacy"),
        ({"http": "0.0.0.0:0", "share_unprotected": True, "no_tls": True}, "in clear"),
        ({"http": "none", "grpc": "none"}, "nothing to answer on"),
        ({"tls_key": Path("key.pem")}, "a certificate needs its key"),
        ({"tls_key": Path("no.pem"), "tls_certificate": Path("no.pem")}, "the certificate cannot be used"),
        ({"tls_key": Path("k"), "tls_certificate": Path("c"), "no_tls": True}, "contradict"),
        ({"data": Path("own.csv")}, "a table and a meta-model"),
        ({"data": Path("own.csv"), "meta_model": Path("meta")}, "meta"),
    ],
)
def test_what_contradicts_itself_or_goes_too_far_does_not_start(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    store_with(tmp_path, make_version())
    request = replace(ServeRequest(tmp_path, "127.0.0.1:0", "127.0.0.1:0"), **change)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        run_server(request, print)


def test_callers_from_outside_make_no_unprotected_version(tmp_path: Path) -> None:
    store_with(tmp_path, replace(make_version(), record=record(stays=False)))
    request = ServeRequest(tmp_path, "0.0.0.0:0", "none", data=Path("own.csv"), meta_model=Path("meta"))
    with pytest.raises(UsageError, match="is not protected"):
        run_server(request, print)


def test_a_caller_never_spends_the_owners_epsilon(tmp_path: Path) -> None:
    store_with(tmp_path, make_version(tables=SHOP))
    settings = ("privacy.unit=example", "privacy.epsilon=4", "privacy.delta=1e-4", "task.local_centring=none")
    plan, meta = plan_of(SHOP, *settings), tmp_path / "meta"
    assert plan.private
    write_published(meta, PublishedModel(plan, 4, make_version(tables=SHOP).own.parameters))
    request = ServeRequest(
        tmp_path, "127.0.0.1:0", "none", data=write_csv(tmp_path / "own.csv", shop_table()), meta_model=meta
    )
    with pytest.raises(UsageError, match="would be charged to your ledger"):
        run_server(request, print)


def test_without_a_version_in_use_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no own model is in use"):
        run_server(ServeRequest(tmp_path), print)


def test_a_token_is_made_once_for_this_user_and_shown_nowhere(tmp_path: Path) -> None:
    token = token_in(tmp_path)
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert token_in(tmp_path).secret == token.secret and len(token.secret) >= 43
    assert token.secret not in repr(token)
    assert token.admits(f"Bearer {token.secret}") and token.admits(f"bearer {token.secret}".encode())
    for wrong in (
        None,
        "",
        token.secret,
        "Bearer ",
        f"Bearer {token.secret}é",
        f"Bearer {token.secret[:-1]}",
        "Bearer \udcff",
    ):
        assert not token.admits(wrong)


def test_a_token_that_others_may_read_or_that_is_empty_is_refused(tmp_path: Path) -> None:
    token_in(tmp_path)
    (tmp_path / "token").chmod(0o640)
    with pytest.raises(KeyFileError, match="others may read"):
        token_in(tmp_path)
    (tmp_path / "token").chmod(0o600)
    (tmp_path / "token").write_text("")
    with pytest.raises(KeyFileError, match="too short"):
        token_in(tmp_path)


def test_a_certificate_is_made_once_and_anew_for_another_host_or_near_its_end(tmp_path: Path) -> None:
    pair = own_certificate(tmp_path, ["127.0.0.1", "0.0.0.0"], NOON)
    pair.check()
    first, key = pair.certificate.read_bytes(), pair.key.read_bytes()
    assert pair.key.stat().st_mode & 0o777 == 0o600
    assert own_certificate(tmp_path, ["localhost"], NOON + timedelta(days=700)).certificate.read_bytes() == first
    second = own_certificate(tmp_path, ["shop.example.org"], NOON).certificate.read_bytes()
    third = own_certificate(tmp_path, ["127.0.0.1"], NOON + timedelta(days=800)).certificate.read_bytes()
    assert len({first, second, third}) == 3 and pair.key.read_bytes() == key
    pair.check()
    ssl.create_default_context(cafile=str(pair.certificate))


def test_an_unprotected_version_is_not_put_in_use_where_other_machines_ask(tmp_path: Path) -> None:
    private = make_version(1)
    private = replace(private, record=record(stays=False))
    store = store_with(tmp_path, private)

    def check(one: VersionRecord) -> None:
        check_exposure(one, exposed=True, share_unprotected=False)

    source = Source(store, 0.9, check)
    core = Core(source.load(), Counts())
    mark = source.mark()
    with store.changing():
        store.add(make_version(2))
        store.use(2, "promoted", NOON)
    assert source.mark() != mark
    with pytest.raises(UsageError, match="without differential privacy"):
        source.load()
    assert core.own.version.record.id == 1
    core.close()
