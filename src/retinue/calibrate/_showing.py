"""What two models said of a picture, to be looked at."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.calibrate.report import Picture, jpeg_uri
from retinue.calibrate.samples import Sample
from retinue.core.settings import Limits
from retinue.core.types import Detections, Image, Outcome, Scores
from retinue.media.decode import decode
from retinue.media.draw import draw_detections
from retinue.models.card import Card

CONF: Final = 0.3
"""Detections below this score are not shown: agreement does not count them either."""

_SIDE: Final = 420
_QUALITY: Final = 72
_LISTED: Final = 5


def show(
    sample: Sample, agreement: float, answers: tuple[Outcome, Outcome], card: Card, limits: Limits
) -> Picture:
    """Draw two answers to a picture, side by side.

    Args:
        sample: The picture; it can be read.
        agreement: Of the answers, in [0, 1].
        answers: A's and B's.
        card: Whose classes they name.
        limits: What a decoder may be given.
    """
    # Shrunk before it is drawn on: labels keep a size that can be read.
    image = _small(decode(sample.read(), limits=limits, target=(_SIDE, _SIDE)))
    said = [f"{side}: {_said(answer, card)}" for side, answer in zip("AB", answers, strict=True)]
    if card.task == "detect":
        drawn = [_drawn(image, answer, card) for answer in answers]
    else:
        said, drawn = ["; ".join(said)], [image.pixels]
    sides = [
        (caption, jpeg_uri(pixels, side=_SIDE, quality=_QUALITY))
        for caption, pixels in zip(said, drawn, strict=True)
    ]
    truth = _truth(sample, card)
    labelled = f"; labelled: {truth}" if truth else ""
    return Picture(sample.name, f"agreement {agreement:.2f}{labelled}", sides)


def _small(image: Image) -> Image:
    height, width = image.pixels.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    pixels = cv2.resize(image.pixels, size, interpolation=cv2.INTER_AREA)
    return Image(np.asarray(pixels, np.uint8), image.width, image.height)


def _drawn(image: Image, answer: Outcome, card: Card) -> NDArray[np.uint8]:
    if not isinstance(answer.value, Detections):
        return image.pixels
    return draw_detections(image, _sure(answer.value), card.classes)


def _sure(found: Detections) -> Detections:
    kept = found.scores >= CONF
    return Detections(found.boxes[kept], found.scores[kept], found.class_ids[kept])


def _said(answer: Outcome, card: Card) -> str:
    if answer.error is not None:
        return f"failed: {answer.error.message}"
    match answer.value:
        case Detections() as found:
            sure = _sure(found)
            pairs = zip(sure.class_ids.tolist(), sure.scores.tolist(), strict=True)
        case Scores(values=values):
            best = np.argsort(-values, kind="stable")[:3]
            pairs = zip(best.tolist(), values[best].tolist(), strict=True)
        case _:
            return "a vector"
    said = [f"{_class(i, card)} {score:.2f}" for i, score in pairs]
    more = f" and {len(said) - _LISTED} more" if len(said) > _LISTED else ""
    return ", ".join(said[:_LISTED]) + more or "nothing"


def _truth(sample: Sample, card: Card) -> str:
    if sample.class_id is not None:
        return _class(sample.class_id, card)
    if sample.boxes is None:
        return ""
    ids, counts = np.unique(sample.boxes.class_ids, return_counts=True)
    pairs = zip(ids.tolist(), counts.tolist(), strict=True)
    return ", ".join(f"{n} {_class(i, card)}" for i, n in pairs) or "nothing"


def _class(index: int, card: Card) -> str:
    return card.classes[index] if index < len(card.classes) else f"class {index}"
