"""NVIDIA's client, unmodified, over gRPC against the front with fake models."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from retinue.testing import oip_suite
from retinue.testing.grpc_server import GrpcServer
from retinue.testing.oip_clients import grpc_front
from retinue.testing.oip_subjects import Images, Subject, identity
from retinue.testing.pipelines import FAKE_CLASSES, FAKE_MODELS


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    with (
        GrpcServer(models=FAKE_MODELS, model_control=True) as server,
        grpc_front(server.address) as front,
    ):
        yield Subject(
            front,
            numbers=identity("fake", "x", "float32", 2),
            texts=identity("text", "text", "object", 1),
            labelled=identity("scores", "scores", "float32", 3, labels=FAKE_CLASSES),
            images=Images("fake-image", (b"x", b"xxx", b"xxxxxx"), (1, 3, 2), b"bad"),
            spare="spare",
        )


CHECKS = oip_suite.PORTABLE + oip_suite.EXTRAS + oip_suite.CONTROL


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_over_grpc(check: oip_suite.Check, subject: Subject) -> None:
    check(subject)
