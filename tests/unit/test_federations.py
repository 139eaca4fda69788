"""Federations: who trains, who never does, who is left out and why, and plans completed from the data."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from testudo_common.errors import DataError, PlanError
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import DigitsData
from testudo_simulations.federations import Federation, load_federation
from testudo_simulations.federations.activity import FEATURES
from testudo_simulations.federations.digits import base_pools, draw_style, render
from testudo_simulations.federations.lazy import MadeWhenAsked
from testudo_simulations.federations.omniglot import area_average
from testudo_simulations.federations.split import first_ids, split_each_class, split_unseen

PLAIN = {"mode": "plain"}  # a federation of two clients cannot hide anybody
KINDS = {"digits": "classification", "activity": "classification", "omniglot": "few_shot"}


def plan(federation: str, *, kind: Any = "", more: Any = None, **data: Any) -> FederationPlan:
    kind = kind or KINDS.get(federation, "regression")
    task = {"kind": kind, **({"ways": 3, "shots": 2} if kind == "few_shot" else {})}
    tables = {"name": "t", "data": {"federation": federation, **data}, "task": task, "secure_aggregation": PLAIN}
    return FederationPlan.model_validate(tables | (more or {}))


def images(federation: Federation, part: str) -> set[bytes]:
    """Every image of a part of the federation, as bytes."""
    sets = {
        "training": list(federation.training.values()),
        "support": [client.support for client in federation.unseen.values()],
        "query": [client.query for client in federation.unseen.values() if client.query is not None],
    }[part]
    return {image.tobytes() for examples in sets for image in examples.inputs}


def assert_same(left: Examples, right: Examples) -> None:
    np.testing.assert_array_equal(left.inputs, right.inputs)
    np.testing.assert_array_equal(left.targets, right.targets)


# ---- the split


@given(
    ids=st.lists(st.text(max_size=3), min_size=3, max_size=12, unique=True),
    share=st.floats(0.01, 0.99),
    data=st.data(),
)
def test_the_split_does_not_depend_on_the_order_of_ids(ids: list[str], share: float, data: st.DataObject) -> None:
    unseen = split_unseen(ids, share)
    assert unseen == split_unseen(data.draw(st.permutations(ids)), share)
    assert len(unseen) == min(max(1, round(share * len(ids))), len(ids) - 1)


def test_the_split_is_the_one_that_was_fixed() -> None:
    # from `printf 'testudo-unseen|%s' ID | sha256sum`, the three smallest of ten
    assert split_unseen([str(number) for number in range(10)], 0.3) == {"1", "2", "3"}
    assert split_unseen(["a", "b", "c", "c"], 0.3) == split_unseen("abc", 0.3)
    with pytest.raises(DataError, match="2 clients, and a federation needs 3"):
        split_unseen(["a", "b"], 0.5)


def test_each_class_is_split_in_its_order() -> None:
    targets = np.array([0, 1, 0, 0, 2, 1, 0, 0])
    split = split_each_class(Examples(np.arange(8, dtype=np.float32)[:, np.newaxis], targets))
    assert split.query is not None
    assert split.support.inputs[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert split.query.inputs[:, 0].tolist() == [5, 6, 7]
    capped = split_each_class(Examples(np.zeros((8, 1), dtype=np.float32), targets), most=1)
    assert capped.support.targets.tolist() == [0, 1, 2]


# ---- cohorts


def test_a_cohort_is_no_larger_than_the_federation() -> None:
    asked = plan("sine", clients=6, unseen_clients=1)
    assert asked.rounds.cohort_size == 20
    rounds = load_federation(asked, None).plan.rounds
    assert (rounds.cohort_size, rounds.max_participations) == (6, rounds.count)
    stated = plan("sine", clients=6, unseen_clients=1, more={"rounds": {"cohort_size": 7, "max_participations": 9}})
    rounds = load_federation(stated, None).plan.rounds
    assert (rounds.cohort_size, rounds.max_participations) == (6, 9)
    complete = load_federation(stated, None)
    assert load_federation(complete.plan, None).plan == complete.plan, "a complete plan is left alone"


def test_a_cohort_that_fits_is_left_alone() -> None:
    asked = plan("sine", clients=20, unseen_clients=1, more={"rounds": {"count": 4, "cohort_size": 5}})
    rounds = load_federation(asked, None).plan.rounds
    assert (rounds.cohort_size, rounds.max_participations) == (5, 1)


def test_a_federation_too_small_to_hide_anybody_is_refused_with_a_way_out() -> None:
    secure = {"secure_aggregation": {"mode": "secure"}}
    with pytest.raises(PlanError, match=r"rounds\.cohort_size: 3 clients a round cannot hide each other") as caught:
        load_federation(plan("sine", clients=3, unseen_clients=1, more=secure), None)
    assert 'secure_aggregation.mode = "plain"' in str(caught.value)
    assert load_federation(plan("sine", clients=4, unseen_clients=1, more=secure), None).plan.secure


# ---- simulated federations


def test_simulated_clients_are_made_when_asked_for_and_are_the_same_each_time() -> None:
    """As they were when all were made at once: from the seed and the client's number alone."""
    drawn = load_federation(plan("digits", clients=100_000, unseen_clients=1, examples=12, side=8), None)
    pool = base_pools(0)[0]
    for number in (0, 1, 77_777):
        rng = np.random.default_rng([0, 1, number])
        assert isinstance(drawn.plan.data, DigitsData)
        style = draw_style(drawn.plan.data, number, rng)
        chosen = pool.take(rng.permutation(1000)[:12])
        assert_same(drawn.training[f"writer-{number:06d}"], Examples(render(chosen.inputs, style, 8), chosen.targets))
    waves = load_federation(plan("sine", clients=100_000, unseen_clients=1, examples=7), None)
    rng = np.random.default_rng([0, 1, 4321])
    amplitude, phase = rng.uniform(0.1, 5.0), rng.uniform(0.0, 2.0 * np.pi)
    points = rng.uniform(-5.0, 5.0, size=7)
    expected = amplitude * np.sin(points + phase)
    wave = Examples(points[:, np.newaxis].astype(np.float32), expected.astype(np.float32))
    assert_same(waves.training["wave-004321"], wave)


def counted(count: int = 5, kept_bytes: int = 1 << 20) -> tuple[MadeWhenAsked, list[int]]:
    """Clients of 24 bytes each, and the numbers of those that were made, in order."""
    made: list[int] = []

    def make(number: int) -> Examples:
        made.append(number)
        return Examples(np.full((2, 1), number, dtype=np.float32), np.zeros(2, dtype=np.int64))

    return MadeWhenAsked("client", count, make, kept_bytes=kept_bytes), made


def test_naming_and_counting_clients_makes_none() -> None:
    clients, made = counted(100_000)
    names = list(clients)
    assert (len(clients), len(names), names[0], names[-1]) == (100_000, 100_000, "client-000000", "client-099999")
    assert names == sorted(names) == list(clients.keys())
    assert "client-099999" in clients
    for other in (
        "client-100000",
        "client-5",
        "client-0000001",
        "other-000001",
        "client-00000x",
        "client-00000\u0661",
        "",
    ):
        assert other not in clients
        with pytest.raises(KeyError):
            clients[other]
    assert 7 not in clients
    assert made == []


def test_clients_asked_last_are_kept_up_to_a_size_and_no_farther() -> None:
    clients, made = counted(kept_bytes=3 * 24)
    for number in (0, 1, 2, 0, 1, 2):
        assert clients[f"client-{number:06d}"].inputs[0, 0] == number
    assert made == [0, 1, 2]
    assert clients["client-000003"].inputs[0, 0] == 3, "which takes the place of the one asked longest ago"
    assert clients["client-000001"] is clients["client-000001"]
    assert clients["client-000000"].inputs[0, 0] == 0
    assert made == [0, 1, 2, 3, 0]
    small, made = counted(kept_bytes=10)
    assert [len(examples) for examples in small.values()] == [2] * 5
    assert small["client-000004"].inputs[0, 0] == 4
    assert made == [0, 1, 2, 3, 4, 4], "one that is larger than what is kept is not kept"


def test_digits_are_disjoint_between_training_support_and_query() -> None:
    # with no style, an image tells which base image it was
    plain = {"rotation_degrees": 0, "slant": 0, "polarity": False, "stroke": False, "side": 8}
    federation = load_federation(plan("digits", clients=8, unseen_clients=4, examples=1000, **plain), None)
    parts = [images(federation, part) for part in ("training", "support", "query")]
    assert [len(part) for part in parts] == [1000, 400, pytest.approx(397, abs=60)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]


def test_digit_pools_hold_every_class_in_its_share() -> None:
    pools = base_pools(seed=5)
    assert [len(pool) for pool in pools] == [1000, 400, 397]
    total = np.bincount(np.concatenate([pool.targets for pool in pools]))
    for pool in pools:
        np.testing.assert_allclose(np.bincount(pool.targets), total * len(pool) / 1797, atol=1.01)


def test_digits_are_what_the_plan_says() -> None:
    small = {"clients": 4, "unseen_clients": 2, "examples": 30, "side": 12}
    federation = load_federation(plan("digits", **small), None)
    assert (federation.plan.model.inputs, federation.plan.model.outputs) == ((1, 12, 12), 10)
    writers = list(federation.training.values())
    assert [examples.inputs.shape for examples in writers] == [(30, 1, 12, 12)] * 4
    assert writers[0].inputs.dtype == np.float32
    assert writers[0].inputs.min() >= -1
    assert writers[0].inputs.max() <= 1
    # half of the clients write white on black
    assert [bool(examples.inputs.mean() < 0) for examples in writers] == [False, True, False, True]
    again = load_federation(plan("digits", **small | {"clients": 2}), None)
    for client, examples in again.training.items():
        assert_same(examples, federation.training[client])
    other = load_federation(plan("digits", more={"seed": 1}, **small), None)
    assert not images(federation, "training") & images(other, "training")


def test_a_style_turns_digits_and_leaves_their_labels() -> None:
    still = {
        "clients": 2,
        "unseen_clients": 1,
        "examples": 50,
        "slant": 0,
        "polarity": False,
        "stroke": False,
    }
    upright = load_federation(plan("digits", rotation_degrees=0, **still), None)
    turned = load_federation(plan("digits", rotation_degrees=60, **still), None)
    for client, examples in turned.training.items():
        np.testing.assert_array_equal(examples.targets, upright.training[client].targets)
        assert not np.allclose(examples.inputs, upright.training[client].inputs, atol=0.1)


def test_sine_waves_are_sine_waves() -> None:
    federation = load_federation(plan("sine", clients=5, unseen_clients=3, examples=40), None)
    assert (federation.plan.model.inputs, federation.plan.model.outputs) == ((1,), 1)
    assert len(federation.training) == 5
    for client in federation.unseen.values():
        assert client.query is not None
        assert len(client.support) == 40
        np.testing.assert_allclose(client.query.inputs[:, 0], np.linspace(-5, 5, 100), rtol=1e-6)
        # a wave fitted to the support predicts the query: a sin(x) + b cos(x)
        waves = [
            np.stack([np.sin(x), np.cos(x)], axis=1) for x in (client.support.inputs[:, 0], client.query.inputs[:, 0])
        ]
        coefficients = np.linalg.lstsq(waves[0], client.support.targets, rcond=None)[0]
        assert 0.1 <= np.hypot(*coefficients) <= 5
        np.testing.assert_allclose(waves[1] @ coefficients, client.query.targets, atol=1e-4)
    assert len({client.query.targets.tobytes() for client in federation.unseen.values() if client.query}) == 3


def test_data_is_asked_for_where_it_is_needed_and_only_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the retail federation needs data. Pass --data PATH"):
        load_federation(plan("retail"), None)
    with pytest.raises(DataError, match=r"the sine federation simulates its own data.*Take --data out"):
        load_federation(plan("sine"), tmp_path)


def test_a_plan_that_disagrees_with_the_data_is_refused_fault_by_fault() -> None:
    with pytest.raises(PlanError) as caught:
        load_federation(plan("digits", more={"model": {"inputs": [3], "outputs": 4}}), None)
    assert [fault.key for fault in caught.value.faults] == ["model.inputs", "model.outputs"]
    assert "[3] is stated, but the data has [1, 16, 16]" in str(caught.value)
    with pytest.raises(PlanError, match="a conv net needs"):
        load_federation(plan("sine", more={"model": {"name": "conv"}}), None)


# ---- omniglot

ALPHABETS, CHARACTERS, DRAWINGS = 4, 4, 20


def draw_noise() -> npt.NDArray[np.uint8]:
    """Ink ``uint8[alphabet, character, drawing, 105, 105]``: noise, 0 or 255."""
    shape = (ALPHABETS, CHARACTERS, DRAWINGS, 105, 105)
    return (np.random.default_rng(0).integers(0, 2, size=shape) * 255).astype(np.uint8)


NOISE = draw_noise()


@pytest.fixture(scope="module")
def official_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official layout, small: black ink on white, one bit a pixel."""
    path = tmp_path_factory.mktemp("official") / "images_background.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/images_background/A0/character01/._0000_00.png", b"no image")
        for alphabet, character, drawing in np.ndindex(ALPHABETS, CHARACTERS, DRAWINGS):
            png = io.BytesIO()
            Image.fromarray(255 - NOISE[alphabet, character, drawing]).convert("1").save(png, "PNG")
            name = f"A{alphabet}/character{character:02}/{alphabet:02}{character:02}_{drawing:02}.png"
            archive.writestr(f"images_background/{name}", png.getvalue())
    return path


def write_npz(path: Path, **changed: npt.NDArray[np.generic]) -> Path:
    fields: dict[str, Any] = {
        "images": NOISE.reshape(-1, DRAWINGS, 105, 105),
        "alphabet_id": np.repeat(np.arange(ALPHABETS, dtype=np.uint8), CHARACTERS),
        "alphabet_names": np.array([f"A{alphabet}" for alphabet in range(ALPHABETS)]),
        "char_in_alphabet": np.tile(np.arange(CHARACTERS, dtype=np.uint8), ALPHABETS),
    }
    np.savez(path, **(fields | changed))
    return path


def test_omniglot_reads_alike_zipped_unzipped_and_packed(official_zip: Path, tmp_path: Path) -> None:
    asked = plan("omniglot", side=15, episodes="alphabet")
    with zipfile.ZipFile(official_zip) as archive:
        archive.extractall(tmp_path)
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / official_zip.name).write_bytes(official_zip.read_bytes())
    (tmp_path / "both" / "images_background").symlink_to(tmp_path / "images_background")
    packed = load_federation(asked, write_npz(tmp_path / "omniglot.npz"))
    assert sorted([*packed.training, *packed.unseen]) == ["A0", "A1", "A2", "A3"]
    unzipped = tmp_path / "images_background"
    for path in (official_zip, official_zip.parent, unzipped, tmp_path / "both"):
        federation = load_federation(asked, path)
        assert federation.plan.digest == packed.plan.digest
        assert set(federation.unseen) == set(packed.unseen)
        for alphabet, examples in federation.training.items():
            assert_same(examples, packed.training[alphabet])


def test_ink_is_one_and_shrinks_by_area() -> None:
    np.testing.assert_allclose(area_average(np.ones((1, 105, 105), np.float32), 14), 1.0, rtol=1e-5)
    quarter = np.array([[[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]], dtype=np.float32)
    np.testing.assert_array_equal(area_average(quarter, 2), [[[0.25, 0], [0, 1]]])
    # 3 -> 2: the middle column counts half in both
    np.testing.assert_allclose(area_average(np.array([[[0, 3, 0]] * 3], np.float32), 2), np.ones((1, 2, 2)), rtol=1e-6)


def test_rotations_are_more_characters_of_those_who_train_and_of_nobody_else(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "omniglot.npz")
    plain = load_federation(plan("omniglot", unseen_share=0.5), path)
    turned = load_federation(plan("omniglot", unseen_share=0.5, rotations=True), path)
    for alphabet, examples in plain.training.items():
        more = turned.training[alphabet]
        assert np.bincount(more.targets).tolist() == [DRAWINGS] * CHARACTERS * 4
        for character, turns in np.ndindex(CHARACTERS, 4):
            drawings = more.inputs[more.targets == character + CHARACTERS * turns]
            upright = examples.inputs[examples.targets == character]
            np.testing.assert_array_equal(drawings[:, 0], [np.rot90(drawing, turns) for drawing in upright[:, 0]])
    for name, client in plain.unseen.items():
        assert_same(client.support, turned.unseen[name].support)


def test_mixed_episodes_draw_from_every_unseen_alphabet_and_from_no_other(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "omniglot.npz")
    apart = load_federation(plan("omniglot", unseen_share=0.5, episodes="alphabet"), path)
    mixed = load_federation(plan("omniglot", unseen_share=0.5), path)
    assert list(mixed.training) == list(apart.training)
    assert len(mixed.unseen) == len(apart.unseen) == 2
    everything = np.concatenate([client.support.inputs for client in apart.unseen.values()])
    for client in mixed.unseen.values():
        np.testing.assert_array_equal(client.support.inputs, everything)
        characters, drawings = np.unique(client.support.targets, return_counts=True)
        assert len(characters) == 2 * CHARACTERS
        assert set(drawings) == {DRAWINGS}


def test_as_many_alphabets_train_as_the_plan_asks_for_and_the_unseen_ones_stay(tmp_path: Path) -> None:
    """By their names alone, so that whoever trains, nobody becomes unseen for it, and fewer are among more."""
    path = write_npz(tmp_path / "omniglot.npz")
    everybody = load_federation(plan("omniglot", unseen_share=0.25, episodes="alphabet"), path)
    assert len(everybody.training) == 3
    kept = [
        load_federation(plan("omniglot", unseen_share=0.25, episodes="alphabet", clients=count), path)
        for count in (2, 3)
    ]
    assert [len(federation.training) for federation in kept] == [2, 3]
    assert set(kept[0].training) < set(kept[1].training) == set(everybody.training)
    for federation in kept:
        assert list(federation.training) == sorted(federation.training)
        assert set(federation.unseen) == set(everybody.unseen)
        for name, examples in federation.training.items():
            np.testing.assert_array_equal(examples.inputs, everybody.training[name].inputs)
    with pytest.raises(DataError, match="3 alphabets may train, and the plan asks for 4") as caught:
        load_federation(plan("omniglot", unseen_share=0.25, clients=4), path)
    assert "data.clients to 3 or less" in caught.value.remedy


def test_clients_that_are_kept_are_those_farthest_from_being_unseen() -> None:
    names = [f"client-{number}" for number in range(20)]
    unseen = split_unseen(names, 0.25)
    assert not unseen & set(first_ids(names, 15))
    assert set(first_ids(names, 15)) | unseen == set(names)
    assert set(first_ids(names, 3)) < set(first_ids(names, 4))
    assert first_ids(reversed(names), 7) == first_ids(names, 7)


def test_omniglot_files_that_cannot_be_used(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for path, problem in (
        (empty, "no drawings of Omniglot here"),
        (tmp_path / "none", "does not exist"),
        (write_npz(tmp_path / "a.npz", alphabet_id=np.zeros(3, np.uint8)), "do not fit together"),
    ):
        with pytest.raises(DataError, match=problem):
            load_federation(plan("omniglot"), path)
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(DataError, match=r"not an Omniglot .npz: it needs the fields images"):
        load_federation(plan("omniglot"), tmp_path / "b.npz")
    small = NOISE.reshape(-1, DRAWINGS, 105, 105)[..., :9, :9]
    with pytest.raises(PlanError, match=r"data.side: 10 pixels a side, but the images have 9"):
        load_federation(plan("omniglot", side=10), write_npz(tmp_path / "c.npz", images=small))


def test_alphabets_too_small_for_an_episode_are_left_out_by_name(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "o.npz", alphabet_id=np.array([0] * 7 + [1] * 1 + [2] * 4 + [3] * 4, np.uint8))
    federation = load_federation(plan("omniglot"), path)
    reasons = {one.client: one.reason for one in federation.excluded}
    assert list(reasons) == ["A1"]
    assert reasons["A1"].startswith("1 characters with")
    with pytest.raises(DataError, match="left out: client 'A0': 4 characters with 5 drawings"):
        load_federation(plan("omniglot", more={"task": {"kind": "few_shot", "ways": 5, "shots": 5}}), write_npz(path))


# ---- tables


def table_plan(kind: str = "classification", **data: object) -> FederationPlan:
    return plan("csv", kind=kind, **{"client": "who", "target": "y", **data})


def rows_of(client: str, count: int = 20) -> list[str]:
    """who, day, age (a number), ward (a category), lab (sometimes empty), fixed (constant), y."""
    rng = np.random.default_rng(list(client.encode()))
    made = []
    for day in range(count):
        age, lab = rng.normal(50, 10), rng.normal()
        ward = "NSW"[rng.integers(3)]
        label, tested = "no" if day % 2 else "yes", "" if day == 3 else f"{lab:.3f}"
        made.append(f"{client},{day},{age:.3f},{ward},{tested},7,{label}")
    return made


RETAIL = "client,retailer,week,volume,display,price"
HEADER = "who,day,age,ward,lab,fixed,y"
NAMES = [f"c{number}" for number in range(8)]


def write_table(path: Path, rows: Sequence[str], header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path


def good_rows() -> list[str]:
    return [row for name in NAMES for row in rows_of(name)]


def change(rows: list[str], client: str, row: int, cell: int, value: str) -> int:
    """Put a value into a cell of a client's row; the line it stands on."""
    place = [number for number, text in enumerate(rows) if text.startswith(f"{client},")][row]
    cells = rows[place].split(",")
    cells[cell] = value
    rows[place] = ",".join(cells)
    return place + 2


def test_a_tables_plan_is_completed_from_it(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", good_rows())
    federation = load_federation(table_plan(order="day"), path)
    data = federation.plan.data.model_dump()
    found = {column["name"]: (column["kind"], column["categories"], column["missing"]) for column in data["columns"]}
    # in the table's order; the constant column and the order are no inputs
    assert found == {
        "age": ("number", (), False),
        "ward": ("category", ("N", "S", "W"), False),
        "lab": ("number", (), True),
    }
    assert data["labels"] == ("no", "yes")
    assert (federation.plan.model.inputs, federation.plan.model.outputs) == ((6,), 2)
    assert set(federation.unseen) == split_unseen(NAMES, 0.3)
    assert sorted([*federation.training, *federation.unseen]) == NAMES
    ages = np.concatenate([examples.inputs[:, 0] for examples in federation.training.values()])
    assert (ages.mean(), ages.std()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))
    client = next(iter(federation.unseen.values()))
    assert client.query is not None
    assert (len(client.support), len(client.query)) == (10, 10)


def test_a_table_completes_to_one_digest_and_a_complete_plan_is_left_alone(tmp_path: Path) -> None:
    rows = good_rows()
    first = load_federation(table_plan(), write_table(tmp_path / "t.csv", rows)).plan
    again = load_federation(table_plan(), write_table(tmp_path / "t.csv", rows)).plan
    interleaved = load_federation(table_plan(), write_table(tmp_path / "t.csv", sorted(rows, key=rows_key))).plan
    assert first.digest == again.digest == interleaved.digest
    assert load_federation(first, tmp_path / "t.csv").plan.digest == first.digest
    rows[0] = rows[0].replace(",7,", ",8,")
    assert load_federation(table_plan(), write_table(tmp_path / "t.csv", rows)).plan.digest != first.digest
    assert load_federation(first, tmp_path / "t.csv").plan.digest == first.digest


def rows_key(row: str) -> int:
    return int(row.split(",")[1])


@pytest.mark.parametrize(
    ("cell", "value", "reason"),
    [
        (2, "nan", "the value of column 'age' is not a finite number"),
        (2, "inf", "the value of column 'age' is not a finite number"),
        (2, "unknown", "the value of column 'age' is a word for no value: leave the cell empty"),
        (3, "nan", "the value of column 'ward' is not one of the plan's categories"),
        (6, "", "the value of column 'y' is empty"),
        (1, "Monday", "the value of column 'day' is neither a number nor an ISO date"),
    ],
)
@pytest.mark.parametrize("of_unseen", [False, True])
def test_a_client_with_a_bad_cell_is_left_out_by_name_and_leaves_no_trace(
    tmp_path: Path, cell: int, value: str, reason: str, of_unseen: bool
) -> None:
    unseen = split_unseen(NAMES, 0.3)
    client = min(name for name in NAMES if (name in unseen) == of_unseen)
    rows = good_rows()
    line = change(rows, client, 5, cell, value)
    federation = load_federation(table_plan(order="day"), write_table(tmp_path / "t.csv", rows))
    assert [one.client for one in federation.excluded] == [client]
    assert federation.excluded[0].reason.startswith(f"line {line}: {reason}")
    assert set(federation.unseen) == unseen - {client}
    assert client not in federation.training
    # the plan is what it would be had the client's other rows been different too
    for row in range(20):
        change(rows, client, row, 2, "1000")
    change(rows, client, 5, cell, value)
    other = load_federation(table_plan(order="day"), write_table(tmp_path / "t.csv", rows))
    assert other.plan.digest == federation.plan.digest


def test_a_label_that_the_plan_does_not_have_leaves_its_client_out(tmp_path: Path) -> None:
    rows = good_rows()
    line = change(rows, "c2", 4, 6, "SECRET")
    path = write_table(tmp_path / "t.csv", rows)
    federation = load_federation(table_plan(labels=["yes", "no"]), path)
    reason = f"line {line}: the value of column 'y' is not one of the plan's labels"
    assert [(one.client, one.reason) for one in federation.excluded] == [("c2", reason)]
    assert load_federation(table_plan(), path).plan.model.outputs == 3


def test_few_rows_and_no_name_are_reasons_too(tmp_path: Path) -> None:
    rows = [*good_rows(), *rows_of("short", 7), *(row.replace("gone,", ",") for row in rows_of("gone", 9))]
    federation = load_federation(table_plan(), write_table(tmp_path / "t.csv", rows))
    reasons = [(one.client, one.reason) for one in federation.excluded]
    assert reasons == [
        ("(no name)", "column 'who' is empty in 9 rows, the first on line 169"),
        ("short", "7 rows, and 8 are the least"),
    ]


def test_too_few_clients_are_told_with_the_reasons(tmp_path: Path) -> None:
    rows = [row for name in ("c0", "c1", "c2") for row in rows_of(name)]
    path = tmp_path / "t.csv"
    assert len(load_federation(table_plan(), write_table(path, rows)).training) == 2
    line = change(rows, "c1", 0, 2, "x")
    with pytest.raises(DataError) as caught:
        load_federation(table_plan(), write_table(path, rows))
    assert f"client 'c1': line {line}: the value of column 'age' is not a finite number" in str(caught.value)
    assert str(caught.value).startswith(str(path))
    with pytest.raises(DataError, match=r"2 clients have rows enough.*client 'c2': 3 rows, and 8 are the least"):
        load_federation(table_plan(), write_table(path, [*rows_of("c0"), *rows_of("c1"), *rows_of("c2", 3)]))
    with pytest.raises(DataError, match="0 clients can train and 0 can be evaluated"):
        load_federation(table_plan("regression"), write_table(path, good_rows()))


def test_columns_that_cannot_be_inputs_are_refused_with_a_way_out(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", [f"{row},note {n}" for n, row in enumerate(good_rows())], HEADER + ",note")
    with pytest.raises(DataError, match="column 'note' is not a number for most clients, and 160 categories") as caught:
        load_federation(table_plan(), path)
    assert "data.columns" in caught.value.remedy
    listed = load_federation(table_plan(columns=[{"name": "age", "center": 50, "scale": 10}]), path)
    assert listed.plan.model.inputs == (1,)
    with pytest.raises(DataError, match=r"no column 'agee'. Did you mean 'age'"):
        load_federation(table_plan(columns=[{"name": "agee"}]), path)
    with pytest.raises(DataError, match="no column 'whom' and no column 'z'"):
        load_federation(table_plan(client="whom", target="z"), path)
    with pytest.raises(DataError, match="no input column has two different values"):
        load_federation(table_plan(), write_table(path, [f"{n},{m % 2},1" for n in "abc" for m in range(9)], "who,y,x"))


def test_numeric_labels_sort_as_numbers(tmp_path: Path) -> None:
    rows = [f"{name},{day},{(10, 9, 2)[day % 3]}" for name in NAMES for day in range(12)]
    federation = load_federation(table_plan(), write_table(tmp_path / "t.csv", rows, "who,x,y"))
    assert federation.plan.data.model_dump()["labels"] == ("2", "9", "10")


def test_a_regression_table_is_in_time_order_and_scaled(tmp_path: Path) -> None:
    rows = [f"{name},{day},{day % 5},{100 + day}" for name in NAMES for day in reversed(range(12))]
    path = write_table(tmp_path / "t.csv", rows, "who,day,x,y")
    federation = load_federation(table_plan("regression", order="day"), path)
    targets = np.concatenate([examples.targets for examples in federation.training.values()])
    assert (targets.mean(), targets.std()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))
    client = next(iter(federation.unseen.values()))
    assert client.query is None
    assert (np.diff(client.support.targets) > 0).all()
    unsorted = load_federation(table_plan("regression", columns=[{"name": "x"}]), path)
    assert (np.diff(next(iter(unsorted.unseen.values())).support.targets) < 0).all()
    more = {"evaluation": {"shots": [0, 12]}}
    with pytest.raises(DataError, match=r"12 rows, and the largest of evaluation.shots, 12, leaves none to score"):
        load_federation(plan("csv", client="who", target="y", more=more), path)


# ---- built-in tables, small copies


def test_retail_sorts_weeks_and_leaves_out_who_has_no_price(tmp_path: Path) -> None:
    rows = [f"{name},shop,{week},{10 + week},0.5,2.5" for name in NAMES for week in reversed(range(12))]
    line = change(rows, "c1", 3, 5, "0")
    federation = load_federation(plan("retail"), write_table(tmp_path / "r.csv", rows, RETAIL))
    reason = f"line {line}: the value of column 'price' is not above zero"
    assert [(one.client, one.reason) for one in federation.excluded] == [("c1", reason)]
    for examples in federation.training.values():
        np.testing.assert_allclose(examples.targets, np.log(10 + np.arange(12)), rtol=1e-6)
        scaled = [0.5 / 0.2, (np.log(2.5) - 1) / 0.2]
        np.testing.assert_allclose(examples.inputs, np.tile(scaled, (12, 1)), rtol=1e-6)
    with pytest.raises(DataError, match=r"no column 'display'. Did you mean 'displayed'"):
        load_federation(plan("retail"), write_table(tmp_path / "r.csv", rows, RETAIL.replace("display", "displayed")))


def test_activity_scales_by_those_who_train_and_tells_missing_peaks(tmp_path: Path) -> None:
    unseen = split_unseen(NAMES, 0.3)
    windows = [(name, label, window) for name in NAMES for label in ("Sitting", "Walking") for window in range(16)]
    rows = []
    for name, label, window in windows:
        value = (1000 if name in unseen else 0) + window
        cells = ["" if feature == "YPEAK" and window == 2 else str(value) for feature in FEATURES]
        rows.append(",".join(["1", name, "0", *cells, label]))
    header = ",".join(["UNIQUE_ID", "user", "XAVG", *FEATURES, "class"])
    rows.append(rows[0].replace(",c0,", ",once,"))
    federation = load_federation(plan("activity"), write_table(tmp_path / "a.csv", rows, header))
    assert [(one.client, one.reason) for one in federation.excluded] == [("once", "1 rows, and 2 are the least")]
    assert set(federation.unseen) == unseen
    inputs = np.concatenate([examples.inputs for examples in federation.training.values()])
    assert inputs.shape == (len(federation.training) * 32, 45)
    np.testing.assert_allclose(inputs[:, 0].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(inputs[:, 0].std(), 1, atol=1e-5)
    person = federation.unseen[min(unseen)]
    assert person.query is not None
    assert person.support.targets.tolist() == [0] * 8 + [1] * 8
    # windows 0..7 of each activity, in order, far from those who train
    scaled = (1000 + np.tile(np.arange(8), 2) - 7.5) / np.arange(16).std()
    np.testing.assert_allclose(person.support.inputs[:, 0], scaled, rtol=1e-5)
    peak = list(FEATURES).index("YPEAK") + 1  # after XPEAK's indicator
    missing = np.tile(np.arange(8) == 2, 2)
    np.testing.assert_array_equal(person.support.inputs[:, peak + 1], missing)
    assert (person.support.inputs[missing, peak] == 0).all()


# ---- real data


def test_retail(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "retail_demand" / "retail_demand.csv.gz"
    federation = load_federation(plan("retail"), path)
    assert (len(federation.training), len(federation.unseen), federation.excluded) == (42, 18, ())
    assert federation.plan.model.inputs == (2,)
    client = federation.training["41"] if "41" in federation.training else federation.unseen["41"].support
    # week 0: volume 21374, display 0.162, price 2.57846
    assert client.targets[0] == pytest.approx(np.log(21374))
    assert client.inputs[0] == pytest.approx([0.162 / 0.2, (np.log(2.57846) - 1) / 0.2], rel=1e-5)


def test_activity(shared_data: Path) -> None:
    federation = load_federation(plan("activity"), shared_data / "activity" / "activity.csv.gz")
    assert (len(federation.training), len(federation.unseen), federation.excluded) == (17, 7, ())
    assert (federation.plan.model.inputs, federation.plan.model.outputs) == ((45,), 6)
    inputs = np.concatenate([examples.inputs for examples in federation.training.values()])
    assert np.isfinite(inputs).all()
    indicators = [column for column in range(45) if set(np.unique(inputs[:, column])) == {0.0, 1.0}]
    assert len(indicators) == 3
    for person in federation.unseen.values():
        assert person.query is not None
        counts = np.bincount(person.support.targets)
        assert counts.max() <= 10
        # whatever a person does is scored, also what they seldom do
        assert set(person.query.targets) == set(person.support.targets)


def test_omniglot(shared_data: Path) -> None:
    federation = load_federation(plan("omniglot"), shared_data / "omniglot")
    assert (len(federation.training), len(federation.unseen), federation.excluded) == (21, 9, ())
    assert (federation.plan.model.inputs, federation.plan.model.outputs) == ((1, 14, 14), 3)
    for examples in federation.training.values():
        assert 0 <= examples.inputs.min() < examples.inputs.max() <= 1
        assert (np.bincount(examples.targets)[np.unique(examples.targets)] == 20).all()
