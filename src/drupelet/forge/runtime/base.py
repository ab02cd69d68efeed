"""Debian as a tree: the least that runs Python, made by `mmdebstrap` from Debian's packages, without a registry.

`mmdebstrap` makes the same bytes from the same packages. Which packages those are changes with Debian's security
updates, so a tree is kept for the day (UTC) on which it was made; two builds of one day lie on one base.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from drupelet.core.errors import Unavailable
from drupelet.forge.runtime.bom import DebianPackage, debian_packages
from drupelet.forge.toolchain.process import run
from drupelet.forge.toolchain.venvs import Progress, ToolMissing

SUITE = "bookworm"
PYTHON = "3.11"
"""What Debian's `python3` is in that suite."""
PACKAGES = ("python3", "libstdc++6", "ca-certificates", "tzdata")
USER = 10001
"""User and group id of everything in a container: a number, so that orchestrators can see that it is not root."""
BINFMT = Path("/proc/sys/fs/binfmt_misc")
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/doc/*")
_KEPT = ("/usr/share/doc/*/copyright",)
_HOOKS = (
    'rm -rf "$1"/var/log/* "$1"/var/cache/* "$1"/var/lib/apt/lists/* "$1"/var/lib/dpkg/*-old',
    f'echo "drupelet:x:{USER}:{USER}:Drupelet:/var/lib/drupelet:/usr/sbin/nologin" >> "$1"/etc/passwd',
    f'echo "drupelet:x:{USER}:" >> "$1"/etc/group',
    f'install -d -m 0700 -o {USER} -g {USER} "$1"/var/lib/drupelet',
)
_STATUS = "./var/lib/dpkg/status"


class NoEmulation(Unavailable):
    """This machine cannot run another architecture's programs, which Debian's package scripts are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """One architecture's tree, as a tar."""

    tar: Path
    packages: tuple[DebianPackage, ...]


def build_base(
    cache: Path, *, arch: str, machine: str, day: str, epoch_s: int, progress: Progress = lambda _doing: None
) -> Base:
    """Return Debian's base for `arch`, made today or found in the cache. `day` is `2026-01-31`.

    Raises `ToolMissing` without mmdebstrap, `NoEmulation`, or `ToolFailed` with its words.
    """
    made_from = hashlib.sha256("\n".join((*PACKAGES, *_LEFT_OUT, *_KEPT, *_HOOKS, str(epoch_s))).encode()).hexdigest()
    tar = cache / "bases" / f"{SUITE}-{arch}-{day}-{made_from[:12]}.tar"
    if not tar.exists():
        if shutil.which("mmdebstrap") is None:
            raise ToolMissing("there is no mmdebstrap on the path", fix="apt-get install mmdebstrap, or give --base")
        require_emulation(arch, machine)
        progress(f"Debian {SUITE} for {arch}")
        tar.parent.mkdir(parents=True, exist_ok=True)
        part = tar.with_suffix(".part.tar")
        options = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
        options += [f"--dpkgopt=path-include={pattern}" for pattern in _KEPT]
        run(
            [
                *("mmdebstrap", "--variant=essential", f"--architectures={arch}", f"--include={','.join(PACKAGES)}"),
                *("--aptopt=APT::Install-Recommends false", *options),
                *(f"--customize-hook={hook}" for hook in _HOOKS),
                *(SUITE, part),
            ],
            log=tar.with_suffix(".log"),
            doing=f"making Debian {SUITE} for {arch}",
            environment={**os.environ, "SOURCE_DATE_EPOCH": str(epoch_s)},
        )
        part.rename(tar)
    with tarfile.open(tar) as opened:
        status = opened.extractfile(_STATUS)
        text = status.read().decode() if status is not None else ""
    return Base(tar=tar, packages=debian_packages(text))


def require_emulation(arch: str, machine: str, *, here: str = "", binfmt: Path = BINFMT) -> None:
    """Raise `NoEmulation` unless programs of `machine` (as `uname -m` says) run on this one."""
    if machine == (here or platform.machine()):
        return
    if not (binfmt / f"qemu-{machine}").exists():
        raise NoEmulation(
            f"this machine does not run programs for {arch}",
            where=str(binfmt),
            fix="apt-get install qemu-user-static binfmt-support; in a container: mount binfmt_misc and register",
        )
