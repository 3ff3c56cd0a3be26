"""A window that shows frames, by tkinter, which comes with Python."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.media.frames import Frame
from retinue.core.errors import Unavailable


class Window:
    """Shows the newest frame. Closing it, Escape or Q ends the stream.

    Args:
        title: Of the window.
        width: Of frames in pixels; larger ones than the screen are shown smaller.
        height: Likewise.

    Raises:
        Unavailable: there is no display, or Python was built without tkinter.
    """

    def __init__(self, title: str, width: int, height: int) -> None:
        try:
            tkinter: Any = importlib.import_module("tkinter")
        except ImportError as error:
            raise Unavailable(
                "--show needs tkinter; install python3-tk, or leave --show out"
            ) from error
        self._gone: type[Exception] = tkinter.TclError
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise Unavailable(
                f"--show needs a display ({error}); leave it out, or write to a file with --out"
            ) from error
        self._root.title(title)
        room = self._root.winfo_screenwidth() * 0.9, self._root.winfo_screenheight() * 0.85
        scale = min(1.0, room[0] / width, room[1] / height)
        self._size = (max(1, round(width * scale)), max(1, round(height * scale)))
        self._photo = tkinter.PhotoImage(width=self._size[0], height=self._size[1])
        tkinter.Label(self._root, image=self._photo, borderwidth=0).pack()
        self._open = True
        self._root.protocol("WM_DELETE_WINDOW", self._end)
        for key in ("<Escape>", "q", "Q"):
            self._root.bind(key, lambda _: self._end())
        # Without a window manager nothing else gives it the keyboard.
        self._root.focus_force()

    def _end(self) -> None:
        self._open = False

    def write(self, pixels: NDArray[np.uint8], frame: Frame) -> bool:
        """Show a frame; False once the window was closed."""
        if (pixels.shape[1], pixels.shape[0]) != self._size:
            pixels = np.asarray(
                cv2.resize(pixels, self._size, interpolation=cv2.INTER_AREA), np.uint8
            )
        head = f"P6 {pixels.shape[1]} {pixels.shape[0]} 255 ".encode("ascii")
        try:
            self._photo.configure(data=head + pixels.tobytes())
            self._root.update()
        except self._gone:
            # The display itself went away.
            self._open = False
        return self._open

    def wait(self) -> None:
        """Wait until the window is closed."""
        try:
            while self._open:
                self._root.update()
                self._root.after(20)
        except self._gone:
            self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        with contextlib.suppress(self._gone):
            self._root.destroy()
