"""Remembering unfinished uploads between processes, in one small file of one's own."""

from __future__ import annotations

from pathlib import Path

import msgspec

from drupelet.core.errors import BadInput, NotFound
from drupelet.durable import Disk

FILE_BYTES_MAX = 1 << 20
UPLOADS_MAX = 100


class UploadsFile:
    """Addresses of unfinished uploads, by blob. Implements `Uploads`. They let whoever has them go on: mode 0600."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._path = path

    def recall(self, key: str, /) -> str:
        return self._read().get(key, "")

    def remember(self, key: str, address: str, /) -> None:
        known = self._read()
        if known.get(key, "") == address:
            return
        known.pop(key, None)
        if address:
            known[key] = address
        newest = dict(list(known.items())[-UPLOADS_MAX:])
        self._disk.replace(self._path, msgspec.json.encode(newest), mode=0o600)

    def _read(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self._disk.read(self._path, bytes_max=FILE_BYTES_MAX), type=dict[str, str])
        except (NotFound, BadInput, msgspec.MsgspecError):
            return {}  # what cannot be read costs bytes, not correctness
