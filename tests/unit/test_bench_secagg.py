"""What the benchmark of secure aggregation lists, and that what it times is the real work; never how long it takes."""

from __future__ import annotations

import os

import numpy as np
import pytest
from typer.testing import CliRunner

from testudo_common.errors import ProtocolError
from testudo_common.secagg import shamir
from testudo_common.secagg.masking import apply_masks
from testudo_common.secagg.messages import MESSAGES, Directory
from testudo_simulations import cli
from testudo_simulations.benchmarks import BENCHMARKS, secagg, secagg_limits
from testudo_simulations.benchmarks.flower_secagg import FlowerCost
from testudo_simulations.benchmarks.measure import Measurement
from testudo_simulations.benchmarks.played_round import play
from testudo_simulations.benchmarks.secagg import Sizes, measure_secagg

TINY = Sizes(alone=(4, 50), beside_flower=(5, 40, 1), large=(70, 30, 3), few=(4, 5000), many=(6, 5000))
TIMED = ("wall_seconds", "cpu_seconds")
SENT = ("bytes_up", "bytes_down")


def measured(monkeypatch: pytest.MonkeyPatch, flower: FlowerCost | None) -> list[Measurement]:
    monkeypatch.setattr(secagg, "measure_flower", lambda *_: flower)
    return measure_secagg(1, TINY)


def test_every_case_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(monkeypatch, FlowerCost(100.0, 200.0, "server: a part"))
    expected = [
        ("client, 4 members, 50 coordinates", TIMED),
        ("server, 4 members, 50 coordinates", TIMED),
        ("server, 4 members, 1 dropped, 50 coordinates", TIMED),
        ("client, 4 members, 50 coordinates", SENT),
        ("client, 5 members, 1 dropped, 40 coordinates", TIMED),
        ("server, 5 members, 1 dropped, 40 coordinates", TIMED),
        ("client, 5 members, 1 dropped, 40 coordinates", SENT),
        ("server, 70 members, 3 dropped, 30 coordinates", TIMED),
        ("client, 70 members, 3 dropped, 30 coordinates", TIMED),
        ("client, 70 members, 3 dropped, 30 coordinates", SENT),
        ("client, 4 members, 5,000 coordinates", ("words_per_coordinate",)),
        ("server, 6 members, 5,000 coordinates", ("words_per_coordinate",)),
    ]
    assert [(each.case, each.metric) for each in found] == [(case, name) for case, names in expected for name in names]
    assert all(each.ours > 0 for each in found)
    assert [each.case for each in found if each.reference is None] == [
        "client, 5 members, 1 dropped, 40 coordinates",
        "server, 5 members, 1 dropped, 40 coordinates",
    ], "nothing but Flower's wall seconds is missing"
    assert {each.unit for each in found} == {"s", "B", "words"}


def test_flower_stands_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(monkeypatch, FlowerCost(100.0, 200.0, "server: a part"))
    beside = [each for each in found if each.reference_name.startswith("Flower's SecAgg+")]
    assert [(each.metric, each.reference) for each in beside] == [("cpu_seconds", 100.0), ("cpu_seconds", 200.0)]
    assert all("threshold 4" in each.reference_name for each in beside)
    assert ["a part" in each.reference_name for each in beside] == [False, True]


def test_without_flowers_there_is_no_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [each for each in measured(monkeypatch, None) if " 5 members" in each.case and each.unit == "s"]
    assert len(found) == 4
    assert all(each.reference is None and each.reference_name.startswith("none: ") for each in found)


def test_the_whole_update_and_model_count_among_the_bytes() -> None:
    up, down = play(4, 50).bytes_on_the_wire()
    assert up.reference == down.reference == 200
    # 32 + 192 bytes of keys and signature, 3 * 146 of ciphertexts, 3 * 18 of tags, 4 * 66 of shares, and their heads
    assert up.ours == 200 + 32 + 192 + 3 * 146 + 3 * 18 + 4 * 66 + 6 * 2 + 3 * 4
    assert down.ours > 200 + 4 * 32 + 4 * 192 + 3 * 146 + 3 * 18


@pytest.mark.parametrize("dropped", [0, 1])
@pytest.mark.parametrize("keep_inputs", [True, False])
def test_the_servers_part_done_again_gives_the_sum(dropped: int, keep_inputs: bool) -> None:
    played = play(5, 20, dropped=dropped, keep_inputs=keep_inputs)
    for _ in range(2):
        found = played.server_part()
        played.check(found)
        assert len(found.survivors) == 5 - dropped
    assert played.plain_sum.any()


def test_a_wrong_sum_stops_the_benchmark() -> None:
    played = play(4, 20)
    played.plain_sum[3] += 1
    with pytest.raises(AssertionError):
        played.check(played.server_part())


def test_signatures_are_verified_in_what_is_timed() -> None:
    played = play(4, 20)
    played.client_part()
    number = next(i for i, (_, sent) in enumerate(played.steps) if isinstance(MESSAGES.decode(sent), Directory))
    state, sent = played.steps[number]
    played.steps[number] = (state, sent[:-1] + bytes([sent[-1] ^ 1]))  # the last signature's last byte
    with pytest.raises(ProtocolError, match="not signed"):
        played.client_part()


def test_memory_is_that_of_one_vector() -> None:
    size = 100_000
    played = play(5, size, keep_inputs=False)
    for peak in (played.client_peak_bytes(), played.server_peak_bytes()):
        assert 4 * size < peak < 3 * 4 * size
    assert np.array_equal(played.server_part().total, played.plain_sum)


def test_the_limits_masks_are_the_protocols() -> None:
    key, mine, ours = os.urandom(32), np.zeros(100_003, dtype=np.uint32), np.zeros(100_003, dtype=np.uint32)
    secagg_limits._mask(mine, key)
    apply_masks(ours, [key], [])
    np.testing.assert_array_equal(mine, ours)


def test_the_limits_quantising_is_unbiased_and_one_step_off_at_most() -> None:
    update = np.random.default_rng(1).standard_normal(200_000, dtype=np.float32)
    largest = (1 << 15) - 1
    exact = update.astype(np.float64) * largest / max(np.linalg.norm(update), np.sqrt(len(update)))
    off = secagg_limits._quantised(update).view(np.int32) - exact
    assert np.abs(off).max() <= 1 + 1e-3
    assert abs(off.mean()) < 5 * 0.41 / np.sqrt(len(update))  # one rounding's deviation is sqrt(1 / 6)


def test_the_limits_recovery_gives_the_secret() -> None:
    secret = os.urandom(32)
    shares = shamir.split((secret,), 3, [1, 2, 3, 4])[0, :3]
    assert secagg_limits._constant_terms([1, 2, 3], shares).astype(">u2").tobytes() == secret


def test_the_command_names_every_benchmark() -> None:
    shown = CliRunner().invoke(cli.app, ["bench", "--help"], env={"COLUMNS": "300"})
    assert shown.exit_code == 0
    assert "secagg" in BENCHMARKS
    assert all(name in shown.output for name in BENCHMARKS)
