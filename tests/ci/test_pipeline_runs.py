"""Every `run:` step of the GitHub file is executed, against a real depot and a real fleet server.

Once with devices that do well, and once with devices that the release makes slow: then the last step fails with the
verdict's words. The runtime image's step runs a `docker` that only notes what it is told; `make image-test` builds the
real image. After the first time `pip` is such a program too: it has nothing to do and takes long to find out.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drupelet.cli.main import main
from tests.ci.conftest import git, make_repository
from tests.fakes.http_devices import HttpDevice, alive
from tests.fakes.loopback import PASSPHRASE, Loopback
from tests.fakes.workflow import Run, read, stub_program, with_path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
WORKFLOW = ".github/workflows/model-release.yml"
SIGNING = ("image-family-kiosk", "image-snapshot", "image-timestamp", "model-kiosk")


def signing_secrets(keys: Path) -> dict[str, str]:
    """The keys that sign a release, as a repository's secrets: no root key, no director's key."""
    return {
        f"secrets.DRUPELET_KEY_{name.upper().replace('-', '_')}": (keys / "private" / f"{name}.pem").read_text()
        for name in SIGNING
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with Loopback(tmp_path_factory.mktemp("world")) as made:
        made.make_keys()
        made.publish("1.1")
        made.serve()
        yield made


@pytest.fixture(scope="module")
def devices(world: Loopback) -> list[HttpDevice]:
    return world.devices("lab-1", "lab-2", "lab-3", holding="kiosk/1.1")


def pipeline(world: Loopback, folder: Path, *, tag: str, broken: bool = False, real_pip: bool = False) -> Run:
    """A shop's repository with the file that `ci init` writes, pushed under a tag."""
    repository = make_repository(folder / "shop", keys=world.keys)
    if broken:
        (repository / "policy.toml").write_text("fresh_s = 30\n")
    with pytest.raises(SystemExit) as ended:
        main(["ci", "init", "github", "--folder", str(repository), "--to", "site=lab"])
    assert not ended.value.code
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "release")
    stub_program(folder / "bin", "docker")
    notes = stub_program(folder / "bin", "pip")
    if real_pip:
        stub = folder / "bin" / "pip"
        stub.write_text(f'{stub.read_text()}[ "$(wc -l < "{notes}")" -gt 1 ] || exec "{sys.executable}" -m pip "$@"\n')
    # What GitHub's runner would have: no variable of Drupelet's.
    bare = {key: value for key, value in os.environ.items() if not key.startswith("DRUPELET_")}
    return Run(
        workflow=read(repository / WORKFLOW), repository=repository, home=folder / "runner",
        context={
            "github.ref": f"refs/tags/{tag}", "github.repository": "shop/kiosk",
            "github.actor": "shop", "vars.DRUPELET_REQUIREMENT": "drupelet[forge]",
            "vars.DRUPELET_SERVER": world.server, "vars.DRUPELET_DEPOT": str(world.depot),
            "secrets.GITHUB_TOKEN": "ghs_never_used", "secrets.DRUPELET_TOKEN": world.token,
            "secrets.DRUPELET_PASSPHRASE": PASSPHRASE, **signing_secrets(world.keys),
        },
        environment=with_path(
            {**bare, "PIP_NO_INDEX": "1", "COLUMNS": "200"}, folder / "bin", Path(sys.executable).parent
        ),
    )  # fmt: skip


def secrets_of(run: Run) -> list[str]:
    """Every secret, and what is in it, in pieces that no line break hides."""
    texts = [value for key, value in run.context.items() if key.startswith("secrets.")]
    lines = [line for text in texts for line in text.splitlines() if "-----" not in line]
    return [line[:40] for line in lines if len(line) > 8]


def test_a_good_release_goes_out_and_the_run_is_green(
    world: Loopback, devices: list[HttpDevice], tmp_path: Path
) -> None:
    run = pipeline(world, tmp_path, tag="v1.2", real_pip=True)
    with alive(devices):
        run.all()
    assert not run.failed, run.failed[0]
    every = [(job, step["name"]) for job, it in run.workflow["jobs"].items() for step in it["steps"] if "run" in step]
    assert [(done.job, done.name) for done in run.done] == every
    assert {device.fake.release for device in devices} == {"kiosk/1.2"}
    assert "rollout 1: completed" in run.said
    changes = json.loads(world.run("release", "diff", "kiosk/1.1", "kiosk/1.2", "-o", "json"))
    assert {"version", "variants"} <= {change["section"] for change in changes["changes"]}
    assert (tmp_path / "bin" / "docker.log").read_text() == (
        "buildx build --platform linux/amd64,linux/arm64 --tag ghcr.io/shop/kiosk-runtime:1.2 --push runtime\n"
    )
    assert not [secret for secret in secrets_of(run) if secret in run.said]
    assert not list((tmp_path / "runner").rglob("*.pem")), "the signing keys never lie in a file"


def test_a_release_that_is_taken_back_fails_the_run_with_the_verdicts_words(
    world: Loopback, devices: list[HttpDevice], tmp_path: Path
) -> None:
    run = pipeline(world, tmp_path, tag="v1.3")
    for device in devices:
        device.fake.slow = 3.0
    with alive(devices):
        run.all()
    (failed,) = run.failed
    assert (failed.job, failed.name, failed.code) == ("verdict", "Wait for the verdict", 8)
    last = failed.said.splitlines()[-1]
    # It takes three times as long; the estimate has its spread.
    verdict = (
        r"drupelet: rollout \d+: kiosk/1\.3 ended rolled_back: ROLLBACK: latency is (2\.[89]|3\.[0-2])\d*x the old"
    )
    assert re.match(verdict, last), failed.said
    assert "kiosk/1.3" not in {device.fake.release for device in devices}
    assert not [secret for secret in secrets_of(run) if secret in run.said]


def test_a_policy_with_a_slip_stops_the_run_before_anything_is_built(world: Loopback, tmp_path: Path) -> None:
    run = pipeline(world, tmp_path, tag="v1.4", broken=True)
    run.all()
    (failed,) = run.failed
    assert (failed.name, failed.code) == ("Lint recipes, policies and manifests", 2)
    assert "::error file=policy.toml,line=1,col=1,title=drupelet lint::unknown key 'fresh_s'" in failed.said
    assert {done.job for done in run.done} == {"check"}
