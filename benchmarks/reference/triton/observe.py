"""Write down what a real Open Inference server answers, request by request, as Markdown.

    python benchmarks/reference/triton/observe.py HTTP_HOST:PORT GRPC_HOST:PORT > exchanges.md

The server is that of `server.py`, or any that serves the same models.
"""

from __future__ import annotations

import gzip
import http.client
import queue
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as tg
from observe_grpc import grpc_cases, message
from observe_http import SLOW, Case, http_groups, infer

LONGEST = 1200
KEPT = ("content-type", "content-encoding", "accept-encoding", "inference-header-content-length")


def printable(raw: bytes) -> str:
    """Return bytes as text; what is no printable UTF-8 is escaped."""
    text = raw.decode(errors="backslashreplace")
    return "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in text)


def shown(raw: bytes, encoding: str, head: str | None) -> str:
    """Return a body as text, cut to a readable length."""
    if encoding == "gzip":
        raw = gzip.decompress(raw)
    elif encoding == "deflate":
        raw = zlib.decompress(raw)
    cut = int(head) if head else len(raw)
    tail = f" + {raw[cut:]!r}" if head else ""
    text = printable(raw[:cut]) + tail
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text)} characters)"


def exchange(address: str, case: Case) -> tuple[str, str, str]:
    """Send one HTTP request; return the status (or what broke), the headers and the body."""
    _, method, path, headers, body = case
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        raw = answer.read()
        told = {key.lower(): value for key, value in answer.getheaders()}
        head = told.get("inference-header-content-length")
        text = shown(raw, told.get("content-encoding", ""), head)
        kept = "".join(f" [{key}: {told[key]}]" for key in KEPT if key in told)
    except (OSError, http.client.HTTPException, zlib.error) as error:
        return repr(error), "", ""
    finally:
        connection.close()
    return str(answer.status), kept, text


def described(case: Case) -> str:
    """Return a request as Markdown."""
    title, method, path, headers, body = case
    sent = "" if body is None else f" `{printable(body)[:220]}`"
    extra = "".join(f" [{key}: {value}]" for key, value in headers.items())
    return f"**{method} {path}** {title}{extra}{sent}"


def show_http(address: str, case: Case) -> str:
    """Return the Markdown of one HTTP exchange."""
    status, headers, text = exchange(address, case)
    return f"- {described(case)}\n  -> **{status}**{headers} `{text}`"


def told(one: Any) -> str:
    """Return a protobuf message on one line."""
    text = " ".join(str(one).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def call(
    client: tg.InferenceServerClient, rpc: str, request: Any, timeout: float = 10
) -> tuple[str, str]:
    """Call one RPC; return its status code and its answer or message."""
    try:
        return "OK", told(getattr(client._client_stub, rpc)(request, timeout=timeout))
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""


def show_grpc(
    client: tg.InferenceServerClient, title: str, rpc: str, request: Any, timeout: float = 10
) -> str:
    """Return the Markdown of one gRPC exchange."""
    code, text = call(client, rpc, request, timeout)
    return f"- **{rpc}** {title} `{told(request)[:240]}`\n  -> **{code}** `{text}`"


def timed(title: str, work: Callable[[], Any]) -> str:
    """Return how a call of tritonclient ended and after how long."""
    start = time.monotonic()
    try:
        answer = f"{work()}"
    except Exception as error:  # noqa: BLE001  whatever a client raises is what is observed
        answer = f"{type(error).__name__}: {error}"
    return f"- **{title}** after {time.monotonic() - start:.1f} s: `{answer}`"


def observe_behind(client: tg.InferenceServerClient, address: str, given: list[Any]) -> str:
    """Return what HTTP answers to a request whose time is up before its turn comes."""
    for _ in range(6):
        client.async_infer("slow", given, lambda result, error: None)
    time.sleep(0.1)
    body = infer(parameters={"timeout": 100_000})
    return show_http(address, ("behind six others", "POST", SLOW, {}, body))


def streams(address: str, batches: list[tuple[str, Any]], **more: Any) -> list[str]:
    """Return what one stream answers to (model, array) requests, in the order of arrival."""
    answers: queue.Queue[str] = queue.Queue()

    def keep(result: Any, error: Any) -> None:
        answers.put(f"error {error}" if error else f"{told(result.get_response())[:300]}")

    with tg.InferenceServerClient(address) as client:
        client.start_stream(keep)
        for index, (model, array) in enumerate(batches):
            given = tg.InferInput("x", list(array.shape), "FP32").set_data_from_numpy(array)
            client.async_stream_infer(model, [given], request_id=f"r{index}", **more)
        lines = []
        for _ in batches:
            try:
                lines.append(f"- `{answers.get(timeout=5)}`")
            except queue.Empty:
                lines.append("- nothing within 5 s")
        client.stop_stream()
    return lines


def main() -> None:
    """Print everything."""
    http_address, grpc_address = sys.argv[1:3]
    print("# Every exchange\n")
    for name, cases in http_groups():
        print(f"\n## HTTP: {name}\n")
        for case in cases:
            print(show_http(http_address, case))
    print("\n## gRPC\n")
    one = np.array([[1, 2]], np.float32)
    with tg.InferenceServerClient(grpc_address) as client:
        for title, rpc, request in grpc_cases():
            print(show_grpc(client, title, rpc, request))
        slow = message(model_name="slow")
        print(
            show_grpc(
                client,
                "client's deadline of 0.2 s, model of 0.5 s",
                "ModelInfer",
                slow,
                timeout=0.2,
            )
        )
        print("\n## Timeouts and cancellation (model `slow`, 0.5 s a run, one instance)\n")
        given = [tg.InferInput("x", [1, 2], "FP32").set_data_from_numpy(one)]
        time.sleep(1)  # the abandoned run above must end first
        print(
            timed(
                "timeout 100,000 us, idle",
                lambda: client.infer("slow", given, timeout=100_000).as_numpy("x_out"),
            )
        )

        def behind() -> Any:
            done: queue.Queue[Any] = queue.Queue()
            for _ in range(6):
                client.async_infer("slow", given, lambda result, error: done.put((result, error)))
            time.sleep(0.1)
            return client.infer("slow", given, timeout=100_000).as_numpy("x_out")

        print(timed("timeout 100,000 us, behind six others", behind))
        print(timed("the same over HTTP", lambda: observe_behind(client, http_address, given)))

        def cancel() -> Any:
            done: queue.Queue[Any] = queue.Queue()
            call = client.async_infer("slow", given, lambda result, error: done.put(error))
            time.sleep(0.1)
            call.cancel()
            return str(done.get(timeout=5))

        print(timed("cancelled", cancel))
    print("\n## ModelStreamInfer\n")
    print("Three requests, the second of a wrong shape, to `fake`:\n")
    wrong = np.ones((1, 3), np.float32)
    print("\n".join(streams(grpc_address, [("fake", one), ("fake", wrong), ("fake", one)])))
    print("\nFirst `slow`, then `fake`, then an unknown model, then `failing`:\n")
    mixed = [("slow", one), ("fake", one), ("nope", one), ("failing", one)]
    print("\n".join(streams(grpc_address, mixed)))
    print("\nWith enable_empty_final_response:\n")
    print("\n".join(streams(grpc_address, [("fake", one)], enable_empty_final_response=True)))


if __name__ == "__main__":
    main()
