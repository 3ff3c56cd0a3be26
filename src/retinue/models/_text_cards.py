"""The cards of the text models that the catalogue offers.

Digests of files on the hub are those of the pinned revisions, as several public projects that
fetched the same files state them.
"""

from __future__ import annotations

from typing import Final

from retinue.models.card import Card, Source

# The vocabulary of CLIP, which all of them share.
_VOCABULARY: Final = {
    "textual/vocab.json": "5047b556ce86ccaf6aa22b3ffccfc52d391ea4accdab9c2f2407da5b742d4363",
    "textual/merges.txt": "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a",
}


def _card(name: str, summary: str, license_: str, homepage: str, source: Source) -> Card:
    return Card.model_validate(
        {
            "name": name,
            "task": "text",
            "family": "text",
            "summary": summary,
            "license": license_,
            "homepage": homepage,
            "source": source,
            "examples": (f"retinue models pull {name}",),
        }
    )


WORDLLAMA: Final = _card(
    "wordllama-text",
    "256-d word vectors, averaged; for efficientnet-lite0-search",
    "MIT",
    "https://github.com/dleemiller/WordLlama",
    Source(
        url="wheel:wordllama@0.4.0.post1",
        files={
            "wordllama/weights/l2_supercat_256.safetensors": (
                "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5"
            ),
            "wordllama/tokenizers/l2_supercat_tokenizer_config.json": (
                "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68"
            ),
        },
        importer="wordllama",
    ),
)

CLIP_B32: Final = _card(
    "clip-vit-b-32-text",
    "512-d; the text tower of clip-vit-b-32",
    "MIT",
    "https://github.com/openai/CLIP",
    Source(
        url="hf:Xenova/clip-vit-base-patch32@d15189d7028b43f1d3e65039190477f6af591c2a",
        files={
            "onnx/text_model.onnx": (
                "3f6571f5bad13a97c469c1622e1cfc4d9aef78b79fdbfcff804ca357bfada8cc"
            ),
            "tokenizer.json": "f7f3b7af117d467b58374797691a6438d3e6b9e9cef800dfd5dced7f697a90cd",
        },
        importer="clip_text",
    ),
)

CLIP_L14: Final = _card(
    "clip-vit-l-14-text",
    "768-d; the text tower of clip-vit-l-14",
    "MIT",
    "https://github.com/openai/CLIP",
    Source(
        url="hf:immich-app/ViT-L-14__openai@9b27c6b49d2ff4957fa0b5a25521eee12f109543",
        files={
            "textual/model.onnx": (
                "9fbe72ea8d36c2effaccedcf7249e3729ad0d9b4af6604b433ecdd0105663c9c"
            ),
            **_VOCABULARY,
        },
        importer="clip_text",
    ),
)

OPENCLIP_B32: Final = _card(
    "openclip-vit-b-32-text",
    "512-d; the text tower of openclip-vit-b-32",
    "MIT",
    "https://github.com/mlfoundations/open_clip",
    Source(
        url="hf:immich-app/ViT-B-32__laion2b-s34b-b79k@19a057a0fb927cf239541300e74237cd56c7ffe2",
        files={
            "textual/model.onnx": (
                "48c25be37b352398f2533c9426dab6f9340535e14e46f884cc894236a5060722"
            ),
            **_VOCABULARY,
        },
        importer="clip_text",
    ),
)

SIGLIP_B16: Final = _card(
    "siglip-base-patch16-224-text",
    "768-d; the text tower of siglip-base-patch16-224",
    "Apache-2.0",
    "https://github.com/google-research/big_vision",
    Source(
        url="hf:Xenova/siglip-base-patch16-224@4649052661e53c7000355844105f8a1792088239",
        files={
            "onnx/text_model.onnx": (
                "3aa7fdbd20eaa8740cce17bf82913de641fcb632a768fed59f661cdcd0c32553"
            ),
            "tokenizer.json": "4a17c975210be5ab4c36b47d8dae4eefb866dbfb1e676e394aad85dc30a3ae08",
        },
        importer="siglip_text",
    ),
)

CARDS: Final = (WORDLLAMA, CLIP_B32, CLIP_L14, OPENCLIP_B32, SIGLIP_B16)
