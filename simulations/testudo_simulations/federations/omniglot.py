"""Omniglot, an alphabet a client: 20 drawings of every character, for N-way K-shot episodes within it.

Reads the project's ``.npz`` of 28-pixel images, or the official files, zipped or not. Sources: Lake,
Salakhutdinov, Tenenbaum 2015 (Science 350), github.com/brendenlake/omniglot (MIT); characters turned by quarters as
more characters: Santoro et al. 2016 (arXiv:1605.06065).
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from testudo_common.errors import DataError, Fault, PlanError
from testudo_common.learning.tasks import Examples
from testudo_common.plan import FederationPlan
from testudo_common.plan.sections import OmniglotData
from testudo_simulations.federations.base import Exclusion, Federation, UnseenClient
from testudo_simulations.federations.clients import check_enough
from testudo_simulations.federations.complete import complete_plan
from testudo_simulations.federations.split import first_ids, split_unseen

# alphabet -> (ink float32[n, h, w] in [0, 1], character number int64[n])
Alphabets = dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]

_FIELDS = ("images", "alphabet_id", "alphabet_names", "char_in_alphabet")
_DRAWING = re.compile(r"(?:^|/)images_\w+/([^/]+)/(character\d+)/([^/.]+)\.png$")
_MAX_DRAWING_BYTES = 1 << 16  # an official one has about 300
_REMEDY = "Name the .npz, or the folder or zip that holds images_background and images_evaluation"


def load(plan: FederationPlan, data: OmniglotData, path: Path) -> Federation:
    """Read the federation.

    Args:
        plan: A few-shot plan.
        data: Its data section.
        path: The ``.npz`` or a folder with it, or an official zip, or a folder with those, unzipped or not.

    Returns:
        Inputs ``float32[n, 1, side, side]``, ink 1 and paper 0; targets are numbers of characters. Unseen
        clients have no query: episodes are drawn from the support. With mixed episodes each of them holds the
        characters of all unseen alphabets, and they differ in the episodes drawn.

    Raises:
        DataError: The files cannot be used, or too few alphabets are left.
        PlanError: The plan states another shape for the model, or more pixels than the images have.
    """
    alphabets = _read(path)
    pixels = min(min(ink.shape[1:]) for ink, _ in alphabets.values())
    if data.side > pixels:
        problem = f"{data.side} pixels a side, but the images have {pixels}"
        raise PlanError([Fault("data.side", problem, f"Write {pixels} or less")], source=plan.name)
    kept_out = split_unseen(alphabets, data.unseen_share)
    training: dict[str, Examples] = {}
    unseen: dict[str, UnseenClient] = {}
    excluded: list[Exclusion] = []
    for name, (ink, characters) in sorted(alphabets.items()):
        needed = plan.task.shots or 1
        if name in kept_out:
            needed = max(plan.evaluation.shots) + plan.evaluation.queries
        if reason := _too_small(characters, plan.task.ways or 2, needed):
            excluded.append(Exclusion(name, reason))
            continue
        examples = Examples(area_average(ink, data.side)[:, np.newaxis], characters)
        if name in kept_out:
            unseen[name] = UnseenClient(examples)
        else:
            training[name] = _turned(examples) if data.rotations else examples
    check_enough(len(training), len(unseen), excluded, str(path))
    training = _kept(training, data.clients, str(path))
    if data.episodes == "mixed":
        unseen = _mixed(unseen)
    completed = complete_plan(plan, (1, data.side, data.side), plan.task.ways or 2)
    source = "Omniglot (Lake, Salakhutdinov, Tenenbaum 2015; MIT)"
    return Federation(completed, training, unseen, tuple(excluded), source)


def _kept(training: dict[str, Examples], clients: int | None, where: str) -> dict[str, Examples]:
    """``clients`` of them, by their names alone."""
    if clients is None:
        return training
    if clients > len(training):
        raise DataError(
            f"{len(training)} alphabets may train, and the plan asks for {clients}",
            where=where,
            remedy=f"Set data.clients to {len(training)} or less, or data.unseen_share lower",
        )
    return {name: training[name] for name in sorted(first_ids(training, clients))}


def _turned(examples: Examples) -> Examples:
    """Four times as many: every character as it is, and turned by one to three quarters as other characters."""
    quarters = [np.rot90(examples.inputs, turns, axes=(2, 3)) for turns in range(4)]
    beyond = int(examples.targets.max()) + 1
    numbers = np.concatenate([examples.targets.astype(np.int64) + turns * beyond for turns in range(4)])
    return Examples(np.concatenate(quarters), numbers)


def _mixed(unseen: dict[str, UnseenClient]) -> dict[str, UnseenClient]:
    """As many clients as there are unseen alphabets, each with the characters of all of them."""
    inputs, targets, first = [], [], 0
    for client in unseen.values():
        _, numbers = np.unique(client.support.targets, return_inverse=True)
        inputs.append(client.support.inputs)
        targets.append(numbers.astype(np.int64) + first)
        first += int(numbers.max()) + 1
    pool = Examples(np.concatenate(inputs), np.concatenate(targets))
    return {f"mixed-{number:02d}": UnseenClient(pool) for number in range(len(unseen))}


def area_average(images: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """Shrink ``float32[n, h, w]`` to ``float32[n, side, side]``; each the mean of its area."""
    rows, columns = (_overlaps(size, side) for size in images.shape[1:])
    return np.asarray(rows @ images @ columns.T, dtype=np.float32)


def _overlaps(size: int, side: int) -> npt.NDArray[np.float32]:
    """``float32[side, size]``: share of each new pixel that each old one covers; rows sum to 1."""
    edges = np.arange(side + 1) * (size / side)
    old = np.arange(size)
    covered = np.minimum(edges[1:, np.newaxis], old + 1) - np.maximum(edges[:-1, np.newaxis], old)
    return np.asarray(np.maximum(covered, 0.0) * (side / size), dtype=np.float32)


def _too_small(characters: npt.NDArray[np.int64], ways: int, drawings: int) -> str:
    counts = np.unique(characters, return_counts=True)[1]
    enough = int((counts >= drawings).sum())
    if enough >= ways:
        return ""
    return f"{enough} characters with {drawings} drawings, and an episode needs {ways}"


def _read(path: Path) -> Alphabets:
    try:
        archives = [path] if path.is_file() else sorted(path.glob("*.npz"))
        if archives and archives[0].suffix == ".npz":
            return _read_npz(archives[0])
        drawings = _zipped(archives or sorted(path.glob("images_*.zip")))
        alphabets = _gather([*drawings, *_unzipped(path)])
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(path), remedy=_REMEDY) from error
    if not alphabets:
        problem = "no drawings of Omniglot here" if path.exists() else "does not exist"
        raise DataError(problem, where=str(path), remedy=_REMEDY)
    return alphabets


def _read_npz(path: Path) -> Alphabets:
    try:
        with np.load(path, allow_pickle=False) as archive:
            images, places, names, numbers = (archive[field] for field in _FIELDS)
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        problem = f"not an Omniglot .npz: it needs the fields {', '.join(_FIELDS)}"
        raise DataError(problem, where=str(path), remedy=_REMEDY) from error
    fits = images.ndim == 4 and images.dtype == np.uint8 and len(images) == len(places) == len(numbers)
    if not fits or not len(images) or not 0 <= int(places.min()) <= int(places.max()) < len(names):
        raise DataError("the fields of this .npz do not fit together", where=str(path), remedy=_REMEDY)
    alphabets: Alphabets = {}
    for place in np.unique(places):
        rows = np.flatnonzero(places == place)
        ink = images[rows].reshape(-1, *images.shape[2:]).astype(np.float32) / np.float32(255)
        alphabets[str(names[place])] = (ink, np.repeat(numbers[rows].astype(np.int64), images.shape[1]))
    return alphabets


def _zipped(archives: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for archive in archives:
        try:
            with zipfile.ZipFile(archive) as opened:
                for member in opened.infolist():
                    if _DRAWING.search(member.filename) and member.file_size <= _MAX_DRAWING_BYTES:
                        yield member.filename, opened.read(member)
        except (zipfile.BadZipFile, zlib.error, RuntimeError) as error:  # RuntimeError: encrypted
            raise DataError("damaged, or not a zip file", where=str(archive), remedy=_REMEDY) from error


def _unzipped(path: Path) -> Iterator[tuple[str, bytes]]:
    for drawing in sorted(path.rglob("*.png")) if path.is_dir() else ():
        yield f"{path.name}/{drawing.relative_to(path).as_posix()}", drawing.read_bytes()


def _gather(drawings: Iterable[tuple[str, bytes]]) -> Alphabets:
    from PIL import Image, UnidentifiedImageError

    # keyed by its own name, since a folder may hold a zip and what came out of it: a drawing that is there
    # twice could be in a support and in its query
    distinct = {match.groups(): content for name, content in drawings if (match := _DRAWING.search(name))}
    found: dict[str, dict[str, list[npt.NDArray[np.float32]]]] = {}
    for (alphabet, character, name), content in sorted(distinct.items()):
        try:
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                grey = np.asarray(image.convert("L"), dtype=np.float32)
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            where = f"{alphabet}/{character}/{name}.png"
            raise DataError("damaged, or not a PNG image", where=where, remedy=_REMEDY) from error
        # black ink on white paper becomes ink 1, paper 0
        found.setdefault(alphabet, {}).setdefault(character, []).append(1.0 - grey / 255.0)
    alphabets: Alphabets = {}
    for alphabet, characters in found.items():
        images = [image for character in characters.values() for image in character]
        if len({image.shape for image in images}) > 1:
            raise DataError("drawings of different sizes", where=alphabet, remedy=_REMEDY)
        numbers = [number for number, character in enumerate(characters.values()) for _ in character]
        alphabets[alphabet] = (np.stack(images).astype(np.float32), np.array(numbers, dtype=np.int64))
    return alphabets
