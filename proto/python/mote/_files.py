"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import secrets


class Pending:
    """A new file beside ``path``: it takes that place with ``keep()``, and is gone without."""

    def __init__(self, path: str | os.PathLike):
        # Where a link leads, so that the link stays one.
        self._path = os.path.realpath(path)
        folder, name = os.path.split(self._path)
        self._beside = os.path.join(folder, f".{name}.{secrets.token_hex(8)}")
        self.fd = os.open(self._beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)

    def __enter__(self) -> "Pending":
        return self

    def __exit__(self, *_) -> None:
        os.close(self.fd)
        if self._beside is not None:
            os.unlink(self._beside)

    def keep(self) -> None:
        """Puts the file in its place."""
        os.replace(self._beside, self._path)
        self._beside = None
