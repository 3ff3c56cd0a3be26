"""Running the server: bind, load, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator

import uvicorn

from retinue.core.errors import AddressInUse, ConfigError, ShuttingDown
from retinue.core.settings import Server, Settings
from retinue.host import http
from retinue.host.access import check_settings
from retinue.host.contract import ServedHost
from retinue.host.edge import State
from retinue.host.protocol import bounded

KEEP_ALIVE_S = 15
LAST_MOMENT_S = 1.0
SAME_SIGNAL_S = 0.5  # wrappers signal a process and its group: the process gets it twice


def bind(server: Server) -> socket.socket:
    """Return a socket that is bound, and does not listen yet.

    Bound before the models are loaded, so that a taken port is found out at once; listening only
    afterwards, so that nobody's request waits for the loading.

    Raises:
        AddressInUse: another program has the port.
        ConfigError: the address is not one of this machine's, or may not be bound.
    """
    where = f"{server.host}:{server.port}"
    try:
        found = socket.getaddrinfo(
            server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"server.host {server.host!r} is no address here: {error}") from error
    family, _, _, _, address = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        if isinstance(error, PermissionError):
            raise ConfigError(f"{where} may not be bound: {error.strerror}") from error
        raise _in_use(where, error) from error
    sock.setblocking(False)
    return sock


def _in_use(where: str, error: OSError) -> AddressInUse:
    return AddressInUse(
        f"{where} cannot be listened on: {error.strerror}; choose another with --port, or "
        "--port 0 for any free one"
    )


def url_of(sock: socket.socket) -> str:
    """Return the URL at which this machine reaches a bound socket."""
    host, port = sock.getsockname()[:2]
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn without its signal handling: it would raise the signal again after the drain."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()


def _config(host: ServedHost, state: State) -> uvicorn.Config:
    server = host.settings.server
    return uvicorn.Config(
        http.build(host, state),
        http=bounded(server.max_connections),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(server.drain_s),
    )


class _Stopper:
    """Turns signals into the server's end: the first drains, a second one stops at once."""

    def __init__(self, server: _Server, state: State) -> None:
        self._server = server
        self._state = state
        self._since: float | None = None
        self.forced = False

    def install(self) -> None:
        """Listen to SIGTERM and SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    def stop(self) -> None:
        """Take one signal."""
        if self._since is not None:
            if time.monotonic() - self._since < SAME_SIGNAL_S:
                return
            self.forced = self._server.force_exit = True
            for connection in list(self._server.server_state.connections):
                connection.transport.abort()
            return
        self._since = time.monotonic()
        self._state.draining = self._server.should_exit = True

    def left(self, drain_s: float) -> float:
        """Return the seconds that are left for the drain; a moment to close things always is."""
        if self.forced:
            return 0.0
        spent = 0.0 if self._since is None else time.monotonic() - self._since
        return max(LAST_MOMENT_S, drain_s - spent)


async def serve(
    host: ServedHost, sock: socket.socket, on_ready: Callable[[str], None] | None
) -> None:
    """Load, serve until SIGTERM or SIGINT, and drain.

    The first signal stops accepting and finishes what was accepted; a second one stops at once.

    Raises:
        AddressInUse: another program began to listen while the models were loading.
        ShuttingDown: a second signal stopped it before accepted work was finished.
    """
    state = State(started=time.monotonic())
    url = url_of(sock)

    def started() -> None:
        state.ready = True
        if on_ready is not None:
            on_ready(url)

    server = _Server(_config(host, state), started)
    await host.start()
    stopper = _Stopper(server, state)
    stopper.install()
    try:
        await server.serve(sockets=[sock])
    except OSError as error:
        raise _in_use(url, error) from error
    finally:
        state.ready = False
        await host.drain(stopper.left(host.settings.server.drain_s))
    if stopper.forced:
        raise ShuttingDown("stopped by a second signal, before accepted requests were finished")


def _embedded(settings: Settings) -> ServedHost:
    from retinue.host.services import HostServices, installed_apps  # heavy: the models' engines

    return HostServices(settings, installed_apps())


def run(
    settings: Settings,
    *,
    on_ready: Callable[[str], None] | None = None,
    open_host: Callable[[Settings], ServedHost] = _embedded,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish accepted work and return.

    Args:
        settings: All settings.
        on_ready: Called once with the server's URL when it takes requests.
        open_host: Makes the composition root; its `start` loads the models.

    Raises:
        ConfigError: the access rules or the address.
        AddressInUse: the port is taken.
        ShuttingDown: a second signal cut the drain short.
        RetinueError: whatever kept the models from being loaded.
    """
    check_settings(settings.server)
    sock = bind(settings.server)
    with contextlib.closing(sock), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(open_host(settings), sock, on_ready))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "win32":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop
