"""Running the server: bind, load, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
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
from retinue.host.memory import keep_freed_memory
from retinue.host.protocol import bounded

KEEP_ALIVE_S = 15
LAST_MOMENT_S = 1.0
MAX_PORT = 65535
SAME_SIGNAL_S = 0.5  # wrappers signal a process and its group: the process gets it twice


def bind(host: str, port: int, option: str = "--port") -> socket.socket:
    """Return a socket that is bound, and does not listen yet.

    Bound before the models are loaded, so that a taken port is found out at once; listening only
    afterwards, so that nobody's request waits for the loading.

    Args:
        host: A name or address of this machine.
        port: 0 for a free one.
        option: What chooses another port on the command line, for the message.

    Raises:
        AddressInUse: another program has the port.
        ConfigError: the address is not one of this machine's, or may not be bound.
    """
    where = f"{host}:{port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"server.host {host!r} is no address here: {error}") from error
    family, _, _, _, address = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        if isinstance(error, PermissionError):
            raise ConfigError(f"{where} may not be bound: {error.strerror}") from error
        raise _in_use(where, error, option) from error
    sock.setblocking(False)
    return sock


def bind_grpc(server: Server) -> socket.socket | None:
    """Return a socket that keeps gRPC's port, None where gRPC is off.

    gRPC binds the port itself, beside this one, once the models are loaded.

    Raises:
        AddressInUse: another program has the port.
        ConfigError: there is no port after ``server.port``, or it is that port; or as `bind`.
    """
    if not server.grpc:
        return None
    port = server.grpc_port
    if port is None:
        port = server.port + 1 if server.port else 0
    if port > MAX_PORT:
        raise ConfigError(
            f"server.port is {server.port} and gRPC takes the next one: give server.grpc_port"
        )
    if port and port == server.port:
        raise ConfigError(f"server.port and server.grpc_port are both {port}; choose another one")
    return bind(server.host, port, "--grpc-port")


def _in_use(where: str, error: OSError, option: str = "--port") -> AddressInUse:
    return AddressInUse(
        f"{where} cannot be listened on: {error.strerror}; choose another with {option}, or "
        f"{option} 0 for any free one"
    )


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def address_of(sock: socket.socket) -> str:
    """Return the address and port at which this machine reaches a bound socket."""
    host, port = sock.getsockname()[:2]
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return _address(host, port)


class _Grpc:
    """The gRPC front on the port that a socket keeps for it."""

    def __init__(self, host: ServedHost, state: State, sock: socket.socket) -> None:
        from retinue.host.oip.grpc import GrpcFront  # heavy, and not wanted by every server

        self._front = GrpcFront(host, state)
        self._sock = sock
        self._drain_s = host.settings.server.drain_s
        self._cut: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            AddressInUse: another program began to listen while the models were loading.
        """
        await self._front.start(_address(*self._sock.getsockname()[:2]))
        self._sock.close()

    async def drain(self) -> None:
        """Finish what was accepted."""
        await self._front.drain(self._drain_s)

    async def close(self) -> None:
        """Cut off whatever is under way."""
        await self._front.drain(0.0)

    def stop_at_once(self) -> None:
        """Begin to `close`."""
        self._cut = asyncio.ensure_future(self.close())


class _Server(uvicorn.Server):
    """uvicorn, and gRPC beside it.

    Without uvicorn's signal handling: it would raise the signal again after the drain.
    """

    def __init__(
        self, config: uvicorn.Config, grpc: _Grpc | None, on_started: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._grpc = grpc
        self._on_started = on_started

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._grpc is not None:
            await self._grpc.start()
        for sock in sockets or ():
            sock.listen(self.config.backlog)  # uvloop would not say that it failed
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        http = super().shutdown(sockets)
        if self._grpc is None:
            await http
        else:
            await asyncio.gather(http, self._grpc.drain())

    def stop_at_once(self) -> None:
        """Cut off whatever is under way."""
        self.force_exit = True
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        if self._grpc is not None:
            self._grpc.stop_at_once()


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
            self.forced = True
            self._server.stop_at_once()
            return
        self._since = time.monotonic()
        self._state.draining = self._server.should_exit = True

    def left(self, drain_s: float) -> float:
        """Return the seconds that are left for the drain; a moment to close things always is."""
        if self.forced:
            return 0.0
        spent = 0.0 if self._since is None else time.monotonic() - self._since
        return max(LAST_MOMENT_S, drain_s - spent)


OnReady = Callable[[str, str], None]
"""Called once when requests are taken, with the URL and gRPC's address ("" where it is off)."""


async def serve(
    host: ServedHost,
    sock: socket.socket,
    grpc_sock: socket.socket | None,
    on_ready: OnReady | None,
) -> None:
    """Load, serve until SIGTERM or SIGINT, and drain.

    The first signal stops accepting and finishes what was accepted; a second one stops at once.

    Raises:
        AddressInUse: another program began to listen while the models were loading.
        ShuttingDown: a second signal stopped it before accepted work was finished.
    """
    state = State(started=time.monotonic())
    url = f"http://{address_of(sock)}"
    grpc_address = "" if grpc_sock is None else address_of(grpc_sock)

    def started() -> None:
        # What is loaded by now stays: a full collection took 35 ms of it, and more with torch.
        gc.collect()
        gc.freeze()
        state.ready = True
        if on_ready is not None:
            on_ready(url, grpc_address)

    grpc = None if grpc_sock is None else _Grpc(host, state, grpc_sock)
    server = _Server(_config(host, state), grpc, started)
    await host.start()
    stopper = _Stopper(server, state)
    stopper.install()
    try:
        await server.serve(sockets=[sock])
    except OSError as error:
        raise _in_use(url, error) from error
    finally:
        state.ready = False
        if grpc is not None:
            await grpc.close()
        await host.drain(stopper.left(host.settings.server.drain_s))
    if stopper.forced:
        raise ShuttingDown("stopped by a second signal, before accepted requests were finished")


def _embedded(settings: Settings) -> ServedHost:
    from retinue.host.services import HostServices, installed_apps  # heavy: the models' engines

    return HostServices(settings, installed_apps())


def run(
    settings: Settings,
    *,
    on_ready: OnReady | None = None,
    open_host: Callable[[Settings], ServedHost] = _embedded,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish accepted work and return.

    Args:
        settings: All settings.
        on_ready: Told when it takes requests, and where.
        open_host: Makes the composition root; its `start` loads the models.

    Raises:
        ConfigError: the access rules or the address.
        AddressInUse: a port is taken.
        ShuttingDown: a second signal cut the drain short.
        RetinueError: whatever kept the models from being loaded.
    """
    server = settings.server
    check_settings(server)
    keep_freed_memory()
    with contextlib.ExitStack() as opened:
        sock = opened.enter_context(bind(server.host, server.port))
        grpc_sock = bind_grpc(server)
        if grpc_sock is not None:
            opened.enter_context(grpc_sock)
        runner = opened.enter_context(asyncio.Runner(loop_factory=_loop_factory()))
        runner.run(serve(open_host(settings), sock, grpc_sock, on_ready))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "win32":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop
