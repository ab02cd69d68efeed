"""The file tree that image and packages share, below `/usr`.

    usr/bin/drupelet -> ../lib/drupelet/bin/drupelet
    usr/lib/drupelet/bin/drupelet, python3 -> the distribution's Python
    usr/lib/drupelet/lib/python3.11/site-packages/...   this package and its dependencies
    usr/lib/drupelet/llama/llama-server-<level>
    usr/share/drupelet/bom.cdx.json

It is a virtual environment by its layout (PEP 405): a private place for dependencies that Debian has in older versions,
with the Python that Debian keeps secure. What goes in is the package as it runs here, and the wheels that pip resolves
for the other machine, held to the versions that are installed here.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import drupelet
from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.durable import PosixDisk
from drupelet.durable.port import hash_file
from drupelet.forge.toolchain.process import run
from drupelet.forge.toolchain.servers import Target
from drupelet.forge.toolchain.venvs import Progress

HOME = "usr/lib/drupelet"
LLAMA = f"/{HOME}/llama"
LAUNCHER = f"""#!/{HOME}/bin/python3 -I
import os
import sys

from drupelet.cli.main import main

os.environ.setdefault("DRUPELET_LLAMA_SERVER", "{LLAMA}")
sys.exit(main())
"""
"""-I: nothing in the environment or the working folder decides what code runs."""
_LEFT_OUT = ("xllamacpp",)
"""What the runtime has instead: its own llama-server."""
_GLIBC = ("2_36", "2_34", "2_31", "2_28", "2_27", "2_26", "2_24", "2_17")
"""manylinux levels that Debian 12 (glibc 2.36) and later fulfil."""
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?P<rest>[^;]*)(;\s*(?P<marker>.*))?\Z")
_EXTRA = re.compile(r'extra == "(?P<extra>[a-z]+)"\Z')


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """One Python package that went in: name, version, and the digest of its wheel."""

    name: str
    version: str
    sha256: str
    license: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One llama-server that went in."""

    level: str
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A finished tree for one architecture and one Python."""

    folder: Path
    target: Target
    python: str
    wheels: tuple[Wheel, ...]
    programs: tuple[Program, ...]


def requirements() -> tuple[str, ...]:
    """Return what pip is asked for: the device's and the gateway's requirements, as this package declares them."""
    wanted = []
    for text in importlib.metadata.requires("drupelet") or ():
        found = _REQUIREMENT.match(text)
        marker = found["marker"] if found else None
        extra = _EXTRA.match(marker) if marker else None
        if found and found["name"] not in _LEFT_OUT and (marker is None or (extra and extra["extra"] == "gateway")):
            wanted.append(f"{found['name']}{found['rest'].strip()}")
    return tuple(sorted(wanted))


def installed_versions() -> tuple[str, ...]:
    """Return `name==version` of all that is installed here: what was tested is what goes in."""
    here = {dist.metadata["Name"]: dist.version for dist in importlib.metadata.distributions()}
    return tuple(f"{name}=={version}" for name, version in sorted(here.items()) if name and name != "drupelet")


def build_payload(
    folder: Path,
    *,
    target: Target,
    python: str,
    servers: Path,
    scratch: Path,
    progress: Progress = lambda _doing: None,
) -> Payload:
    """Write the tree into `folder`, which is emptied first, and return what is in it.

    `python` is the device's, such as `3.11`; `servers` holds the builds of llama-server; pip's words go to `scratch`.
    Raises `ToolFailed` if pip finds no wheel for it, `BadInput` for a Python that is no version.
    """
    if not re.fullmatch(r"3\.[0-9]{2}", python):
        raise BadInput(f"Python {python[:20]!r} is no version such as 3.11", where="--python")
    shutil.rmtree(folder, ignore_errors=True)
    home = folder / HOME
    site = home / "lib" / f"python{python}" / "site-packages"
    site.mkdir(parents=True)
    progress(f"wheels for {target.arch}, Python {python}")
    wheels = _install_wheels(site, target=target, python=python, scratch=scratch)
    _copy_ourselves(site / "drupelet")
    _layout(folder, home, python)
    programs = tuple(_copy_programs(home / "llama", target=target, servers=servers))
    return Payload(folder=folder, target=target, python=python, wheels=wheels, programs=programs)


def normalize(folder: Path, *, epoch_s: int) -> None:
    """Give every file the same time and plain modes (0755 for folders and programs, else 0644)."""
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if runs else 0o644)
        os.utime(path, (epoch_s, epoch_s), follow_symlinks=False)


def _install_wheels(site: Path, *, target: Target, python: str, scratch: Path) -> tuple[Wheel, ...]:
    machine, digits = target.machine, python.replace(".", "")
    versions, report = scratch / f"versions-{target.arch}.txt", scratch / f"pip-{target.arch}-{digits}.json"
    versions.write_text("\n".join(installed_versions()) + "\n")
    platforms = [f"manylinux_{level}_{machine}" for level in _GLIBC] + [f"manylinux2014_{machine}", "any"]
    command: list[str | Path] = [
        *(sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile", "--quiet"),
        *("--target", site, "--report", report, "--constraint", versions, "--only-binary", ":all:"),
        *("--implementation", "cp", "--python-version", python),
        *("--abi", f"cp{digits}", "--abi", "abi3", "--abi", "none"),
    ]
    for platform in platforms:
        command += ["--platform", platform]
    log = scratch / f"pip-{target.arch}-{digits}.log"
    log.unlink(missing_ok=True)
    run([*command, *requirements()], log=log, doing=f"getting wheels for {target.arch}", fix="see pip's words there")
    shutil.rmtree(site / "bin", ignore_errors=True)  # their commands are not ours to offer
    # What pip notes about this installation (who, from where, by which digest of what) differs from run to run.
    for note in [*site.glob("*.dist-info/RECORD"), *site.glob("*.dist-info/REQUESTED"), *site.rglob("direct_url.json")]:
        note.unlink()
    said = json.loads(report.read_bytes())
    return tuple(sorted(map(_wheel_of, said["install"]), key=lambda wheel: wheel.name))


def _wheel_of(entry: dict[str, object]) -> Wheel:
    metadata, download = entry["metadata"], entry["download_info"]
    if not isinstance(metadata, dict) or not isinstance(download, dict):
        raise BadInput("pip's report is not of the form this version knows", fix="use another pip")
    return Wheel(
        name=str(metadata["name"]),
        version=str(metadata["version"]),
        sha256=str(download["archive_info"]["hashes"]["sha256"]),
        license=str(metadata.get("license_expression") or ""),
    )


def _copy_ourselves(place: Path) -> None:
    here = Path(drupelet.__file__).parent
    shutil.copytree(here, place, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    info = place.parent / f"drupelet-{drupelet.__version__}.dist-info"
    info.mkdir()
    about = f"Metadata-Version: 2.1\nName: drupelet\nVersion: {drupelet.__version__}\nLicense: Apache-2.0\n"
    (info / "METADATA").write_text(about)


def _layout(folder: Path, home: Path, python: str) -> None:
    (home / "bin").mkdir()
    (home / "bin" / "python3").symlink_to(f"/usr/bin/python{python}")
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    launcher = home / "bin" / "drupelet"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)
    (folder / "usr" / "bin").mkdir()
    (folder / "usr" / "bin" / "drupelet").symlink_to("../lib/drupelet/bin/drupelet")


def _copy_programs(place: Path, *, target: Target, servers: Path) -> Iterator[Program]:
    place.mkdir()
    disk = PosixDisk()
    for level in target.levels:
        name = f"llama-server-{level}"
        shutil.copyfile(servers / name, place / name)
        (place / name).chmod(0o755)
        digest, size = hash_file(disk, place / name)
        yield Program(level=level, digest=digest, size_bytes=size)
