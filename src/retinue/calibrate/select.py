"""Which pictures of a data set calibrate, and which ones are kept to measure with.

Equal files and pictures that look the same are reduced to one, so that nothing that is measured
with has been calibrated with, and no interval counts one picture twice. A random half is held out:
it stays a fair sample of the data set. From the other half the calibration pictures are drawn for
diversity, as k-means++ draws its first centres: each next one with a probability that grows with
the square of its distance to those drawn before. That covers what is rare without preferring
outliers alone, as taking the farthest would.

Distances are between features that cost no network: a thumbnail of 8 x 8 pixels and a histogram
of 4 x 4 x 4 colours, weighted alike, on their first principal components.

Sources: D. Arthur, S. Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007;
difference hashes: N. Krawetz, "Kind of like that", 2013.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.calibrate.samples import Sample, Samples
from retinue.core.errors import InputError, InvalidRequest, RetinueError
from retinue.core.settings import Limits
from retinue.media.decode import decode
from retinue.models.fetch import Progress, Quiet

MIN_CALIBRATION = 32
MIN_HELD_OUT = 32
MAX_CONSIDERED = 10_000
"""Pictures that are looked at; of a larger data set, so many are drawn at random."""

_SIDE = 64
_THUMB = 8
_BINS = 4
_COMPONENTS = 32
_SAME_BITS = 6
_SAME_LEVELS = 8.0

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Split:
    """A data set, divided. No two pictures of it look the same.

    Attributes:
        calibration: Diverse pictures to calibrate with.
        held_out: A random half: to measure with, and for nothing else.
        spare: The rest: free to choose between variants with.
        unreadable: (name, reason) of the files that cannot be decoded.
        duplicates: Files left out because another is equal or looks the same.
        digest: Of the calibration pictures: sha256 (hex) of the sorted sha256 of their files.
    """

    calibration: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    spare: tuple[Sample, ...]
    unreadable: tuple[tuple[str, str], ...]
    duplicates: int
    digest: str


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What is noted of a picture.

    Attributes:
        digest: sha256 of its file, hex.
        bits: (2,) uint64: whether each of 8 x 8 places is brighter than the next one in its row,
            and in its column.
        thumb: (192,) float32, RGB in [0, 255].
        colours: (64,) float32: shares of the colours.
    """

    sample: Sample
    digest: str
    bits: NDArray[np.uint64]
    thumb: Floats
    colours: Floats


def split(
    samples: Samples,
    *,
    calibration: int = 512,
    limits: Limits,
    seed: int = 0,
    progress: Progress | None = None,
) -> Split:
    """Divide a data set; the same pictures give the same parts, in whatever order they come.

    Args:
        samples: The data set.
        calibration: Pictures to calibrate with, at least 32; never more than half of what there
            is.
        limits: What a decoder may be given.
        seed: Equal seeds give equal parts.
        progress: Hears of each picture.

    Raises:
        InvalidRequest: ``calibration`` is below 32.
        InputError: fewer than 64 different pictures can be read.
    """
    if calibration < MIN_CALIBRATION:
        message = f"calibration must be at least {MIN_CALIBRATION} pictures, not {calibration}"
        raise InvalidRequest(message)
    considered = samples.some(MAX_CONSIDERED, seed)
    looks, unreadable = _looks(considered, limits, progress or Quiet())
    kept = _different(looks)
    duplicates = len(looks) - len(kept)
    if len(kept) < MIN_CALIBRATION + MIN_HELD_OUT:
        raise InputError(_too_few(considered, len(kept), unreadable, duplicates))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(kept))
    half = len(kept) // 2
    pool, held_out = order[:half], order[half:]
    chosen = pool[_diverse(_features([kept[i] for i in pool]), min(calibration, half), rng)]
    digests = sorted(kept[i].digest for i in chosen)
    return Split(
        _named(kept, chosen),
        _named(kept, held_out),
        _named(kept, np.setdiff1d(pool, chosen)),
        tuple(unreadable),
        duplicates,
        hashlib.sha256("".join(digests).encode()).hexdigest(),
    )


def _named(looks: Sequence[_Look], indices: NDArray[Any]) -> tuple[Sample, ...]:
    return tuple(sorted((looks[i].sample for i in indices), key=lambda sample: sample.name))


def _too_few(
    samples: Samples, different: int, unreadable: Sequence[tuple[str, str]], duplicates: int
) -> str:
    needed = MIN_CALIBRATION + MIN_HELD_OUT
    why = [f"{duplicates} are duplicates of others"] if duplicates else []
    if unreadable:
        name, reason = unreadable[0]
        why.append(f"{len(unreadable)} cannot be read (the first is {name}: {reason})")
    detail = f"; {', '.join(why)}" if why else ""
    return (
        f"{samples.source}: only {different} different pictures can be used{detail}; at least "
        f"{needed} are needed ({MIN_CALIBRATION} to calibrate and {MIN_HELD_OUT} to measure, "
        "better 500 of each): add more"
    )


def _looks(
    samples: Samples, limits: Limits, progress: Progress
) -> tuple[list[_Look], list[tuple[str, str]]]:
    """Look at every picture; return them ordered by digest, and those that cannot be read."""
    looks: list[_Look] = []
    unreadable: list[tuple[str, str]] = []
    progress.start("looking at the pictures", len(samples))
    for sample in samples:
        try:
            looks.append(_look(sample, limits))
        except RetinueError as error:
            unreadable.append((sample.name, error.message))
        progress.advance(1)
    progress.finish()
    # Nothing that follows may depend on the files' names or order.
    return sorted(looks, key=lambda look: (look.digest, look.sample.name)), unreadable


def _look(sample: Sample, limits: Limits) -> _Look:
    content = sample.read()
    pixels = decode(content, limits=limits, target=(_SIDE, _SIDE)).pixels
    small = cv2.resize(pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    thumb = cv2.resize(small, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    grid = cv2.resize(grey, (_THUMB + 1, _THUMB + 1), interpolation=cv2.INTER_AREA)
    along = grid[:_THUMB, 1:] > grid[:_THUMB, :_THUMB]
    down = grid[1:, :_THUMB] > grid[:_THUMB, :_THUMB]
    bits = np.packbits(np.stack([along, down])).view(np.uint64)
    levels = small.reshape(-1, 3).astype(np.int64) * _BINS // 256
    codes = (levels[:, 0] * _BINS + levels[:, 1]) * _BINS + levels[:, 2]
    colours = np.bincount(codes, minlength=_BINS**3).astype(np.float32) / np.float32(len(codes))
    digest = hashlib.sha256(content).hexdigest()
    return _Look(sample, digest, bits, thumb.astype(np.float32).reshape(-1), colours)


def _different(looks: Sequence[_Look]) -> list[_Look]:
    """Return the pictures without those that look like one before them."""
    unique = list({look.digest: look for look in reversed(looks)}.values())[::-1]
    bits = np.array([look.bits for look in unique], np.uint64).reshape(-1, 2)
    thumbs = np.array([look.thumb for look in unique], np.float32)
    kept: list[int] = []
    for i in range(len(unique)):
        before = np.array(kept, np.int64)
        apart = np.bitwise_count(bits[before] ^ bits[i]).sum(axis=1, dtype=np.int64)
        alike = before[apart <= 2 * _SAME_BITS]
        levels = np.abs(thumbs[alike] - thumbs[i]).mean(axis=1)
        if not (levels <= _SAME_LEVELS).any():
            kept.append(i)
    return [unique[i] for i in kept]


def _features(looks: Sequence[_Look]) -> NDArray[np.float64]:
    """Return (N, at most 32) features: principal components of thumbnails and colours."""
    parts = []
    for block in ([look.thumb for look in looks], [np.sqrt(look.colours) for look in looks]):
        centred = np.array(block, np.float64)
        centred -= centred.mean(axis=0)
        spread = np.sqrt((centred**2).sum(axis=1).mean())
        parts.append(centred / spread if spread > 0 else centred)
    u, s, _ = np.linalg.svd(np.concatenate(parts, axis=1), full_matrices=False)
    return np.asarray(u[:, :_COMPONENTS] * s[:_COMPONENTS])


def _diverse(
    features: NDArray[np.float64], number: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return indices of ``number`` rows, drawn as k-means++ draws its first centres."""
    chosen = [int(rng.integers(len(features)))]
    nearest = np.full(len(features), np.inf)
    while len(chosen) < number:
        gap = ((features - features[chosen[-1]]) ** 2).sum(axis=1)
        nearest = np.minimum(nearest, gap)
        nearest[chosen] = 0.0
        total = nearest.sum()
        if total > 0:
            chosen.append(int(rng.choice(len(features), p=nearest / total)))
        else:
            # What is left looks like what was drawn: any of it will do.
            rest = np.setdiff1d(np.arange(len(features)), chosen)
            chosen += rng.choice(rest, number - len(chosen), replace=False).tolist()
    return np.array(chosen, np.int64)
