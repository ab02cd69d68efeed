"""What somebody else holds: a state folder, a key under another passphrase."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from drupelet.agent.fleet_link import DeviceKey
from drupelet.cli.main import main
from drupelet.durable import PosixDisk
from tests.fakes.trust_world import make_keys

AGENT = '[device]\nid = "x"\nstate_folder = "{0}"\n[fleet]\nurl = "http://127.0.0.1:9"\n[depot]\nurl = "http://d"\n'


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """Give pytest its handlers back: a service that starts in this process takes them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def typed(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0), capsys.readouterr().err


def test_a_second_agent_on_a_state_folder_is_refused_and_the_first_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "agent.toml").write_text(AGENT.format(tmp_path / "state"))
    disk, lock = PosixDisk(), tmp_path / "state" / "agent.lock"
    with disk.lock(lock, holder="drupelet agent, pid 4711"):
        code, said = typed(capsys, "agent", "run", "-c", tmp_path / "agent.toml")
        assert (code, said.count("\n")) == (5, 1)
        assert f"{lock}: held by drupelet agent, pid 4711; stop it first" in said
        assert lock.read_text().strip() == "drupelet agent, pid 4711"
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["agent.lock"]


@pytest.mark.parametrize("bad", ["image_root", "director_root"])
def test_a_root_of_trust_that_is_none_is_named_before_the_agent_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: str
) -> None:
    make_keys(tmp_path / "keys")
    roots = {name: tmp_path / "keys" / f"{name.replace('_', '-')}.json" for name in ("image_root", "director_root")}
    roots[bad] = tmp_path / "other.json"
    roots[bad].write_text("{}")
    trust = "".join(f'{name} = "{path}"\n' for name, path in roots.items())
    (tmp_path / "agent.toml").write_text(AGENT.format(tmp_path / "state") + f"[trust]\n{trust}")
    DeviceKey.make(PosixDisk(), tmp_path / "state" / "device.key")
    code, said = typed(capsys, "agent", "run", "-c", tmp_path / "agent.toml")
    assert (code, said.count("\n")) == (2, 1)
    assert f"{roots[bad]}: this is not a TUF root" in said


@pytest.mark.parametrize(
    ("given", "says"), [(None, "set DRUPELET_PASSPHRASE"), ("another one entirely", "does not open this key")]
)
def test_a_missing_or_wrong_passphrase_signs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: str | None, says: str
) -> None:
    make_keys(tmp_path / "keys")
    monkeypatch.delenv("DRUPELET_PASSPHRASE", raising=False)
    if given is not None:
        monkeypatch.setenv("DRUPELET_PASSPHRASE", given)
    (tmp_path / "depot").mkdir()
    code, said = (
        typed(capsys, "keys", "init", tmp_path / "new", "--family", "kiosk")
        if given is None
        else typed(capsys, "forge", "publish", tmp_path, "--depot", tmp_path / "depot", "--keys", tmp_path / "keys")
    )
    assert (code, said.count("\n")) == (3, 1)
    assert says in said
    assert not (tmp_path / "new" / "keyring.json").exists()
    assert not (tmp_path / "depot" / "metadata" / "timestamp.json").exists()  # without it there is no repository
