"""Config, slots' files, the control socket, the fleet link: against real sockets and a real disk."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import urllib3

from drupelet.agent import config, requests
from drupelet.agent.control import SocketGateway, patience_ms
from drupelet.agent.errors import BadConfig, FleetSilent, GatewaySilent, NotApproved
from drupelet.agent.fleet_link import DeviceKey, HttpFleetLink
from drupelet.agent.model import DeviceState, Standing
from drupelet.agent.report import Seen, device_status
from drupelet.agent.slots import Layout, Slots, preference, serve_of
from drupelet.core.errors import BadInput, NotAllowed, NotFound
from drupelet.core.names import Digest, Slot
from drupelet.core.states import Mode, Reason, UpdateState
from drupelet.durable import PosixDisk
from drupelet.wire.control import AskStatus, Done, Drain, Route, Unload
from drupelet.wire.device_api import DeviceEvent, Hardware, PollRequest
from tests.agent.states import NEW_DIGEST, both, held, in_flight, manifest_digest, resting
from tests.fakes.stub_fleet import StubFleet

MINIMAL = b'[device]\nid = "lab-1"\n[fleet]\nurl = "http://f"\n[depot]\nurl = "http://d"\n'
S = UpdateState
HARDWARE = Hardware(board="pi5-8gb", architecture="aarch64", memory_bytes=1, cores=4)


# Configuration


def test_a_minimal_configuration_has_defaults() -> None:
    found = config.parse(MINIMAL, where="x")
    assert found.fleet.poll_ms == 30_000
    assert found.control == Path("/var/lib/drupelet/control.sock")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINIMAL + b"[limit]\n", "did you mean limits"),
        (MINIMAL + b"[fleets]\n", "did you mean fleet"),
        (MINIMAL.replace(b"[fleet]", b"[fleet]\npol_ms = 3"), "did you mean fleet.poll_ms"),
        (MINIMAL.replace(b"lab-1", b"../etc"), "id"),
        (MINIMAL.replace(b"http://f", b"ftp://f"), "url"),
        (MINIMAL + b'[updates]\nwindows = ["2-5"]', "02:00-05:00"),
        (b"\xff", "not UTF-8"),
        (b"[device", "not TOML"),
        (b"", "device"),
    ],
)
def test_a_wrong_configuration_says_which_key_and_what_would_do(text: bytes, said: str) -> None:
    with pytest.raises(BadConfig) as caught:
        config.parse(text, where="agent.toml")
    assert said in caught.value.line()
    assert caught.value.line().startswith("agent.toml")


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="drupelet agent init"):
        config.read(tmp_path / "none.toml")


# Slots


@pytest.fixture
def slots(tmp_path: Path) -> Slots:
    return Slots(PosixDisk(), Layout(tmp_path))


def stored(slots: Slots, data: bytes) -> Digest:
    digest = Digest.of_hex(hashlib.sha256(data).hexdigest())
    with PosixDisk().part(slots.layout.part(digest)) as part:
        part.write(data)
    slots.keep(digest)
    return digest


def test_a_slot_is_a_second_name_of_the_stored_blob(slots: Slots) -> None:
    digest = stored(slots, b"model")
    what = held("1.2", digest=digest.text)
    slots.write(Slot.B, what)
    slots.write(Slot.B, what)
    assert slots.layout.model(Slot.B).samefile(slots.layout.blob(digest))
    found = slots.rebuild(DeviceState())
    assert (found.slots, found.committed) == ({Slot.B: what}, Slot.B)


def test_what_nothing_needs_is_collected(slots: Slots) -> None:
    kept, gone = stored(slots, b"kept"), stored(slots, b"gone")
    slots.collect(resting(slots={Slot.A: held("1.1", digest=kept.text)}))
    assert slots.has_blob(kept)
    assert not slots.has_blob(gone)


@pytest.mark.parametrize("harm", [b"", b"{}", b"\xff\xff", b"null"])
def test_a_damaged_sidecar_is_an_empty_slot(slots: Slots, harm: bytes) -> None:
    slots.write(Slot.A, held("1.1", digest=stored(slots, b"model").text))
    slots.layout.sidecar(Slot.A).write_bytes(harm)
    slots.layout.serve.write_bytes(harm)
    assert slots.rebuild(DeviceState()).slots == {}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (DeviceState(), ()),
        (resting(), (Slot.A,)),
        (both(), (Slot.B, Slot.A)),
        (in_flight(UpdateState.PROBATION), (Slot.A, Slot.B)),
        (in_flight(UpdateState.COMMITTING), (Slot.B, Slot.A)),
        (in_flight(UpdateState.REVERTING), (Slot.A, Slot.B)),
        (both(slots={Slot.A: held("1.1", Standing.BAD), Slot.B: held("1.2")}), (Slot.B,)),
        (both(slots={Slot.A: held("1.1", Standing.UNTRIED), Slot.B: held("1.2")}), (Slot.B,)),
    ],
)
def test_serve_json_prefers_what_is_safe_and_never_what_is_bad(state: DeviceState, expected: tuple[Slot, ...]) -> None:
    assert preference(state) == expected
    loads = serve_of(state, Layout(Path("/s"))).loads
    assert tuple(load.slot for load in loads) == expected


# Control socket


@pytest.fixture
def control(tmp_path: Path) -> Iterator[tuple[Path, list[object]]]:
    """A gateway that answers `done` to everything but `drain`, which it never answers, and hangs up on `status`."""
    path, asked = tmp_path / "c.sock", list[object]()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen()

    def talk(connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as stream:
            for line in stream:
                verb = json.loads(line)["verb"]
                asked.append(verb)
                if verb == "status":
                    return
                if verb == "unload":
                    stream.write(b"what?\n")
                elif verb != "drain":
                    stream.write(b'{"answer":"done"}\n')
                stream.flush()

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield path, asked
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(timeout=5)


def test_questions_share_a_connection_and_slow_ones_do_not_wait(control: tuple[Path, list[object]]) -> None:
    path, asked = control
    gateway = SocketGateway(path)
    slow = gateway.begin(Drain(slot=Slot.A))
    assert slow.answer(0) is None
    assert gateway.ask(Route(slot=Slot.B)) == Done()
    assert gateway.ask(Route(slot=Slot.A)) == Done()
    slow.close()
    gateway.close()
    assert sorted(map(str, asked)) == ["drain", "route", "route"]


@pytest.mark.parametrize("question", [AskStatus(), Unload(slot=Slot.A)])
def test_a_gateway_that_hangs_up_or_talks_nonsense_is_silent(
    control: tuple[Path, list[object]], question: AskStatus | Unload
) -> None:
    gateway = SocketGateway(control[0])
    with pytest.raises(GatewaySilent):
        gateway.ask(question)
    assert gateway.ask(Route(slot=Slot.B)) == Done()
    gateway.close()


def test_no_gateway_is_said_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(GatewaySilent, match="is the gateway running"):
        SocketGateway(tmp_path / "none.sock").ask(AskStatus())


def test_patience_follows_what_is_asked() -> None:
    assert patience_ms(Drain(slot=Slot.A, timeout_ms=5)) < patience_ms(Drain(slot=Slot.A, timeout_ms=50_000))


# Fleet link


@pytest.fixture
def fleet() -> Iterator[StubFleet]:
    with StubFleet() as stub:
        yield stub


@pytest.fixture
def pool() -> Iterator[urllib3.PoolManager]:
    pool = urllib3.PoolManager(retries=False)
    yield pool
    pool.clear()


def link_to(fleet: StubFleet, pool: urllib3.PoolManager, folder: Path) -> HttpFleetLink:
    disk, path = PosixDisk(), folder / "device.key"
    key = DeviceKey.read(disk, path) if path.exists() else DeviceKey.make(disk, path)
    return HttpFleetLink(
        config.Fleet(url=fleet.url, timeout_ms=5_000),
        config.Device(id="lab-1", labels={"site": "lab"}),
        key=key,
        hardware=HARDWARE,
        pool=pool,
    )


def poll() -> PollRequest:
    status = device_status(resting(), Seen())
    return PollRequest(device="lab-1", boot="b", agent_version="0", hardware=HARDWARE, status=status)


def test_a_device_enrols_waits_and_polls_once_approved(
    fleet: StubFleet, pool: urllib3.PoolManager, tmp_path: Path
) -> None:
    fleet.approve_at_once = False
    link = link_to(fleet, pool, tmp_path)
    with pytest.raises(NotApproved, match="pending"):
        link.poll(poll())
    assert fleet.enrolled["lab-1"].labels == {"site": "lab"}
    fleet.approved.add("lab-1")
    assert link.poll(poll()).poll_after_ms == fleet.poll_after_ms
    assert fleet.polls[-1].device == "lab-1"
    assert not fleet.packed
    many = tuple(DeviceEvent(seq=n, at_ms=0, event="noted", before=S.IDLE, after=S.IDLE) for n in range(1, 50))
    assert link.poll(msgspec.structs.replace(poll(), events=many)).events_taken == 49
    assert fleet.packed


def test_a_token_that_is_refused_is_renewed_once(fleet: StubFleet, pool: urllib3.PoolManager, tmp_path: Path) -> None:
    link = link_to(fleet, pool, tmp_path)
    link.poll(poll())
    fleet.tokens.clear()
    link.poll(poll())
    assert len(fleet.polls) == 2


def test_another_key_under_the_same_name_stays_outside(
    fleet: StubFleet, pool: urllib3.PoolManager, tmp_path: Path
) -> None:
    link_to(fleet, pool, tmp_path / "one").poll(poll())
    with pytest.raises(NotApproved, match="another key"):
        link_to(fleet, pool, tmp_path / "two").poll(poll())


@pytest.mark.parametrize("body", [b"<html>portal</html>", b"{}", b"x" * 200_000])
def test_what_is_no_answer_is_silence(fleet: StubFleet, pool: urllib3.PoolManager, tmp_path: Path, body: bytes) -> None:
    link = link_to(fleet, pool, tmp_path)
    link.poll(poll())
    fleet.garbage = body
    with pytest.raises(FleetSilent):
        link.poll(poll())


def test_nobody_there_is_silence(fleet: StubFleet, pool: urllib3.PoolManager, tmp_path: Path) -> None:
    link = link_to(fleet, pool, tmp_path)
    fleet.close()
    with pytest.raises(FleetSilent, match="no answer"):
        link.poll(poll())


def test_the_key_is_private_and_made_once(tmp_path: Path) -> None:
    disk, path = PosixDisk(), tmp_path / "device.key"
    made = DeviceKey.make(disk, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert DeviceKey.read(disk, path).public_hex == made.public_hex
    with pytest.raises(NotAllowed, match="already"):
        DeviceKey.make(disk, path)
    path.chmod(0o640)
    with pytest.raises(NotAllowed, match="chmod 600"):
        DeviceKey.read(disk, path)
    path.chmod(0o600)
    path.write_bytes(b"no key")
    with pytest.raises(BadInput, match="no device key"):
        DeviceKey.read(disk, path)


# Requests and reports


@pytest.mark.parametrize(
    ("state", "verb", "accepted"),
    [
        (both(), "rollback", None),
        (resting(), "rollback", False),
        (resting(), "hold", None),
        (resting(), "release", True),
    ],
)
def test_local_requests(state: DeviceState, verb: str, accepted: bool | None) -> None:
    request = requests.LocalRequest(verb=verb)  # type: ignore[arg-type]
    answer = requests.event_for(state, request)
    assert (answer.accepted if isinstance(answer, requests.LocalAnswer) else None) is accepted
    if accepted is False:
        assert isinstance(answer, requests.LocalAnswer)
        assert answer.reason is Reason.NO_OTHER_SLOT


def test_a_request_that_cannot_be_read_is_refused_and_taken_away(tmp_path: Path) -> None:
    disk = PosixDisk()
    disk.replace(tmp_path / "x.json", b"{")
    ((key, answer),) = requests.waiting(disk, tmp_path)
    assert isinstance(answer, requests.LocalAnswer)
    requests.answer(disk, tmp_path, key, answer)
    assert not list(requests.waiting(disk, tmp_path))
    assert requests.answered(disk, tmp_path, "x") == answer
    assert requests.answered(disk, tmp_path, "x") is None


def test_the_status_says_where_an_update_stands() -> None:
    seen = Seen(done_bytes=40, trouble=(Reason.DISK_FULL, "no room"))
    status = device_status(in_flight(UpdateState.DOWNLOADING), seen)
    assert (status.progress_bytes, status.total_bytes, status.reason) == (40, 100, Reason.DISK_FULL)
    installing = device_status(in_flight(UpdateState.PROBATION, mode=Mode.INSTALL), Seen())
    assert (installing.serving, installing.committed) == (Slot.B, Slot.A)
    assert msgspec.json.encode(status)
    assert {s.manifest for s in installing.slots} == {manifest_digest("1.1"), manifest_digest("1.2")}
    assert NEW_DIGEST in {s.digest for s in installing.slots}
