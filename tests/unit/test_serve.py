"""The server's ports; the rest of its life is in the end-to-end tests."""

import socket

import pytest

from retinue.core.errors import AddressInUse, ConfigError
from retinue.core.settings import Server, Settings
from retinue.host import serve
from retinue.testing.host import FakeHost


def test_a_port_that_is_taken_while_the_models_load_is_found_out() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))

        class Slow(FakeHost):
            async def start(self) -> None:
                other.listen()

        settings = Settings(server=Server(port=other.getsockname()[1], grpc=False))
        with pytest.raises(AddressInUse, match="--port"):
            serve.run(settings, open_host=Slow)


def test_one_port_for_both_protocols_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"server\.port and server\.grpc_port are both 8907"):
        serve.bind_grpc(Server(port=8907, grpc_port=8907))
