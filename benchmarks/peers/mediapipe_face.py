"""MediaPipe's FaceMesh on frames of a file; ``ar.py`` starts this in an environment of its own.

    python benchmarks/peers/mediapipe_face.py FRAMES.npy OUT.npz FACES REFINE

FRAMES is (N, H, W, 3) uint8 RGB. OUT gets milliseconds (N,) and landmarks (N, 468 or 478, 3) in
pixels, NaN where none were found.
"""

from __future__ import annotations

import sys
import time

import mediapipe
import numpy as np


def main() -> None:
    """Run all frames, one after another."""
    frames, out, faces, refine = sys.argv[1:]
    pictures = np.load(frames, mmap_mode="r")
    height, width = pictures.shape[1:3]
    taken, found = [], []
    with mediapipe.solutions.face_mesh.FaceMesh(
        static_image_mode=False, max_num_faces=int(faces), refine_landmarks=refine == "1"
    ) as mesh:
        for picture in pictures:
            frame = np.ascontiguousarray(picture)
            start = time.perf_counter()
            answer = mesh.process(frame)
            taken.append(1000 * (time.perf_counter() - start))
            count = 478 if refine == "1" else 468
            points = np.full((count, 3), np.nan, np.float32)
            if answer.multi_face_landmarks:
                marks = answer.multi_face_landmarks[0].landmark
                points = np.array([(m.x * width, m.y * height, m.z * width) for m in marks])
            found.append(points)
    np.savez(out, ms=np.array(taken), landmarks=np.array(found, np.float32))


if __name__ == "__main__":
    main()
