"""systemd units as they ship, and where they go: what `install` writes.

The units name `/opt/drupelet/bin/drupelet`; another place takes its stead when they are written. They run without any
capability and without write access outside their own state, so a program below `/home` or `/root`, which they cannot
see, is refused here rather than by a service that does not start.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from importlib import resources
from pathlib import Path, PurePosixPath

from drupelet.core.errors import BadInput

EXECUTABLE = "/opt/drupelet/bin/drupelet"
UNIT_FOLDER = Path("/etc/systemd/system")
SYSUSERS_FOLDER = Path("/etc/sysusers.d")
TMPFILES_FOLDER = Path("/etc/tmpfiles.d")

_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/+-]+\Z")
_HIDDEN = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108 (named because they cannot be used)


class Role(Enum):
    """What a machine is in the fleet."""

    DEVICE = "device"
    FLEET = "fleet"

    @property
    def services(self) -> tuple[str, ...]:
        """Its services, in the order they are started."""
        return _SERVICES[self]


_SERVICES = {
    Role.DEVICE: ("drupelet-gateway.service", "drupelet-agent.service"),
    Role.FLEET: ("drupelet-depot.service", "drupelet-fleet.service"),
}


@dataclass(frozen=True, slots=True)
class UnitFile:
    """One file to write: where, and its whole text. Mode 0644, owner root."""

    path: Path
    text: str


def shipped(name: str) -> str:
    """Return the text of a file of this folder, as it ships."""
    return (resources.files(__name__) / name).read_text(encoding="utf-8")


MENDER_MODULE = Path("/usr/share/mender/modules/v3/drupelet")
_MENDER_MODULE_TEXT = """#!/bin/sh
# Mender's update module "drupelet": installs, commits and rolls back signed model releases.
# Protocol: update modules v3; see docs/mender.md of Drupelet.
exec {executable} agent mender "$1" "$2"
"""


def mender_module(*, executable: str = EXECUTABLE) -> UnitFile:
    """Return Mender's update module, to be written with mode 0755; raises `BadInput` as `units` does."""
    _check_program(executable)
    return UnitFile(MENDER_MODULE, _MENDER_MODULE_TEXT.format(executable=executable))


def units(role: Role, *, executable: str = EXECUTABLE) -> tuple[UnitFile, ...]:
    """Return what a machine of this role needs; raises `BadInput` for a program the services could not start."""
    _check_program(executable)
    services = (
        UnitFile(UNIT_FOLDER / name, shipped(name).replace(f"={EXECUTABLE} ", f"={executable} "))
        for name in role.services
    )
    return (
        *services,
        UnitFile(SYSUSERS_FOLDER / "drupelet.conf", shipped("drupelet.sysusers.conf")),
        UnitFile(TMPFILES_FOLDER / f"drupelet-{role.value}.conf", shipped(f"drupelet-{role.value}.tmpfiles.conf")),
    )


def _check_program(executable: str) -> None:
    if not _PLAIN_PATH.match(executable) or ".." in PurePosixPath(executable).parts:
        raise BadInput(
            f"{executable!r} is no absolute path of plain characters",
            where="executable",
            fix=f"for example {EXECUTABLE}",
        )
    if executable.startswith(_HIDDEN):
        raise BadInput(
            f"{executable} lies where the services cannot look (ProtectHome, PrivateTmp)",
            where="executable",
            fix="install into /opt/drupelet: python3 -m venv /opt/drupelet",
        )


def after(role: Role) -> tuple[tuple[str, ...], ...]:
    """Return the commands that make the written files count, in order."""
    # Root ran `agent init`, and the key it made is root's; systemd-tmpfiles refuses to hand over what lies in a folder
    # that is another's already.
    hand_over = (("chown", "-R", "-h", "drupelet:drupelet", "/var/lib/drupelet"),) if role is Role.DEVICE else ()
    return (
        ("systemd-sysusers",),
        ("systemd-tmpfiles", "--create"),
        *hand_over,
        ("systemctl", "daemon-reload"),
        ("systemctl", "enable", "--now", *role.services),
    )
