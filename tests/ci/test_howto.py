"""The how-to pages are run: every command in a box that begins with `$`, in order, on a fleet on loopback."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.http_devices import alive
from tests.fakes.loopback import KIOSK, ROOT, Loopback
from tests.fakes.workflow import with_path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
HOWTO = ROOT / "docs" / "howto"
BOX = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """Return the commands of a page."""
    boxes = BOX.findall((HOWTO / page).read_text())
    return [line.removeprefix("$ ") for box in boxes for line in box.splitlines() if line.startswith("$ ")]


def run(world: Loopback, command: str) -> str:
    """Run one command as a person would, and return what was printed."""
    env = with_path(world.environment(), world.folder / "bin")
    done = subprocess.run(
        ["bash", "-c", command], cwd=world.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"$ {command}\n{done.stdout}"
    return done.stdout


def test_the_pages_do_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "drupelet"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m drupelet.cli.main "$@"\n')
    program.chmod(0o755)
    shutil.copytree(KIOSK / "1.1", tmp_path / "checkpoint")
    shutil.copytree(KIOSK / "1.2", tmp_path / "checkpoint-2")
    page = (HOWTO / "release-your-first-model.md").read_text()
    (recipe,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "recipe.toml").write_text(recipe)
    steps = commands("release-your-first-model.md")
    served = next(index for index, step in enumerate(steps) if step.startswith("drupelet release add"))
    with Loopback(tmp_path) as world:
        for step in steps[:served]:
            run(world, step)
        world.serve()
        devices = world.devices("lab-1", "lab-2", "lab-3", "lab-4")
        with alive(devices):
            for step in steps[served:]:
                run(world, step)
        assert {device.fake.release for device in devices} == {"kiosk/1.1"}
        for step in commands("bring-your-ci.md"):
            run(world, step)
    for path in (".github/workflows/model-release.yml", ".gitlab-ci.yml", "Jenkinsfile"):
        assert 'drupelet rollout wait "$FAMILY/$VERSION"' in (tmp_path / path).read_text()
