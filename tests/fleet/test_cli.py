"""The commands against a real server process on loopback."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import urllib3

from drupelet.cli.main import main
from drupelet.core.errors import BadInput
from drupelet.fleet.config import read_config
from drupelet.trust.keys import KeyRing
from tests.fakes.fleet_device import FakeDevice
from tests.waiting import until

pytestmark = pytest.mark.e2e
DRUPELET = [sys.executable, "-m", "drupelet.cli.main"]
LISTENING = re.compile(r"listening on (http://[\d.:]+)")


@dataclass
class Done:
    """What a command answered."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class Running:
    process: subprocess.Popen[bytes]
    config: Path
    url: str
    token: str

    def run(self, *words: str, token: str | None = None, server: str | None = None) -> Done:
        """Run a command in this process: starting Python dozens of times is slow."""
        out, err = io.StringIO(), io.StringIO()
        variables = {"DRUPELET_SERVER": server or self.url, "DRUPELET_TOKEN": self.token if token is None else token}
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name, value in variables.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main(list(words))
        code = ended.value.code
        return Done(int(code) if code else 0, out.getvalue(), err.getvalue())

    def enrol(self, name: str) -> int:
        device = FakeDevice(name, clock=lambda: 0)
        body = msgspec.json.encode(device.enrol_request())
        return urllib3.request("POST", f"{self.url}/device/v1/enrol", body=body, retries=False).status


@pytest.fixture(scope="module")
def server(keys: KeyRing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("server")
    ring = next(path for path in tmp_path_factory.getbasetemp().glob("keys*/ring"))
    (folder / "pass").write_text("a long test passphrase\n")
    (folder / "pass").chmod(0o600)
    config = folder / "fleet.toml"
    config.write_text(
        f"""
        listen = "127.0.0.1:0"
        state_folder = "state"
        depot_url = "http://127.0.0.1:9"
        image_root = "{ring}/image-root.json"
        director_root = ["{ring}/director-root.json"]
        director_key = "{ring}/private/director-online.pem"
        passphrase_file = "pass"
        """
    )
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([*DRUPELET, "fleet", "run", "--config", str(config)], stdout=out, stderr=out)
    try:
        found = until(lambda: LISTENING.search(log.read_text()), timeout_s=40, what="the server to listen")
        running = Running(process, config, found[1], token="")
        scopes = ("--scope", "operate", "--scope", "release")
        made = running.run("fleet", "token", "create", "tests", *scopes, "-c", str(config))
        assert made.returncode == 0, made.stderr
        running.token = made.stdout.strip()
        yield running
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("noun", ["device", "release", "rollout"])
def test_everything_can_be_listed(server: Running, noun: str) -> None:
    listed = server.run(noun, "list", "-o", "json")
    assert isinstance(json.loads(listed.stdout), list), listed.stderr
    assert server.run(noun, "list").returncode == 0


def test_devices_by_command(server: Running) -> None:
    assert server.enrol("cli-1") == 200
    listed = json.loads(server.run("device", "list", "-o", "json").stdout)
    assert [(d["id"], d["enrolment"]) for d in listed] == [("cli-1", "pending")]
    assert "an operator must approve" in server.run("device", "why", "cli-1").stdout
    assert server.run("device", "approve", "cli-1").returncode == 0
    labels = server.run("device", "label", "cli-1", "site=lab", "old-", "-o", "json")
    assert json.loads(labels.stdout) == {"site": "lab"}
    assert "cli-1" in server.run("device", "list", "-l", "site=lab,!old").stdout
    assert "never polled" in server.run("device", "show", "cli-1").stdout
    assert server.run("device", "remove", "cli-1").returncode == 0
    assert json.loads(server.run("device", "list", "-o", "json").stdout) == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("device", "why", "ghost"), 4, "no device"),
        (("device", "list", "-l", "a b"), 2, "not a condition"),
        (("device", "label", "x", "nonsense"), 2, "key=value"),
        (("release", "add", "kiosk/1.1"), 6, "127.0.0.1:9"),
        (("release", "add", "nonsense"), 2, "family/version"),
        (("release", "show", "kiosk/1.1"), 4, "not registered"),
        (("rollout", "start", "kiosk/1.1", "--stages", "0"), 4, "not registered"),
        (("rollout", "start", "kiosk/1.1", "--policy", "/nowhere"), 4, "cannot read"),
        (("rollout", "pause", "7"), 4, "no rollout"),
        (("rollout", "wait", "7"), 4, "no rollout"),
        (("rollout", "wait", "kiosk/9.9"), 4, "no rollout of kiosk/9.9"),
        (("fleet", "run", "--config", "/nowhere.toml"), 4, "no such configuration file"),
    ],
)
def test_errors_are_one_line_with_a_code(server: Running, words: tuple[str, ...], code: int, says: str) -> None:
    done = server.run(*words)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_tokens_and_servers_that_are_wrong(server: Running) -> None:
    assert server.run("device", "list", token="drup_wrong").returncode == 3
    assert server.run("device", "list", token="").returncode == 3
    assert server.run("device", "list", server="http://127.0.0.1:9").returncode == 6
    assert server.run("device", "list", server="ftp://x").returncode == 2
    assert server.run("fleet", "token", "revoke", "nobody", "-c", str(server.config)).returncode == 4


def test_two_servers_on_one_state_folder(server: Running) -> None:
    done = server.run("fleet", "run", "--config", str(server.config))
    assert (done.returncode, "another drupelet fleet" in done.stderr) == (5, True)


def test_a_port_that_is_taken(server: Running, tmp_path: Path) -> None:
    here = server.config.read_text()
    other = server.config.with_name("other.toml")
    listen = server.url.removeprefix("http://")
    other.write_text(
        re.sub(r'listen = ".*"', f'listen = "{listen}"', here).replace("state_folder =", "state_folder = 'other' #")
    )
    done = server.run("fleet", "run", "--config", str(other))
    assert (done.returncode, done.stderr.count("\n")) == (5, 1)
    assert f"{listen}: cannot listen there: Address already in use" in done.stderr


def test_a_state_folder_that_cannot_be_made(server: Running) -> None:
    other = server.config.with_name("file.toml")
    other.write_text(server.config.read_text().replace("state_folder =", f"state_folder = '{server.config}' #"))
    done = server.run("fleet", "run", "--config", str(other))
    assert (done.returncode, done.stderr.count("\n")) == (6, 1)
    assert "cannot make this folder" in done.stderr


def test_it_ends_at_once_although_somebody_listens_to_changes(server: Running) -> None:
    stream = urllib3.request(
        "GET", f"{server.url}/api/v1/stream", headers={"Authorization": f"Bearer {server.token}"},
        preload_content=False, timeout=20,
    )  # fmt: skip
    assert b"hello" in stream.read1(100)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) in (0, -signal.SIGTERM)
    stream.close()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("listn = '127.0.0.1:1'", "did you mean listen?"),
        ("poll_ms = 1", "poll_ms"),
        ("listen = 'here'", "127.0.0.1:8443"),
        ("listen = '127.0.0.1:99999'", "is not host:port"),
        ("image_root = 3", "image_root"),
        ("x = [", "not TOML"),
    ],
)
def test_a_bad_configuration_names_the_key(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "fleet.toml"
    rest = 'state_folder = "s"\ndepot_url = "http://d"\ndirector_root = ["r"]\ndirector_key = "k"\n'
    path.write_text(rest + ("" if line.startswith("image_root") else 'image_root = "i"\n') + line + "\n")
    with pytest.raises(BadInput) as error:
        read_config(path)
    assert says in error.value.line()
