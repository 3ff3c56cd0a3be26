"""Vision transformers from the hub, as embedding models: CLIP, OpenCLIP, SigLIP, DINOv2.

They are read like those of family "embedder", but for how a picture is resized: with Pillow's
filters, which smooth when they shrink, as the authors' own code does. What each was trained with:

- CLIP, OpenCLIP: the short side to 224, bicubic; the middle 224 x 224; CLIP's mean and deviation
  (https://github.com/openai/CLIP, ``clip.load``; https://github.com/mlfoundations/open_clip).
- SigLIP: the whole picture to 224 x 224, bicubic, whatever its aspect ratio; pixels in [-1, 1]
  (https://github.com/huggingface/transformers, ``SiglipImageProcessor``).
- DINOv2: the short side to 256, bicubic; the middle 224 x 224; ImageNet's mean and deviation
  (https://github.com/facebookresearch/dinov2, ``make_classification_eval_transform``).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image as PillowImage

from retinue.core.types import Image, Prepared
from retinue.models.card import Card, Family, Input, Output, Source
from retinue.models.embedder import Embedder

LAYOUT: Final = "vit"

_FILTERS: Final = {
    "bilinear": PillowImage.Resampling.BILINEAR,
    "bicubic": PillowImage.Resampling.BICUBIC,
    "area": PillowImage.Resampling.BOX,
}


class VitEmbedder(Embedder):
    """An `Embedder` whose pictures are resized as Pillow does it, in one pass over the crop."""

    def preprocess(self, image: Image) -> Prepared:
        """Resize and crop by the card, with smoothing, and normalise.

        Letterboxes are as in every other family.
        """
        spec = self.card.input
        if spec.resize == "letterbox":
            return super().preprocess(image)
        height, width = image.pixels.shape[:2]
        box = (0.0, 0.0, float(width), float(height))
        if spec.resize == "center_crop":
            box = crop_box(width, height, spec)
        picture = PillowImage.fromarray(image.pixels)
        resized = picture.resize((spec.width, spec.height), _FILTERS[spec.interpolation], box)
        row = self._normalize(np.asarray(resized))
        return Prepared({self._input.name: row}, image.width, image.height)


def crop_box(width: int, height: int, spec: Input) -> tuple[float, float, float, float]:
    """Return x1 y1 x2 y2 of what remains of a picture, in its pixels.

    The originals resize the picture so that it just covers ``out / crop``, the long side rounded
    down, and cut out the middle, rounded down. Resizing this box alone gives the same pixels to two
    grey levels, but for some beside saturated ones, and takes no more time for a long picture.
    """
    scale = max(spec.height / spec.crop / height, spec.width / spec.crop / width)
    across, down = _side(width, scale, spec.width), _side(height, scale, spec.height)
    x, y = width / across, height / down
    left, top = (across - spec.width) // 2 * x, (down - spec.height) // 2 * y
    # Rounding must not lead out of the picture, which Pillow refuses.
    right, bottom = min(left + spec.width * x, width), min(top + spec.height * y, height)
    return left, top, right, bottom


def _side(size: int, scale: float, least: int) -> int:
    # A hair more, so that what is whole in exact arithmetic is not rounded down.
    return max(least, int(size * scale + 1e-6))


def _pixels(values: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return a mean or deviation of pixels in [0, 1] for pixels in [0, 255]."""
    return (values[0] * 255, values[1] * 255, values[2] * 255)


CLIP_INPUT: Final = Input(
    height=224,
    width=224,
    resize="center_crop",
    interpolation="bicubic",
    mean=_pixels((0.48145466, 0.4578275, 0.40821073)),
    std=_pixels((0.26862954, 0.26130258, 0.27577711)),
)
SIGLIP_INPUT: Final = Input(
    height=224,
    width=224,
    resize="stretch",
    interpolation="bicubic",
    mean=_pixels((0.5, 0.5, 0.5)),
    std=_pixels((0.5, 0.5, 0.5)),
)
DINOV2_INPUT: Final = Input(
    height=224,
    width=224,
    resize="center_crop",
    crop=224 / 256,
    interpolation="bicubic",
    mean=_pixels((0.485, 0.456, 0.406)),
    std=_pixels((0.229, 0.224, 0.225)),
)


def _card(
    name: str, summary: str, license_: str, homepage: str, source: Source, spec: Input, text: bool
) -> Card:
    return Card(
        name=name,
        task="embed",
        family="vit",
        summary=summary,
        license=license_,
        homepage=homepage,
        source=source,
        input=spec,
        output=Output(layout=LAYOUT),
        text=f"{name}-text" if text else "",
        examples=(f"retinue models pull {name}",),
    )


CLIP_VIT_B_32: Final = _card(
    "clip-vit-b-32",
    "512-d, for pictures and texts, at 224 x 224 (352 MB)",
    "MIT",
    "https://github.com/openai/CLIP",
    Source(
        url="hf:Xenova/clip-vit-base-patch32@d15189d7028b43f1d3e65039190477f6af591c2a",
        files={
            "onnx/vision_model.onnx": (
                "fd6e1402a588279d1723c7534d4bcba5bc0b14b47dfab0e46f8c47b8270d7d40"
            )
        },
        importer="image_tower",
    ),
    CLIP_INPUT,
    True,
)

CLIP_VIT_L_14: Final = _card(
    "clip-vit-l-14",
    "768-d, for pictures and texts, at 224 x 224 (1.2 GB)",
    "MIT",
    "https://github.com/openai/CLIP",
    Source(
        url="hf:immich-app/ViT-L-14__openai@9b27c6b49d2ff4957fa0b5a25521eee12f109543",
        files={
            "visual/model.onnx": "2b02d572f59c509f4b97b9c54a868453cca1a652cd5d60e1d51d0052f055cb8c"
        },
        importer="image_tower",
    ),
    CLIP_INPUT,
    True,
)

OPENCLIP_VIT_B_32: Final = _card(
    "openclip-vit-b-32",
    "512-d, for pictures and texts, at 224 x 224; trained on LAION-2B (352 MB)",
    "MIT",
    "https://github.com/mlfoundations/open_clip",
    Source(
        url="hf:immich-app/ViT-B-32__laion2b-s34b-b79k@19a057a0fb927cf239541300e74237cd56c7ffe2",
        files={
            "visual/model.onnx": "b9ce24b91a8c62ef8d40ea786051709c93140104cbf2b6b4a2cc270df3838f9c"
        },
        importer="image_tower",
    ),
    CLIP_INPUT,
    True,
)

SIGLIP_BASE: Final = _card(
    "siglip-base-patch16-224",
    "768-d, for pictures and texts, at 224 x 224 (372 MB)",
    "Apache-2.0",
    "https://github.com/google-research/big_vision",
    Source(
        url="hf:Xenova/siglip-base-patch16-224@4649052661e53c7000355844105f8a1792088239",
        files={
            "onnx/vision_model.onnx": (
                "f89d41bac7f4d4b87e010a467d93f98689d708916ed22f5a07f96fdfa26f475f"
            )
        },
        importer="image_tower",
    ),
    SIGLIP_INPUT,
    True,
)

DINOV2_SMALL: Final = _card(
    "dinov2-small",
    "384-d, for pictures alone, at 224 x 224 (89 MB)",
    "Apache-2.0",
    "https://github.com/facebookresearch/dinov2",
    Source(
        url="hf:onnx-community/dinov2-small@8b1f705a3a7f6f062f6bdd21986c1583d3ef105d",
        files={
            "onnx/model.onnx": "f22797eabf810a75e41de68d378541ebea372122b25c4ce3ef25ff618250c20a"
        },
        importer="dinov2",
    ),
    DINOV2_INPUT,
    False,
)

CARDS: Final = (CLIP_VIT_B_32, CLIP_VIT_L_14, OPENCLIP_VIT_B_32, SIGLIP_BASE, DINOV2_SMALL)

MODEL: Final = Family(build=VitEmbedder, cards=CARDS, layouts=(LAYOUT,))
