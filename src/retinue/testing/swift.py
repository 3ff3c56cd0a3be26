"""An S3 server for tests: OpenStack Swift with its S3 API, in one process, on the loopback.

Swift checks AWS' signatures (version 4) as S3 does. It is the package ``swift`` of PyPI, 2.38 or
newer, in the environment that runs the tests or in that of the Python that
``RETINUE_TEST_SWIFT_PYTHON`` names. So this file is two: a module, and the program that a Python
with Swift runs, which needs nothing of Retinue.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Read when this is imported, as tests hide the user's variables.
_GIVEN = os.environ.get("RETINUE_TEST_SWIFT_PYTHON", "")
_ACCOUNT, _USER = "tests", "tester"
_STOP_S = 10.0
_KINDS = ("account", "container", "object")
_MIDDLEWARE = ("catch_errors", "listing_formats", "s3api", "tempauth", "bulk", "slo")


@dataclass(frozen=True)
class Swift:
    """A running server.

    Attributes:
        endpoint: Its URL, for ``AWS_ENDPOINT_URL``.
        key: The access key's id, for ``AWS_ACCESS_KEY_ID``.
        secret: For ``AWS_SECRET_ACCESS_KEY``.
    """

    endpoint: str
    key: str
    secret: str

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables by which any client of S3 finds the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextmanager
def swift_server() -> Iterator[Swift]:
    """Run a server, empty at first, that is stopped at the block's end.

    Raises:
        LookupError: Swift is not installed, or temporary files have no extended attributes, which
            it needs.
        RuntimeError: it does not start.
    """
    python = _python()
    secret = os.urandom(16).hex()
    with tempfile.TemporaryDirectory(prefix="retinue-swift-") as folder, _log(folder) as log:
        _check_attributes(folder)
        process = subprocess.Popen(
            [python, "-I", "-W", "ignore", __file__, folder, secret],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            port = process.stdout.readline().decode("ascii").strip()
            if not port:
                raise RuntimeError(f"Swift does not start: {Path(log.name).read_text()[-2000:]}")
            yield Swift(f"http://127.0.0.1:{port}", f"{_ACCOUNT}:{_USER}", secret)
        finally:
            process.stdin.close()
            process.stdout.close()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _log(folder: str) -> Any:
    return Path(folder, "log").open("wb")


def _python() -> str:
    if _GIVEN:
        return _GIVEN
    if importlib.util.find_spec("swift") is not None:
        return sys.executable
    raise LookupError("the S3 server for tests, OpenStack Swift, is missing: pip install swift")


def _check_attributes(folder: str) -> None:
    try:
        os.setxattr(folder, "user.retinue", b"x" * 1000)
    except OSError as error:
        message = f"{folder}: no extended attributes ({error}); set TMPDIR to where there are"
        raise LookupError(message) from error


def _serve(folder: Path, secret: str) -> None:
    """Write the configuration, print the port, and serve until standard input ends."""
    import eventlet  # type: ignore

    eventlet.monkey_patch()
    from eventlet import tpool, wsgi
    from swift.common import utils  # type: ignore
    from swift.common.wsgi import SwiftHttpProtocol, loadapp  # type: ignore

    (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tests\n")
    (folder / "disk").mkdir()
    utils.set_swift_dir(str(folder))
    listeners = {kind: eventlet.listen(("127.0.0.1", 0)) for kind in (*_KINDS, "proxy")}
    ports = {kind: listener.getsockname()[1] for kind, listener in listeners.items()}
    for kind in _KINDS:
        _write_ring(folder / f"{kind}.ring.gz", ports[kind])
    for kind, listener in listeners.items():
        configuration = folder / f"{kind}.conf"
        configuration.write_text(_proxy(folder, secret) if kind == "proxy" else _disk(folder, kind))
        app = loadapp(str(configuration), global_conf={"log_name": kind})
        options = {"log_output": False, "protocol": SwiftHttpProtocol}
        eventlet.spawn(wsgi.server, listener, app, **options)
    print(ports["proxy"], flush=True)
    tpool.execute(sys.stdin.read)


def _write_ring(path: Path, port: int) -> None:
    """One device has all."""
    from swift.common.ring import RingBuilder  # type: ignore

    device = {"region": 1, "zone": 1, "ip": "127.0.0.1", "device": "disk", "weight": 1}
    builder = RingBuilder(part_power=2, replicas=1, min_part_hours=0)
    builder.add_dev({**device, "port": port})
    builder.rebalance(seed=1)
    builder.get_ring().save(str(path))


def _proxy(folder: Path, secret: str) -> str:
    filters = {name: f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in _MIDDLEWARE}
    filters["tempauth"] += f"user_{_ACCOUNT}_{_USER} = {secret} .admin\n"
    return (
        f"[DEFAULT]\nswift_dir = {folder}\n"
        f"[pipeline:main]\npipeline = {' '.join(_MIDDLEWARE)} proxy-server\n"
        "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
        # A busy machine answers late; the clients' own time is what counts.
        "node_timeout = 20\nconn_timeout = 5\n" + "".join(filters.values())
    )


def _disk(folder: Path, kind: str) -> str:
    return (
        f"[DEFAULT]\nswift_dir = {folder}\ndevices = {folder}\nmount_check = false\n"
        f"[pipeline:main]\npipeline = {kind}-server\n"
        f"[app:{kind}-server]\nuse = egg:swift#{kind}\n"
    )


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2])
