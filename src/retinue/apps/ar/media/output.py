"""A file that is written once; what was written before a failure stays as it is."""

from __future__ import annotations

import io
from pathlib import Path

from retinue.core.errors import storage_errors


class Output:
    """A file for FFmpeg to write.

    FFmpeg goes back to mend headers when it closes a file. After a failed write that would spoil
    what can still be played: from then on nothing is written any more.

    Args:
        path: The file. One that exists is kept until `open`.

    Attributes:
        failure: The first one, None without any.

    Raises:
        StorageError: it cannot be written there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        self.failure: OSError | None = None
        with storage_errors(path, "writing"):
            path.parent.mkdir(parents=True, exist_ok=True)
            new = not path.exists()
            # Asked now, not after the first frame was worked on.
            with path.open("ab"):
                pass
            if new:
                path.unlink()

    def open(self) -> None:
        """Make the file, empty."""
        self._file = io.FileIO(self._path, "w")

    def write(self, data: bytes) -> int:
        """Write all of the data, or nothing any more."""
        if self.failure is not None or self._file is None:
            return len(data)
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self.failure = error
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        assert self._file is not None
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        assert self._file is not None
        return self._file.tell()

    def close(self) -> None:
        """Close the file; an empty one is removed. May be called twice."""
        if self._file is not None and not self._file.closed:
            try:
                empty = self._file.seek(0, io.SEEK_END) == 0
                self._file.close()
                if empty:
                    self._path.unlink(missing_ok=True)
            except OSError as error:
                self.failure = self.failure or error
