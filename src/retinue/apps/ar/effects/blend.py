"""How colours and pictures mix with a frame, in sRGB as everyone's eyes are used to.

With B the frame, S what is put on it and a its alpha, all in [0, 1], the answer is
``(1 - a) B + a f(B, S)`` with f as in W3C's Compositing and Blending (normal, multiply, screen,
overlay); "soft_light" is Pegtop's, ``(1 - 2 S) B^2 + 2 S B``, which has no kink.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.effects.live import Pixels

Blend = Literal["normal", "multiply", "screen", "overlay", "soft_light"]

_STRIP: Final = 96 * 1024
_LEVELS: Final = np.linspace(0, 1, 256)


def rgb(color: str) -> NDArray[np.float64]:
    """Return "#rrggbb" as (3,) in [0, 1], sRGB."""
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def table(color: str, blend: Blend, reference: float = 0.5) -> NDArray[np.uint8]:
    """Return (1, 256, 3) uint8: what each level of a channel becomes under a colour.

    Args:
        color: "#rrggbb".
        blend: "normal" is for a table of luminance: the colour, as much lighter or darker as the
            luminance is than the reference.
        reference: Luminance in (0, 1] at which the colour is itself.
    """
    base, over = _LEVELS[:, None], rgb(color)[None]
    if blend == "normal":
        made = over * base / max(reference, 0.02)
    elif blend == "multiply":
        made = base * over
    elif blend == "screen":
        made = base + over - base * over
    elif blend == "overlay":
        made = np.where(base <= 0.5, 2 * base * over, 1 - 2 * (1 - base) * (1 - over))
    else:
        made = (1 - 2 * over) * base**2 + 2 * over * base
    return np.rint(np.clip(made, 0, 1) * 255).astype(np.uint8)[None]


def mix(pixels: Pixels, target: Pixels, mask: Pixels, opacity: float = 1.0) -> None:
    """Put ``target`` on ``pixels`` in place where ``mask`` is.

    Args:
        pixels: (h, w, 3) uint8, may be a view.
        target: The same shape.
        mask: (h, w) uint8, 255 for all of it.
        opacity: Of the whole, in [0, 1].
    """
    share = np.asarray(cv2.convertScaleAbs(mask, alpha=opacity), np.uint8) if opacity < 1 else mask
    # By strips that stay in the processor's cache.
    rows = max(8, _STRIP // (3 * pixels.shape[1]))
    for top in range(0, len(pixels), rows):
        strip = slice(top, top + rows)
        part = pixels[strip]
        weight = cv2.cvtColor(share[strip], cv2.COLOR_GRAY2RGB)
        # Bytes times bytes over 255 is what OpenCV does fastest: a tenth of its blendLinear.
        above = cv2.multiply(target[strip], weight, scale=1 / 255)
        below = cv2.multiply(part, cv2.bitwise_not(weight), scale=1 / 255)
        part[:] = cv2.add(above, below)


def tint(
    pixels: Pixels, mask: Pixels, color: str, blend: Blend, opacity: float, gray: Pixels | None
) -> None:
    """Colour a region in place; light and shadow stay.

    Args:
        pixels: (h, w, 3) uint8, may be a view.
        mask: (h, w) uint8.
        color: "#rrggbb".
        blend: How.
        opacity: In [0, 1].
        gray: (h, w) uint8, the pixels' luminance; needed for "normal" alone.
    """
    if blend == "normal" and gray is not None:
        reference = cv2.mean(gray, mask)[0] / 255 if cv2.countNonZero(mask) else 0.5
        made = cv2.LUT(cv2.merge([gray, gray, gray]), table(color, blend, reference))
    else:
        made = cv2.LUT(np.ascontiguousarray(pixels), table(color, blend))
    mix(pixels, np.asarray(made, np.uint8), mask, opacity)


def over(pixels: Pixels, drawn: Pixels, blend: Blend = "normal") -> None:
    """Put a picture on pixels in place.

    Args:
        pixels: (h, w, 3) uint8, may be a view.
        drawn: (h, w, 4) uint8, alpha premultiplied.
        blend: How.
    """
    p = np.ascontiguousarray(drawn[..., :3])
    a = cv2.cvtColor(np.ascontiguousarray(drawn[..., 3]), cv2.COLOR_GRAY2RGB)
    pixels[:] = _OVER[blend](np.ascontiguousarray(pixels), p, np.asarray(a, np.uint8))


# f is a polynomial in S, so that a f(B, S) needs a S alone, which is what was drawn: p. All are
# bytes; a difference never leaves 0 to 255.


def _times(one: Any, other: Any, factor: float = 1.0) -> Any:
    return cv2.multiply(one, other, scale=factor / 255)


def _normal(b: Pixels, p: Pixels, a: Pixels) -> Any:
    return cv2.add(_times(b, cv2.bitwise_not(a)), p)


def _multiply(b: Pixels, p: Pixels, a: Pixels) -> Any:
    return _times(b, cv2.add(cv2.bitwise_not(a), p))


def _screen(b: Pixels, p: Pixels, a: Pixels) -> Any:
    return cv2.add(b, _times(cv2.bitwise_not(b), p))


def _overlay(b: Pixels, p: Pixels, a: Pixels) -> Any:
    dark = _times(b, p, 2)
    light = cv2.subtract(a, _times(cv2.bitwise_not(b), cv2.subtract(a, p), 2))
    choice = cv2.threshold(b, 127, 255, cv2.THRESH_BINARY)[1]
    chosen = cv2.bitwise_or(cv2.bitwise_and(light, choice), _without(dark, choice))
    return cv2.add(_times(b, cv2.bitwise_not(a)), chosen)


def _without(values: Any, choice: Any) -> Any:
    return cv2.bitwise_and(values, cv2.bitwise_not(choice))


def _soft_light(b: Pixels, p: Pixels, a: Pixels) -> Any:
    bent = _times(p, _times(b, cv2.bitwise_not(b), 4), 0.5)
    straight = cv2.add(_times(b, cv2.bitwise_not(a)), _times(_times(b, b), a))
    return cv2.add(straight, bent)


_OVER: Final[dict[str, Callable[[Pixels, Pixels, Pixels], Any]]] = {
    "normal": _normal,
    "multiply": _multiply,
    "screen": _screen,
    "overlay": _overlay,
    "soft_light": _soft_light,
}
