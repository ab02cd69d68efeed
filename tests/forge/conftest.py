"""A tiny checkpoint to convert, and short paths for sockets."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.tiny_checkpoint import write_tiny_checkpoint

KIOSK = Path(__file__).parents[2] / "models" / "kiosk"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A sound checkpoint that a test may damage."""
    return write_tiny_checkpoint(tmp_path / "checkpoint")


@pytest.fixture
def runtime_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a Unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="drp-"))
    yield folder
    shutil.rmtree(folder)
