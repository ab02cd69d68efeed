"""`drupelet forge deb`: Debian packages of the runtime."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from drupelet.cli.forge.image import epoch
from drupelet.cli.output import Format, Output, show
from drupelet.cli.progress import Bar
from drupelet.cli.units import Role, units
from drupelet.durable import PosixDisk
from drupelet.durable.port import hash_file
from drupelet.forge.runtime.debian import SUITES, SYSTEM, WAITS, build_deb, gateway_configuration, suite_of
from drupelet.forge.runtime.image import servers_of
from drupelet.forge.toolchain.servers import TARGETS, target_of
from drupelet.forge.toolchain.venvs import cache_folder

EXECUTABLE = "/usr/bin/drupelet"


def deb(
    out: Annotated[Path, typer.Option("--out", help="Folder for the packages.")] = Path("build/deb"),
    suite: Annotated[
        list[str] | None, typer.Option("--suite", help="Debian's name; may be repeated.", show_default="all")
    ] = None,
    arch: Annotated[
        list[str] | None, typer.Option("--arch", help="Debian's name; may be repeated.", show_default="all")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Build Debian packages of the runtime: for Debian and Raspberry Pi OS bookworm and trixie, arm64 and amd64.

    Example: drupelet forge deb --suite bookworm --arch arm64
    """
    suites, targets = [suite_of(name) for name in suite or SUITES], [target_of(name) for name in arch or TARGETS]
    cache, epoch_s = cache_folder().absolute(), epoch(os.environ, now_s=int(time.time()))
    servers = {target.arch: servers_of(target, cache) for target in targets}
    made = []
    with Bar() as bar:
        for one in suites:
            for target in targets:
                package = build_deb(
                    out.absolute(),
                    suite=one,
                    target=target,
                    servers=servers[target.arch],
                    files=files(),
                    epoch_s=epoch_s,
                    progress=bar.doing,
                )
                digest, size = hash_file(PosixDisk(), package)
                made.append({"package": str(package), "bytes": size, "sha256": digest.hex})
    rows = [(Path(str(one["package"])).name, f"{int(str(one['bytes'])) / 1e6:.1f}", one["sha256"]) for one in made]
    show(made, output=output, columns=("package", "MB", "sha256"), rows=rows)


def files() -> dict[str, str]:
    """Return what a package has beside the payload, by path: units, user, folders, configuration."""
    found = {f"{SYSTEM}/drupelet-agent.service.d/50-named.conf": WAITS}
    for unit in units(Role.DEVICE, executable=EXECUTABLE):
        place = {".service": SYSTEM, "sysusers.d": "usr/lib/sysusers.d", "tmpfiles.d": "usr/lib/tmpfiles.d"}
        kind = unit.path.suffix if unit.path.suffix == ".service" else unit.path.parent.name
        found[f"{place[kind]}/{unit.path.name}"] = unit.text
    found["etc/drupelet/gateway.toml"] = gateway_configuration()
    return found
