"""One tiny model for the room's tests, and children that never outlive their test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from drupelet.engine.spec import ChildSpec
from tests.fakes.tiny_gguf import write_tiny_gguf
from tests.native import native_server


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that llama.cpp loads in milliseconds."""
    return write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture
def runtime_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a Unix socket, which pytest's own are not always."""
    folder = Path(tempfile.mkdtemp(prefix="drp-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(params=["library", "native"])
def spec(tiny_model: Path, request: pytest.FixtureRequest) -> ChildSpec:
    """A small child of the tiny model, of each kind: both keep one contract."""
    server = native_server() if request.param == "native" else None
    return ChildSpec(
        model=tiny_model, alias="tiny", context_tokens=128, server=server, start_ms_max=20_000, watch_interval_ms=50
    )
