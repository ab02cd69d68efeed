"""A Debian package of the runtime: one for each release of Debian, whose Python it is made for, and architecture.

    /usr/bin/drupelet, /usr/lib/drupelet/...             the payload
    /usr/lib/systemd/system/drupelet-*.service           the device's services, enabled when installed
    /usr/lib/sysusers.d, /usr/lib/tmpfiles.d             the user and its folders
    /etc/drupelet/gateway.toml                           kept by dpkg as the administrator has it

The agent's service waits for `/etc/drupelet/agent.toml`: a device that nobody has named has nothing to do. Nothing here
needs root: `dpkg-deb` is told that all files are root's. The same payload gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import drupelet
from drupelet.core.errors import BadInput
from drupelet.forge.runtime.bom import FILE, bill
from drupelet.forge.runtime.payload import HOME, build_payload, normalize
from drupelet.forge.toolchain.process import run
from drupelet.forge.toolchain.servers import Target
from drupelet.forge.toolchain.venvs import Progress, ToolMissing

SCRIPTS = ("postinst", "prerm", "postrm")
MAINTAINER = "Drupelet maintainers <drupelet@localhost>"
SYSTEM = "usr/lib/systemd/system"
WAITS = """\
[Unit]
# A device that nobody has named (`drupelet agent init`) has nothing to do.
ConditionPathExists=/etc/drupelet/agent.toml
"""


@dataclass(frozen=True, slots=True)
class Suite:
    """A release of Debian: its number, its Python, and the next Python, for which this package is not made."""

    name: str
    number: int
    python: str
    python_next: str


SUITES = {suite.name: suite for suite in (Suite("bookworm", 12, "3.11", "3.12"), Suite("trixie", 13, "3.13", "3.14"))}
"""Raspberry Pi OS has the same names and the same Pythons."""


def suite_of(name: str) -> Suite:
    """Return a release of Debian by its name, or raise `BadInput`."""
    if name not in SUITES:
        raise BadInput(f"there is no package for {name[:40]!r}", where="--suite", fix=f"use {' or '.join(SUITES)}")
    return SUITES[name]


def deb_version(suite: Suite) -> str:
    """Return the package's version: newer for a newer Debian, so that an upgrade of the system takes it along."""
    return f"{drupelet.__version__}+deb{suite.number}"


def build_deb(
    out: Path,
    *,
    suite: Suite,
    target: Target,
    servers: Path,
    files: Mapping[str, str],
    epoch_s: int,
    progress: Progress = lambda _doing: None,
) -> Path:
    """Write the package into `out` and return it.

    `files` are further files by their path below `/`: units, users, folders, configuration. What lies below `etc/` is a
    configuration file of dpkg's. Raises `ToolMissing` without dpkg-deb, and what `build_payload` raises.
    """
    if shutil.which("dpkg-deb") is None:
        raise ToolMissing("there is no dpkg-deb on the path", fix="apt-get install dpkg, or build on Debian")
    out.mkdir(parents=True, exist_ok=True)
    tree = out / f"tree-{suite.name}-{target.arch}"
    payload = build_payload(tree, target=target, python=suite.python, servers=servers, scratch=out, progress=progress)
    (tree / FILE).parent.mkdir(parents=True, exist_ok=True)
    (tree / FILE).write_bytes(bill(payload, epoch_s=epoch_s))
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    _documents(tree, suite=suite, epoch_s=epoch_s)
    normalize(tree, epoch_s=epoch_s)
    size_kib = sum(path.lstat().st_size for path in tree.rglob("*") if not path.is_dir()) // 1024
    _control(tree, suite=suite, target=target, size_kib=size_kib)
    os.utime(tree / "DEBIAN", (epoch_s, epoch_s))
    package = out / f"drupelet_{deb_version(suite)}_{target.arch}.deb"
    progress(f"packing {package.name}")
    run(
        ["dpkg-deb", "--root-owner-group", "-Zxz", "-z3", "--threads-max=1", "--build", tree, package],
        log=out / f"{package.name}.log",
        doing=f"packing {package.name}",
        environment={**os.environ, "SOURCE_DATE_EPOCH": str(epoch_s)},
    )
    shutil.rmtree(tree)
    return package


def _documents(tree: Path, *, suite: Suite, epoch_s: int) -> None:
    folder = tree / "usr" / "share" / "doc" / "drupelet"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "copyright").write_bytes((_data() / "copyright").read_bytes())
    date = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(epoch_s))
    entry = f"drupelet ({deb_version(suite)}) {suite.name}; urgency=medium\n\n  * Version {drupelet.__version__}.\n\n"
    packed = gzip.compress(f"{entry} -- {MAINTAINER}  {date}\n".encode(), compresslevel=9, mtime=0)
    (folder / "changelog.Debian.gz").write_bytes(packed)


def _control(tree: Path, *, suite: Suite, target: Target, size_kib: int) -> None:
    control = tree / "DEBIAN"
    control.mkdir()
    values = {
        "version": deb_version(suite),
        "arch": target.arch,
        "python": suite.python,
        "python_next": suite.python_next,
        "size_kib": size_kib,
        "maintainer": MAINTAINER,
    }
    (control / "control").write_text((_data() / "control").read_text().format(**values))
    for script in SCRIPTS:
        (control / script).write_text((_data() / script).read_text().replace("@HOME@", f"/{HOME}"))
        (control / script).chmod(0o755)
    regular = [path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink()]
    shipped = [path for path in regular if "DEBIAN" not in path.relative_to(tree).parts]
    configuration = [path for path in shipped if path.is_relative_to(tree / "etc")]
    (control / "conffiles").write_text("".join(f"/{path.relative_to(tree)}\n" for path in configuration))
    sums = [(hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(), path) for path in shipped]
    listed = [f"{digest}  {path.relative_to(tree)}\n" for digest, path in sums if path not in configuration]
    (control / "md5sums").write_text("".join(listed))


def gateway_configuration() -> str:
    """Return `gateway.toml` as the package brings it."""
    return (_data() / "gateway.toml").read_text(encoding="utf-8")


def _data() -> Traversable:
    return resources.files(__package__) / "debian_files"
