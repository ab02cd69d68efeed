"""The Debian package in a fresh system of each release it is made for: installed, asked, upgraded, purged."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from drupelet.forge.runtime.debian import deb_version, suite_of
from drupelet.forge.toolchain.venvs import cache_folder
from tests.runtime.answering import Answering, answer_of, free_port
from tests.runtime.conftest import Cli, need

NEEDED = "python3,ca-certificates,libstdc++6,systemd"
QUESTION, ANSWER = "Where can I find the milk?", "fridge"
EXPLAINED = (
    "wrong-path-for-interpreter",  # a private environment's own
    "unstripped-binary-or-object",  # wheels go in as they were published: the bill of materials has their digests
    "bogus-mail-host",
    "bogus-mail-host-in-debian-changelog",
)
"""What lintian calls errors and is meant."""
EDITED = "# edited by the administrator\n"


class System:
    """A Debian system in a folder, as far as no init runs in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def make(cls, root: Path, *, suite: str, arch: str) -> System:
        """Unpack a system, made once a day."""
        need("mmdebstrap", "unshare")
        tar = cache_folder() / "bases" / f"system-{suite}-{arch}-{time.strftime('%Y-%m-%d', time.gmtime())}.tar"
        if not tar.exists():
            tar.parent.mkdir(parents=True, exist_ok=True)
            part = tar.with_suffix(".part.tar")
            options = ["--variant=minbase", "--aptopt=APT::Install-Recommends false", f"--include={NEEDED}"]
            command = ["mmdebstrap", *options, f"--architectures={arch}", suite, str(part)]
            subprocess.run(command, check=True, capture_output=True)
            part.rename(tar)
        root.mkdir()
        subprocess.run(["tar", "-C", root, "-xf", tar], check=True)
        return cls(root)

    def command(self, *arguments: str) -> list[str]:
        """Return what runs a command in the system, with /proc: one process, which a signal reaches."""
        inside = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
        return ["unshare", "--mount", "sh", "-c", inside, str(self.root), *arguments]

    def run(self, *arguments: str) -> str:
        """Run a command and return what it printed."""
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout + done.stderr

    def take(self, package: Path) -> str:
        """Put a package into the system and return its path there."""
        shutil.copy(package, self.root / "tmp" / package.name)
        return f"/tmp/{package.name}"

    def files(self) -> set[str]:
        """Return what belongs to drupelet, wherever it lies."""
        found = self.root.rglob("*drupelet*")
        ours = {f"/{path.relative_to(self.root)}" for path in found if "proc" not in path.parts}
        return {path for path in ours if not path.startswith("/tmp/") and not path.startswith("/var/lib/dpkg/")}


@pytest.fixture(scope="session")
def packages(drupelet: Cli) -> Path:
    """The folder of all packages."""
    need("dpkg-deb")
    drupelet("forge", "deb", "--out", "deb")
    for package in sorted((drupelet.folder / "deb").glob("*.deb")):
        print(f"{package.name}: {package.stat().st_size / 1e6:.1f} MB")  # noqa: T201 (what people run it for)
    return drupelet.folder / "deb"


def newer(package: Path, folder: Path, *, gateway: str = "") -> Path:
    """Return the package of a later version, with another `gateway.toml` if that is given."""
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(control.read_text().replace("Version: 0.1.0+", f"Version: 0.1.{2 if gateway else 1}+"))
    if gateway:
        (tree / "etc" / "drupelet" / "gateway.toml").write_text(gateway)
    made = folder / f"newer-{2 if gateway else 1}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, made], check=True, capture_output=True)
    shutil.rmtree(tree)
    return made


@pytest.mark.parametrize(("suite", "arch"), [("bookworm", "amd64"), ("trixie", "amd64"), ("bookworm", "arm64")])
def test_a_package_lives_through_all_that_dpkg_does(
    packages: Path, answering: Answering, tmp_path: Path, suite: str, arch: str
) -> None:
    if (
        arch == "arm64"
        and platform.machine() != "aarch64"
        and not Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists()
    ):
        pytest.skip("this machine does not run programs for arm64")
    system = System.make(tmp_path / "root", suite=suite, arch=arch)
    package = packages / f"drupelet_{deb_version(suite_of(suite))}_{arch}.deb"
    system.run("dpkg", "--install", system.take(package))
    assert "drupelet:" in (system.root / "etc" / "passwd").read_text()
    enabled = system.root / "etc" / "systemd" / "system" / "multi-user.target.wants"
    assert {path.name for path in enabled.glob("drupelet-*")} == {"drupelet-gateway.service", "drupelet-agent.service"}
    assert "listen.port" in system.run("drupelet", "gateway", "check")
    system.run("drupelet", "agent", "--help")
    _asked(system, answering, tmp_path / "log")

    configuration = system.root / "etc" / "drupelet" / "gateway.toml"
    configuration.write_text(configuration.read_text() + EDITED)
    system.run("dpkg", "--install", system.take(newer(package, tmp_path)))
    assert configuration.read_text().endswith(EDITED), "an upgrade that does not touch it does not ask either"
    changed = newer(package, tmp_path, gateway="# another default\n")
    system.run("dpkg", "--force-confdef", "--force-confold", "--install", system.take(changed))
    assert configuration.read_text().endswith(EDITED)
    assert configuration.with_name("gateway.toml.dpkg-dist").read_text() == "# another default\n"
    assert (system.root / "var" / "lib" / "drupelet" / "serve.json").exists()

    system.run("dpkg", "--remove", "drupelet")
    assert configuration.exists(), "removing keeps configuration and state"
    assert not (system.root / "usr" / "lib" / "drupelet").exists()
    system.run("dpkg", "--purge", "drupelet")
    assert system.files() == set()


def _asked(system: System, answering: Answering, log: Path) -> None:
    """Commit the kiosk model and ask the installed gateway, which runs as its own user."""
    state = system.root / "var" / "lib" / "drupelet"
    user = next(
        line for line in (system.root / "etc" / "passwd").read_text().splitlines() if line.startswith("drupelet:")
    )
    for path in answering.folder.iterdir():
        shutil.copy(path, state / path.name)
        shutil.chown(state / path.name, int(user.split(":")[2]), int(user.split(":")[3]))
    port = free_port()
    config = system.root / "tmp" / "gateway.toml"
    config.write_text(
        f'runtime_folder = "/tmp/gw"\n[listen]\nport = {port}\n[child]\nthreads = 2\nhealth_ms_max = 120_000\n'
    )
    run = ("setpriv", "--reuid", "drupelet", "--regid", "drupelet", "--clear-groups", "--no-new-privs")
    command = system.command(*run, "/usr/bin/drupelet", "gateway", "run", "--config", "/tmp/gateway.toml")
    assert ANSWER in answer_of(command, port=port, question=QUESTION, log=log)
    assert "/usr/lib/drupelet/llama/llama-server-" in log.read_text()
    shutil.rmtree(system.root / "tmp" / "gw", ignore_errors=True)


def test_a_package_is_the_same_when_it_is_built_again(drupelet: Cli, packages: Path) -> None:
    drupelet("forge", "deb", "--out", "deb-again", "--suite", "trixie", "--arch", "arm64")
    name = f"drupelet_{deb_version(suite_of('trixie'))}_arm64.deb"
    first, again = packages / name, drupelet.folder / "deb-again" / name
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(again.read_bytes()).digest()


def test_lintian_finds_no_error_that_is_not_explained(packages: Path) -> None:
    need("lintian")
    package = next(packages.glob("*deb12_amd64.deb"))
    command = ["lintian", "--allow-root", "--fail-on", "error", "--suppress-tags", ",".join(EXPLAINED), package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
