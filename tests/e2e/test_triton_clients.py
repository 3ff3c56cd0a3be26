"""NVIDIA's clients, unmodified, over HTTP and gRPC against `retinue up` with the real models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import skimage
from tests.e2e import conftest

from retinue.core.settings import Execution, Limits
from retinue.media.decode import decode
from retinue.models.loading import load_model
from retinue.testing import oip_suite
from retinue.testing.oip_clients import Front, grpc_front, http_front
from retinue.testing.oip_subjects import Images, Served, Subject

if TYPE_CHECKING:
    from tests.e2e.conftest import Program

    from retinue.core.types import Array
    from retinue.models.registry import Registry

DATA = Path(skimage.__file__).parent / "data"
PHOTOS = ("motorcycle_left.png", "coffee.png", "page.png")
DETECTOR, CLASSIFIER = "nanodet-g-416", "efficientnet-lite0"
SETTINGS = f'models = ["{DETECTOR}", "{CLASSIFIER}"]\n'


def _served(registry: Registry, model: str, *, labelled: bool = False) -> Served:
    """Describe an installed model; the truth is its file, run a row at a time."""
    entry = registry.get(model)
    session = onnxruntime.InferenceSession(entry.path)
    (tensor,) = session.get_inputs()

    def rows(count: int) -> Mapping[str, Array]:
        shape = (count, *tensor.shape[1:])
        return {tensor.name: np.random.default_rng(0).normal(size=shape).astype(np.float32)}

    def expected(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        runs = [session.run(None, {tensor.name: row[None]}) for row in inputs[tensor.name]]
        return {
            output.name: np.concatenate([run[i] for run in runs])
            for i, output in enumerate(session.get_outputs())
        }

    classes = entry.card.classes if labelled else ()
    return Served(model, rows, expected, classes, tolerance=1e-3)


def _images(registry: Registry) -> Images:
    """Describe the detector's twin for images; the truth is the model in this process."""
    model = load_model(registry.get(DETECTOR), Execution())
    files = tuple((DATA / name).read_bytes() for name in PHOTOS)
    size = model.decode_size
    outcomes = model.predict([decode(file, limits=Limits(), target=size) for file in files])
    found: list[Any] = [outcome.value for outcome in outcomes]
    model.close()
    return Images(
        f"{DETECTOR}-image", files, tuple(len(one.scores) for one in found), b"no picture"
    )


@pytest.fixture(scope="module")
def program(model_cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("triton")
    (folder / "retinue.toml").write_text(SETTINGS)
    running = conftest.start(
        ["-m", "retinue", "up", "--port", "0", "--config", str(folder / "retinue.toml")],
        folder / "server.log",
        RETINUE_HOME=str(folder / "home"),
        RETINUE_CACHE=str(model_cache_dir),
    )
    yield running
    conftest.end(running)


@pytest.fixture(scope="module", params=["http", "grpc"])
def subject(
    request: pytest.FixtureRequest, program: Program, model_cache: Registry
) -> Iterator[Subject]:
    with ExitStack() as opened:
        front: Front
        if request.param == "http":
            front = opened.enter_context(http_front(program.url.removeprefix("http://")))
        else:
            front = opened.enter_context(grpc_front(program.grpc))
        yield Subject(
            front,
            numbers=_served(model_cache, DETECTOR),
            labelled=_served(model_cache, CLASSIFIER, labelled=True),
            images=_images(model_cache),
        )


CHECKS: tuple[Callable[[Subject], None], ...] = oip_suite.PORTABLE + oip_suite.EXTRAS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_clients_find_what_they_expect(check: oip_suite.Check, subject: Subject) -> None:
    check(subject)
    assert subject.front.client.is_server_live()
