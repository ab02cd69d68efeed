"""The runtime as a device gets it: these tests build images and packages and take minutes (`make image-test`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.runtime.answering import Answering

WANTED = "DRUPELET_IMAGE_TESTS"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, visibly, unless they were asked for."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(1500))
            if not os.environ.get(WANTED):
                item.add_marker(pytest.mark.skip(reason="builds images and packages: make image-test"))


@dataclass(frozen=True)
class Cli:
    """`drupelet`, as a person types it."""

    folder: Path

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command and return what it printed."""
        environment = {**os.environ, "DRUPELET_PASSPHRASE": "correct horse battery"}
        command = [sys.executable, "-m", "drupelet.cli.main", *arguments]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr[-2000:]
        return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all that is built."""
    return tmp_path_factory.mktemp("runtime")


@pytest.fixture(scope="session")
def drupelet(scratch: Path) -> Cli:
    """The command line, in the scratch folder."""
    return Cli(scratch)


@pytest.fixture(scope="session")
def answering(scratch: Path) -> Answering:
    """A device's state folder in which the kiosk model is committed."""
    return Answering.make(scratch / "state")


def need(*programs: str) -> None:
    """Skip unless these programs are on the path."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: scripts/install --apt-only image")
