"""Converts every graph of a TFJS package and compares it with the real TensorFlow.js.

    python compare_tfjs.py PACKAGE/models --node-folder DIR [name ...]

DIR holds node_modules with @tensorflow/tfjs and @tensorflow/tfjs-backend-wasm. Prints a table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from patterns import nanodet_input, pattern

from retinue.core.errors import RetinueError
from retinue.models.importers.tfjs import convert

SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "movenet-multipose": {"input": (1, 256, 256, 3)},
    "handtrack": {"input_tensor": (1, 320, 320, 3)},
    "faceboxes": {"image_tensor": (1, 256, 256, 3)},
    "rvm": {
        "src": (1, 288, 512, 3),
        "r1i": (1, 144, 256, 16),
        "r2i": (1, 72, 128, 20),
        "r3i": (1, 36, 64, 40),
        "r4i": (1, 18, 32, 64),
    },
}
# The wasm backend of 4.22.0 drops boxes in NonMaxSuppressionV5.
CPU_ONLY = ("handtrack",)
CONSTANTS = {"rvm": {"downsample_ratio": 1.0}}


def read_outputs(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read what tfjs_run.mjs wrote."""
    data, at, found = path.read_bytes(), 0, {}
    while at < len(data):
        end = data.index(b"\n", at)
        header = json.loads(data[at:end])
        count = int(np.prod(header["shape"], dtype=int))
        values = np.frombuffer(data, "<f4", count, end + 1)
        found[header["name"]] = values.reshape(header["shape"])
        at = end + 1 + 4 * count
    return found


def run_tfjs(name: str, folder: Path, node_folder: Path) -> dict[str, NDArray[np.float32]]:
    """Run a graph in node, on the wasm backend or, where it lacks a kernel, on the CPU one."""
    script = Path(__file__).with_name("tfjs_run.mjs").resolve()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.bin"
        command = ["node", str(script), str((folder / f"{name}.json").resolve()), str(out)]
        if name == "nanodet":
            command += ["--normalise", "nanodet"]
        for key, shape in SHAPES.get(name, {}).items():
            command += ["--shape", f"{key}={','.join(map(str, shape))}"]
        for key, value in CONSTANTS.get(name, {}).items():
            command += ["--value", f"{key}={value}"]
        backends = ("cpu",) if name in CPU_ONLY else ("wasm", "cpu")
        for backend in backends:
            done = subprocess.run(
                [*command, "--backend", backend], cwd=node_folder, capture_output=True, text=True
            )
            if done.returncode == 0:
                return read_outputs(out)
        raise SystemExit(f"{name}: TensorFlow.js failed: {done.stderr.strip()[-500:]}")


def feeds(name: str, session: ort.InferenceSession) -> dict[str, NDArray[np.float32]]:
    """Return the inputs that tfjs_run.mjs makes."""
    made = {}
    for tensor in session.get_inputs():
        shape = [1 if isinstance(size, str) else size for size in tensor.shape]
        if name == "nanodet":
            made[tensor.name] = nanodet_input()
        elif len(shape) == 4 and shape[1] in (1, 3, 4):
            picture = pattern(shape[2], shape[3], shape[1]).astype(np.float64)
            if not name.startswith(("movenet", "handtrack", "faceboxes")):
                picture /= 255
            made[tensor.name] = picture.transpose(2, 0, 1)[None].astype(np.float32)
        else:
            made[tensor.name] = np.zeros(shape, np.float32)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--node-folder", type=Path, required=True)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_intermixed_args()
    names = arguments.names or sorted(p.stem for p in arguments.folder.glob("*.json"))
    print(
        f"{'graph':26} {'nodes':>5} {'batch':>5} {'convert s':>9} {'worst error':>11}  of magnitude"
    )
    for name in names:
        files = {f.name: f for f in (arguments.folder / f"{name}{s}" for s in (".json", ".bin"))}
        start = time.perf_counter()
        try:
            model = convert(files, shapes=SHAPES.get(name), constants=CONSTANTS.get(name))
        except RetinueError as error:
            print(f"{name:26} {error}")
            continue
        seconds = time.perf_counter() - start
        session = ort.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        keys = [output.name for output in session.get_outputs()]
        ours = dict(zip(keys, session.run(None, feeds(name, session)), strict=True))
        theirs = run_tfjs(name, arguments.folder, arguments.node_folder)
        worst, at = 0.0, ""
        for key in keys:
            a, b = np.asarray(ours[key], np.float64), np.asarray(theirs[key], np.float64)
            scale = float(np.abs(b).max(initial=0.0))
            error = float(np.abs(a - b).max(initial=0.0)) if a.shape == b.shape else np.inf
            if error / max(scale, 1e-6) >= worst:
                worst, at = error / max(scale, 1e-6), f"{scale:.3g} in {key} {a.shape} {b.shape}"
        batch = "any" if isinstance(session.get_inputs()[0].shape[0], str) else "1"
        count = len(model.graph.node)
        print(f"{name:26} {count:5} {batch:>5} {seconds:9.1f} {worst:11.1e}  {at}", flush=True)


if __name__ == "__main__":
    main()
