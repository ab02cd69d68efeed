from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from drupelet.agent.slots import Layout
from drupelet.cli.units import EXECUTABLE, Role, after, shipped, units
from drupelet.core.errors import BadInput
from drupelet.core.names import Slot

EXPOSURE_MAX = {
    "drupelet-gateway.service": 1.5,
    "drupelet-agent.service": 1.5,
    "drupelet-fleet.service": 1.2,
    "drupelet-depot.service": 1.2,
}
"""As `systemd-analyze security` counts: 0 is a sealed box, 10 an unconfined root; a plain service has 9.6."""
SERVICES = sorted(EXPOSURE_MAX)
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (Debian's package systemd)"
)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The units as installed, with a program that is there: `verify` looks for it."""
    for role in Role:
        for unit in units(role, executable="/bin/true"):
            (tmp_path / unit.path.name).write_text(unit.text)
    return tmp_path


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@needs_systemd
@pytest.mark.parametrize("service", SERVICES)
def test_systemd_understands_every_line(written: Path, service: str) -> None:
    done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(written / service))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
def test_systemd_would_complain_of_a_wrong_line(written: Path) -> None:
    wrong = written / "drupelet-agent.service"
    wrong.write_text(wrong.read_text().replace("ProtectHome=yes", "ProtectHomes=yes"))
    assert "ProtectHomes" in run("systemd-analyze", "verify", "--man=no", str(wrong)).stderr


@needs_systemd
@pytest.mark.parametrize("service", SERVICES)
def test_exposure_is_low(written: Path, service: str) -> None:
    threshold = str(round(EXPOSURE_MAX[service] * 10))
    done = run(
        "systemd-analyze",
        "security",
        "--offline=true",
        "--no-pager",
        f"--threshold={threshold}",
        str(written / service),
    )
    assert done.returncode == 0, done.stdout.splitlines()[-1]


@needs_systemd
@pytest.mark.parametrize("line", ["NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet="])
def test_exposure_would_tell_a_weaker_unit(written: Path, line: str) -> None:
    weak = written / "drupelet-gateway.service"
    weak.write_text(weak.read_text().replace(line + "\n", ""))
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", str(weak))
    assert done.returncode != 0


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="needs systemd-sysusers")
def test_the_users_can_be_made(written: Path, tmp_path: Path) -> None:
    (tmp_path / "root" / "etc").mkdir(parents=True)
    conf = tmp_path / "users.conf"
    conf.write_text(shipped("drupelet.sysusers.conf"))
    done = run("systemd-sysusers", "--dry-run", f"--root={tmp_path / 'root'}", str(conf))
    assert done.returncode == 0, done.stderr
    assert "drupelet-fleet" in done.stderr + done.stdout


@pytest.mark.parametrize("role", list(Role))
def test_a_role_gets_its_own_services_and_every_unit_is_someones(role: Role) -> None:
    names = [unit.path.name for unit in units(role)]
    assert tuple(names[:-2]) == role.services
    assert {name for one in Role for name in one.services} == set(SERVICES)
    assert after(role)[-1][-len(role.services) :] == role.services


@pytest.mark.parametrize("role", list(Role))
def test_the_program_may_lie_elsewhere(role: Role) -> None:
    for unit in units(role, executable="/srv/venv/bin/drupelet"):
        if unit.path.suffix == ".service":
            assert EXECUTABLE not in unit.text
            assert re.search(
                r"^ExecStart=/srv/venv/bin/drupelet \w+ (run --config /etc/|serve )", unit.text, re.MULTILINE
            )


@pytest.mark.parametrize(
    ("executable", "says"),
    [
        ("drupelet", "no absolute path"),
        ("/opt/a b/drupelet", "no absolute path"),
        ("/opt/%h/drupelet", "no absolute path"),
        ("/opt/../home/x", "no absolute path"),
        ("/opt/x\nUser=root", "no absolute path"),
        ("/home/pi/venv/bin/drupelet", "cannot look"),
        ("/root/venv/bin/drupelet", "cannot look"),
    ],
)
def test_a_program_the_services_could_not_start_is_refused(executable: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        units(Role.DEVICE, executable=executable)


def test_the_agents_folders_are_covered_and_there_before_the_gateway_starts() -> None:
    made = set(re.findall(r"^d (/var/lib/drupelet/\w+) ", shipped("drupelet-device.tmpfiles.conf"), re.MULTILINE))
    layout = Layout(Path("/var/lib/drupelet"))
    gateway = shipped("drupelet-gateway.service")
    covered = {
        path
        for line in re.findall(r"^(?:ReadOnly|Inaccessible)Paths=(.*)$", gateway, re.MULTILINE)
        for path in line.replace("-/", "/").split()
    }
    folders = {layout.store.parent, layout.parts, layout.trust, layout.spool, layout.requests, layout.journal}
    folders |= {layout.model(Slot.A).parent.parent}
    assert {str(folder) for folder in folders} <= covered & made
    assert covered == made | {str(layout.key)}


def test_the_model_cannot_read_the_devices_key_nor_talk_to_anybody() -> None:
    gateway = shipped("drupelet-gateway.service")
    assert re.search(r"^InaccessiblePaths=.*-/var/lib/drupelet/device\.key", gateway, re.MULTILINE)
    assert "\nIPAddressDeny=any\nIPAddressAllow=localhost\n" in gateway
    assert re.search(r"^MemoryMax=\d+%$", gateway, re.MULTILINE)
    assert "\nOOMPolicy=continue\n" in gateway
