"""`rollout start --via ...` as a person or a pipeline types it, against the stand-ins."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from drupelet.cli import via
from drupelet.cli.main import main
from drupelet.core.errors import Unavailable
from drupelet.drivers import deployment
from drupelet.drivers.errors import BadDeployment, ServiceSilent
from drupelet.drivers.port import Seen, State
from tests.fakes.balena_server import BalenaServer
from tests.fakes.hawkbit_server import HawkbitServer
from tests.fakes.json_server import JsonServer
from tests.fakes.mender_server import MenderServer

ARTICLE = {
    "artifact_name": "edge-runtime-20260115",
    "type": "mender",
    "device_group": "canary-1pct",
    "artifact_uri": "https://artifacts.example.com/edge-runtime-20260115.tar.gz",
    "rollout": {"strategy": "percent", "start": 1, "steps": [1, 25, 100]},
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(via, "POLL_S", 0.01)
    return tmp_path


@pytest.fixture
def mender() -> Iterator[MenderServer]:
    made = MenderServer({"canary-1pct": [f"d{n}" for n in range(8)]}, {"edge-runtime-20260115", "kiosk-1.2"})
    yield made
    made.close()


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["rollout", "start", *words])
    return int(ended.value.code or 0)


def answering(server: MenderServer, status: str) -> threading.Event:
    """Let every device answer like this as soon as it is asked, until the event is set."""
    over = threading.Event()

    def answer() -> None:
        while not over.wait(0.005):
            for one in list(server.deployments.values()):
                for device in one["devices"]:
                    if device not in one["statuses"]:
                        server.report(device, status)

    threading.Thread(target=answer, daemon=True).start()
    return over


def test_the_articles_deployment_goes_out_in_three_stages(
    mender: MenderServer, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "deployment.json").write_text(json.dumps(ARTICLE))
    monkeypatch.setenv("MENDER_SERVER", mender.url)
    monkeypatch.setenv("MENDER_TOKEN", "secret-token")
    over = answering(mender, "success")
    assert run("--deployment", "deployment.json") == 0
    over.set()
    said = capsys.readouterr()
    assert [len(one["devices"]) for one in mender.deployments.values()] == [1, 1, 6]
    assert {one["artifact_name"] for one in mender.deployments.values()} == {"edge-runtime-20260115"}
    assert "completed, stage 3 of 3; 8 given it, 8 have it, 0 failed" in said.out
    assert "no gate judges this rollout" in said.err
    assert "secret-token" not in said.out + said.err


def test_a_failing_device_fails_the_command_with_the_words(
    mender: MenderServer, capsys: pytest.CaptureFixture[str]
) -> None:
    over = answering(mender, "failure")
    words = ("kiosk/1.2", "--via", "mender", "--server", mender.url, "--token", "secret-token")
    assert run(*words, "--to", "canary-1pct", "--stages", "2,8") == 8
    over.set()
    said = capsys.readouterr().err
    assert "it was taken back: 2 of 2 devices failed to install it" in said
    assert "keep it until another artifact is deployed" in said


def test_once_does_one_thing_and_the_next_call_goes_on(mender: MenderServer, here: Path) -> None:
    words = ("kiosk/1.2", "--via", "mender", "--server", mender.url, "--token", "secret-token", "--once")
    words = (*words, "--to", "canary-1pct", "--stages", "1,8")
    assert run(*words) == 0
    assert run(*words) == 0
    assert len(mender.deployments) == 1
    mender.report(mender.deployments["d-1"]["devices"][0], "success")
    assert run(*words) == 0
    assert len(mender.deployments) == 2
    assert run(*words, "--abort") == 0
    assert mender.deployments["d-2"]["status"] == "finished"
    notes = json.loads((here / ".drupelet/rollouts/mender-kiosk-1.2.json").read_text())
    assert notes["state"] == "taken_back"


def test_artifacts_are_uploaded_under_the_services_own_names(
    mender: MenderServer, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "a").write_bytes(b"artifact")
    hawkbit = HawkbitServer({"lab": ["t1"]}, set())
    balena = BalenaServer("org/lab", ["b1"], {"1.2": 102}, runs=101)
    cases: list[tuple[str, JsonServer, str, str, str]] = [
        ("mender", mender, "canary-1pct", "kiosk/1.2", "secret-token"),
        ("hawkbit", hawkbit, "tag==lab", "kiosk/1.2", "admin:secret"),
        ("balena", balena, "org/lab", "1.2", "secret-token"),
    ]
    for kind, server, group, release, token in cases:
        words = ("--via", kind, "--server", server.url, "--token", token, "--to", group, "--stages", "100%", "--once")
        given = () if kind == "balena" else ("--artifact", "a")
        assert run(release, *words, *given, "-o", "json") == 0
        assert json.loads(capsys.readouterr().out)["exposed"] >= 1
    assert run("1.2", "--via", "balena", "--server", balena.url, "--stages", "1", "--artifact", "a") == 2
    assert mender.uploads == hawkbit.uploads == [b"artifact"]
    hawkbit.close()
    balena.close()


def test_another_services_secret_is_never_sent(
    mender: MenderServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRUPELET_SERVER", mender.url)
    monkeypatch.setenv("DRUPELET_TOKEN", "fleet-secret")
    assert run("kiosk/1.2", "--via", "mender", "--stages", "1") == 2
    assert "MENDER_SERVER" in capsys.readouterr().err
    assert not mender.requests


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--via", "mender"), "no release is named"),
        (("kiosk/1.2", "--via", "mender"), "no stages are given"),
        (("kiosk/1.2", "--via", "mender", "--stages", "5,1"), "does not come after"),
        (("kiosk/1.2", "--via", "mender", "--stages", "0"), "is no stage"),
        (("kiosk/1.2", "--via", "puppet", "--stages", "1"), "puppet"),
        ((), "no release is named"),
    ],
)
def test_what_is_typed_wrong_is_one_line(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    printed = capsys.readouterr().err.strip()
    assert said in printed
    assert "\n" not in printed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"artifact_name": None}, "artifact_name"),
        ({"type": "puppet"}, "type"),
        ({"rollout": {"strategy": "percent", "start": 5, "steps": [1, 100]}}, "leave start out"),
        ({"rollout": {"strategy": "percent", "steps": []}}, "steps"),
        ({"rollout": {"strategy": "percent", "steps": [0]}}, "steps"),
        ({"rollouts": {}}, "rollouts"),
    ],
)
def test_a_deployment_that_is_none_is_refused(changes: dict[str, object], said: str, here: Path) -> None:
    path = here / "d.json"
    path.write_text(json.dumps({k: v for k, v in {**ARTICLE, **changes}.items() if v is not None}))
    with pytest.raises(BadDeployment) as caught:
        deployment.read(path)
    assert said in caught.value.line()


def test_files_that_are_no_json_are_refused(here: Path) -> None:
    for data in (b"", b"[", b"\xff", b"[" * 5000, b" " * (deployment.BYTES_MAX + 1)):
        (here / "d.json").write_bytes(data)
        with pytest.raises(BadDeployment):
            deployment.read(here / "d.json")
    with pytest.raises(BadDeployment, match="cannot be read"):
        deployment.read(here / "nothing")


class Script:
    """A driver that answers from a list."""

    def __init__(self, *answers: Seen | Exception) -> None:
        self._answers = list(answers)

    def step(self) -> Seen:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def abort(self, reason: str) -> Seen:
        raise AssertionError(reason)


def seen(state: State) -> Seen:
    return Seen(state=state, stage=0, stages=1, exposed=1, done=0, failed=0, says="so")


def test_an_outage_is_waited_out_and_a_timeout_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    away = ServiceSilent("no answer", where="there")
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    script = Script(away, away, seen(State.RUNNING), seen(State.PAUSED), seen(State.COMPLETED))
    via.follow(script, name="r", output=via.Format.TABLE, timeout_s=60, clock=lambda: now[0], sleep=sleep)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4, "what did not change is not said again"
    script = Script(*[seen(State.RUNNING)] * 1000)
    with pytest.raises(Unavailable, match="not ended within 1 s"):
        via.follow(script, name="r", output=via.Format.TABLE, timeout_s=1, clock=lambda: now[0], sleep=sleep)
