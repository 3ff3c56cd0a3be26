"""Makes tests/unit/fixtures/nanodet_golden.npz from what tfjs_run.mjs wrote.

    python nanodet_golden.py OUT.bin GOLDEN.npz

Every 29th value of each output is kept, and their shapes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from compare_tfjs import read_outputs

STEP = 29


def main(source: str, out: str) -> None:
    golden = {}
    for name, values in read_outputs(Path(source)).items():
        golden[name] = values.reshape(-1)[::STEP]
        golden[f"{name}.shape"] = np.array(values.shape)
    np.savez_compressed(out, **golden)


if __name__ == "__main__":
    main(*sys.argv[1:])
