"""The image as a device gets it: pushed, pulled by digest, verified, run without rights, asked a question.

amd64 runs as it is; arm64 runs under qemu-user, which shows that it is right and nothing about how fast it is.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from drupelet.forge.runtime.base import USER
from drupelet.forge.runtime.image import Image, read_image
from tests.fakes.registry_server import RegistryServer, registry_server
from tests.runtime.answering import Answering, answer_of, free_port
from tests.runtime.conftest import Cli, need

PACKED_BYTES_MAX = 150_000_000
QUESTION, ANSWER = "How much is a coffee?", "2.80"
PODMAN_OPTIONS = ("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc")
# A limit below the default is what an unprivileged container may be given.
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=512:512")


@pytest.fixture(scope="session")
def image(drupelet: Cli) -> Image:
    """Both platforms, built as a user does."""
    need("buildah", "mmdebstrap")
    drupelet("forge", "image", "--out", "image")
    return read_image(drupelet.folder / "image" / "oci")


@pytest.fixture(scope="session")
def registry(scratch: Path) -> Iterator[RegistryServer]:
    """Debian's docker-registry on loopback."""
    with registry_server(scratch / "registry") as server:
        yield server


@pytest.fixture(scope="session")
def pushed(drupelet: Cli, image: Image, registry: RegistryServer) -> str:
    """The repository that holds the image, as podman writes it."""
    assert image.platforms
    drupelet("forge", "runtime", "push", "image", f"oci://{registry.host}/drupelet")
    return f"{registry.host}/drupelet"


class Quiet(SimpleHTTPRequestHandler):
    """A web server that keeps its requests to itself."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def depot(drupelet: Cli, image: Image) -> Iterator[str]:
    """A depot over HTTP in which the image is signed, and a device that knows its root."""
    assert image.platforms
    drupelet("keys", "init", "keys", "--family", "runtime")
    drupelet("forge", "runtime", "publish", "image", "--depot", "depot", "--keys", "keys")
    handler = partial(Quiet, directory=str(drupelet.folder / "depot"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        roots = [part for kind in ("image", "director") for part in (f"--{kind}-root", f"keys/{kind}-root.json")]
        drupelet(
            *("agent", "init", "lab-1", "--fleet", url, "--depot", url, "--config", "agent.toml"),
            *("--state-folder", str(drupelet.folder / "device"), *roots),
        )
        yield url
        server.shutdown()


def test_it_is_small_and_the_same_when_it_is_built_again(drupelet: Cli, image: Image) -> None:
    for one in image.platforms:
        print(f"{one.platform}: {one.size_bytes / 1e6:.1f} MB packed")  # noqa: T201 (what people run it for)
        assert one.size_bytes < PACKED_BYTES_MAX
    assert [one.platform for one in image.platforms] == ["linux/amd64", "linux/arm64"]
    drupelet("forge", "image", "--out", "again")
    assert read_image(drupelet.folder / "again" / "oci").index == image.index


def test_its_bill_of_materials_is_attached_and_inside(drupelet: Cli, image: Image, pushed: str) -> None:
    need("skopeo")
    arm = next(one for one in image.platforms if one.platform == "linux/arm64")
    shown = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{pushed}:sha256-{arm.digest.hex}"],
        capture_output=True,
        check=True,
    )
    (entry,) = json.loads(shown.stdout)["manifests"]
    assert entry["artifactType"] == "application/vnd.cyclonedx+json"
    bill = json.loads((drupelet.folder / "image" / "bom-arm64.cdx.json").read_bytes())
    names = {one["name"] for one in bill["components"]}
    assert {"libc6", "python3.11-minimal", "cryptography", "llama-server-armv8-a"} <= names


def test_the_device_takes_the_signed_image_and_no_other(drupelet: Cli, image: Image, depot: str) -> None:
    assert depot
    verify = ("agent", "verify-runtime", "0.1.0", "--config", "agent.toml", "--platform", "linux/arm64")
    amd, arm = image.platforms
    for digest in (image.index, arm.digest):
        said = json.loads(drupelet(*verify, digest.text, "-o", "json"))
        assert said["vouched"] is True
    for digest in (amd.digest.text, "sha256:" + "0" * 64):
        assert "is not the image of runtime 0.1.0" in drupelet(*verify, digest, code=7)


class Pod:
    """podman with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self._options = ("podman", "--root", str(folder / "root"), "--runroot", str(folder / "run"), *PODMAN_OPTIONS)

    def command(self, *arguments: str) -> list[str]:
        """Return a command line."""
        return [*self._options, *arguments]

    def run(self, *arguments: str) -> str:
        """Run a command and return what it printed."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()


@pytest.fixture(scope="session")
def pod(scratch: Path) -> Pod:
    """podman, which needs no daemon."""
    need("podman", "runc")
    return Pod(scratch / "podman")


@pytest.mark.parametrize(
    ("arch", "cpu", "level"),
    [
        ("amd64", "", "llama-server-x86-64"),
        ("arm64", "cortex-a72", "llama-server-armv8-a ("),
        ("arm64", "cortex-a76", "llama-server-armv8.2-a+dotprod+fp16 ("),
    ],
)
def test_it_answers_without_rights_with_the_boards_own_server(
    pod: Pod, pushed: str, image: Image, answering: Answering, tmp_path: Path, arch: str, cpu: str, level: str
) -> None:
    digest = next(one.digest for one in image.platforms if one.platform == f"linux/{arch}")
    pod.run("pull", "--tls-verify=false", "--platform", f"linux/{arch}", f"{pushed}@{image.index}")
    pod.run("pull", "--tls-verify=false", "--platform", f"linux/{arch}", f"{pushed}@{digest}")
    port, state = free_port(), answering.for_user(tmp_path / "state", USER)
    config = tmp_path / "gateway.toml"
    config.write_text(
        f'runtime_folder = "/tmp/gateway"\n[listen]\nport = {port}\n[child]\nthreads = 2\nhealth_ms_max = 120_000\n'
    )
    emulated = ("--env", f"QEMU_CPU={cpu}") if cpu else ()
    common = (
        *("--rm", "--read-only", "--tmpfs", "/tmp", "--network", "host", "--cap-drop", "all", *LIMITS, *emulated),
        *("--volume", f"{state}:/var/lib/drupelet", "--volume", f"{config}:/etc/drupelet/gateway.toml:ro"),
    )
    name = f"drupelet-{arch}-{cpu or 'native'}"
    log = tmp_path / "log"
    command = pod.command("run", "--name", name, *common, f"{pushed}@{digest}")
    said = answer_of(command, port=port, question=QUESTION, log=log)
    assert ANSWER in said
    assert level in log.read_text()
    shell = ("run", *common, "--entrypoint", "/bin/sh", f"{pushed}@{digest}", "-c")
    assert pod.run(*shell, "id -u; touch /usr/x /etc/x /x 2>/dev/null || echo read-only") == f"{USER}\nread-only"
