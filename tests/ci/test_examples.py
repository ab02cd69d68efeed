"""`examples/ci`: every step of its pipeline, run as the file says; and what its tools refuse.

The image's step: buildah builds it where it is installed, for arm64, and puts it into a folder instead of a registry;
without buildah a `docker` that only notes what it is told stands in.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from drupelet.ci.article import check_signature
from drupelet.cli.compose.collect import vouched_in
from drupelet.depot.folder import FolderStore
from drupelet.durable import PosixDisk
from tests.ci.conftest import PUBLIC, git
from tests.ci.test_pipeline_runs import secrets_of, signing_secrets
from tests.fakes.loopback import KIOSK, PASSPHRASE, ROOT, Loopback
from tests.fakes.workflow import Run, read, stub_program, with_path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
EXAMPLE = ROOT / "examples" / "ci"
SHA = "0123456789abcdef0123456789abcdef01234567"
BUILDX = """#!/bin/sh -e
# docker buildx, as far as the pipeline uses it, by buildah: create, and build --platform P -t TAG --push FOLDER
echo "$@" >> "{log}"
[ "$2" = build ] || exit 0
buildah --root "{store}/root" --runroot "{store}/run" --storage-driver vfs bud --isolation chroot --quiet \\
  "$3" "$4" "$5" "$6" "$8" > /dev/null
buildah --root "{store}/root" --runroot "{store}/run" --storage-driver vfs push --quiet "$6" "oci:{store}/pushed:sha"
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Loopback]:
    (tmp_path / "world").mkdir()
    with Loopback(tmp_path / "world") as made:
        made.make_keys()
        yield made


def make_run(world: Loopback, folder: Path) -> Run:
    """The example as a repository of its own, with the kiosk's checkpoint."""
    repository = folder / "edge"
    shutil.copytree(EXAMPLE, repository)
    shutil.copytree(KIOSK / "1.2", repository / "path/to/checkpoint")
    (repository / "keys").mkdir()
    for name in PUBLIC:
        shutil.copy(world.keys / name, repository / "keys")
    git(repository, "init", "--quiet", ".")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "release")
    notes = stub_program(folder / "bin", "docker")
    stub_program(folder / "bin", "pip")
    if shutil.which("buildah"):
        (folder / "bin" / "docker").write_text(BUILDX.format(log=notes, store=folder / "store"))
    bare = {key: value for key, value in os.environ.items() if not key.startswith("DRUPELET_")}
    return Run(
        workflow=read(repository / ".github/workflows/edge-ci.yml"), repository=repository, home=folder / "runner",
        context={
            "github.ref": "refs/heads/main", "github.sha": SHA, "vars.DRUPELET_DEPOT": str(world.depot),
            "vars.DRUPELET_REQUIREMENT": "drupelet[forge]", "secrets.DRUPELET_PASSPHRASE": PASSPHRASE,
            **signing_secrets(world.keys),
        },
        environment=with_path(bare, folder / "bin", Path(sys.executable).parent),
    )  # fmt: skip


def test_every_step_runs_and_a_signed_release_is_in_the_depot(world: Loopback, tmp_path: Path) -> None:
    # The depot's first metadata need the targets key, which no pipeline has: the person with the keys makes them.
    world.publish("0.1")
    run = make_run(world, tmp_path)
    run.all()
    assert not run.failed, run.failed[0]
    assert [done.name for done in run.done] == [
        "Install Drupelet", "Build runtime image (arm64)", "Convert model to gguf", "Run model validator (emulated)",
        "Sign artifacts", "Publish release manifest",
    ]  # fmt: skip
    vouched = vouched_in(
        FolderStore(PosixDisk(), world.depot), root=(world.keys / "image-root.json").read_bytes(), now=datetime.now(UTC)
    )
    assert {one.release.path for one in vouched} == {"kiosk/0.1", "kiosk/0.0.7"}
    work = tmp_path / "runner/build-and-package/work"
    release = json.loads((work / "dist/release.json").read_text())
    assert (release["release"], release["image"]) == ("kiosk/0.0.7", f"ghcr.io/org/edge-runtime:{SHA}")
    assert release["recommended_rollout"] == ["1", "3", "100%"]
    key = load_pem_public_key((work / "dist/kiosk.pub.pem").read_bytes())
    check_signature(release["model"], key)  # type: ignore[arg-type]
    assert not [secret for secret in secrets_of(run) if secret in run.said]
    if shutil.which("buildah"):
        index = json.loads((tmp_path / "store/pushed/index.json").read_text())
        manifest = json.loads(_blob(tmp_path, index["manifests"][0]["digest"]))
        assert json.loads(_blob(tmp_path, manifest["config"]["digest"]))["architecture"] == "arm64"
    _what_its_tools_refuse(run, work)


def _blob(folder: Path, digest: str) -> bytes:
    return (folder / "store/pushed/blobs/sha256" / digest.removeprefix("sha256:")).read_bytes()


def _what_its_tools_refuse(run: Run, work: Path) -> None:
    """Where everything is in place, each tool is given something else."""
    model = f"models/model_v{SHA}.gguf"
    image = f"ghcr.io/org/edge-runtime:{SHA}"
    (work / "models/other.gguf").write_bytes(b"GGUF")
    shutil.copytree(work / f"{model}.package", work / "models/other.gguf.package")
    publish = "tools/publish_manifest.py"
    for words, code, says in (
        ([publish, "--image", "ghcr.io/org/other:1", "--model", model], 7, "not among what was signed"),
        ([publish, "--image", image, "--model", "models/other.gguf"], 7, "not among what was signed"),
        ([publish, "--image", image, "--model", "models/none.gguf"], 4, "was not validated"),
        (["tools/convert_model.py", "--input", "path/to/checkpoint", "--output", "x", "--quantize=3"], 2, "ships no 3"),
        (["tools/convert_model.py", "--input", "nowhere", "--output", "x"], 2, "there is no such folder"),
    ):  # fmt: skip
        done = subprocess.run(
            [sys.executable, *words], cwd=work, env=dict(run.environment), capture_output=True, text=True, check=False
        )
        assert (done.returncode, says in done.stderr, done.stderr.count("\n")) == (code, True, 1), done.stderr
    with (work / model).open("ab") as file:
        file.write(b"one byte more")
    done = subprocess.run(
        [sys.executable, "tests/validate_model.py", model], cwd=work, env=dict(run.environment), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "and the checkpoint converts to" in done.stderr) == (7, True), done.stderr


def test_the_pipeline_is_the_well_known_one() -> None:
    """The commands are to the letter those that people know."""
    text = (EXAMPLE / ".github/workflows/edge-ci.yml").read_text()
    for line in (
        "docker buildx create --use --name edge-builder || true",
        "docker buildx build --platform linux/arm64 -t ghcr.io/org/edge-runtime:${{ github.sha }} --push ./runtime",
        "python tools/convert_model.py --input path/to/checkpoint --output models/model_v${{ github.sha }}.gguf"
        " --quantize=4",
        "python tests/validate_model.py models/*.gguf",
        "./tools/sign-artifact.sh models/*.gguf ghcr.io/org/edge-runtime:${{ github.sha }}",
        "python tools/publish_manifest.py --image ghcr.io/org/edge-runtime:${{ github.sha }}"
        " --model models/model_v${{ github.sha }}.gguf",
    ):  # fmt: skip
        assert line in text
