#!/bin/sh
# Downloads what Retinue's server needs on the GPU machine, for one without a network: wheels for
# CPython 3.12 on x86-64 Linux, into .whl/ at the repository's root. Not among them: NumPy and PyTorch,
# which that machine has, and OpenCV (60 MB), which what is measured does not call: see without/
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
mkdir -p .whl
"$python" -m pip download --quiet --no-deps --only-binary=:all: --dest .whl \
    --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    --platform manylinux1_x86_64 \
    --requirement benchmarks/gpu/wheels.txt
du -sh .whl
