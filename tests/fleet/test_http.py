"""The server over HTTP: devices' doors, tokens and scopes, bad input; never a traceback."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from drupelet.fleet.credentials import DEVICE_TOKEN_MS, Scope
from drupelet.fleet.enrolment import PENDING_MAX
from drupelet.wire.device_api import EnrolReply, EnrolRequest, PollReply, PollRequest
from tests.fakes.fleet_device import FakeDevice
from tests.fleet.client import Client
from tests.fleet.world import World

DEVICE = "/device/v1"


@pytest.fixture
def client(world: World) -> Iterator[Client]:
    with Client(world.fleet) as opened:
        yield opened


def make(world: World, name: str = "lab-1", **fields: Any) -> FakeDevice:
    return FakeDevice(name, clock=lambda: world.now, **fields)


def enrol(client: Client, device: FakeDevice) -> Any:
    return client.post(f"{DEVICE}/enrol", content=msgspec.json.encode(device.enrol_request()))


def token(client: Client, device: FakeDevice) -> Any:
    asked = client.post(f"{DEVICE}/challenge", json={"format": "drupelet.challenge/1", "device": device.name})
    proof = device.token_request(asked.json()["challenge"])
    return client.post(f"{DEVICE}/token", content=msgspec.json.encode(proof))


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def approved(client: Client, world: World, name: str = "lab-1") -> tuple[FakeDevice, dict[str, str]]:
    device = make(world, name)
    enrol(client, device)
    world.fleet.devices.decide(name, approve=True, by="test")
    return device, bearer(token(client, device).json()["token"])


def test_a_device_enrols_waits_proves_itself_polls_and_reads_its_orders(client: Client, world: World) -> None:
    device = make(world)
    assert msgspec.json.decode(enrol(client, device).content, type=EnrolReply).state == "pending"
    assert token(client, device).status_code == 403
    world.fleet.devices.decide("lab-1", approve=True, by="test")
    assert msgspec.json.decode(enrol(client, device).content, type=EnrolReply).state == "approved"
    head = bearer(token(client, device).json()["token"])
    device.window(release="kiosk/1.1")
    data = zlib.compress(msgspec.json.encode(device.poll()))
    polled = client.post(f"{DEVICE}/poll", content=data, headers={**head, "Content-Encoding": "deflate"})
    assert msgspec.json.decode(polled.content, type=PollReply).windows_taken == 1
    world.reconciler.look()
    signed = client.get(f"{DEVICE}/director/lab-1/timestamp.json", headers=head)
    assert signed.json()["signed"]["_type"] == "timestamp"
    assert client.get(f"{DEVICE}/director/lab-1/1.root.json", headers=head).status_code == 200
    assert client.get(f"{DEVICE}/director/lab-1/2.root.json", headers=head).status_code == 404


def test_a_device_reads_nobody_elses_orders(client: Client, world: World) -> None:
    _, head = approved(client, world)
    approved(client, world, "lab-2")
    assert client.get(f"{DEVICE}/director/lab-2/timestamp.json", headers=head).status_code == 403
    other = msgspec.json.encode(make(world, "lab-2").poll())
    assert client.post(f"{DEVICE}/poll", content=other, headers=head).status_code == 403


def test_another_key_under_a_known_name_is_refused_and_shown(client: Client, world: World) -> None:
    approved(client, world)
    said = enrol(client, make(world))
    assert said.status_code == 409
    assert "another key" in said.json()["what"]
    page = world.fleet.reader.device("lab-1")
    assert page.key_conflicts == 1
    assert "another key" in page.device.attention
    assert world.fleet.reader.audit(subject="lab-1").items[0].action == "device.key_conflict"


def test_an_enrolment_signed_with_another_key_is_refused(client: Client, world: World) -> None:
    stolen = msgspec.structs.replace(make(world).enrol_request(), public_key=make(world).public_key)
    assert client.post(f"{DEVICE}/enrol", content=msgspec.json.encode(stolen)).status_code == 401


def test_a_challenge_is_good_once_and_for_a_minute(client: Client, world: World) -> None:
    device, _ = approved(client, world)
    challenge = client.post(f"{DEVICE}/challenge", json={"format": "drupelet.challenge/1", "device": "lab-1"}).json()
    proof = msgspec.json.encode(device.token_request(challenge["challenge"]))
    assert client.post(f"{DEVICE}/token", content=proof).status_code == 200
    assert client.post(f"{DEVICE}/token", content=proof).status_code == 401
    late = client.post(f"{DEVICE}/challenge", json={"format": "drupelet.challenge/1", "device": "lab-1"}).json()
    world.now += 61_000
    said = client.post(f"{DEVICE}/token", content=msgspec.json.encode(device.token_request(late["challenge"])))
    assert (said.status_code, "expired" in said.json()["what"]) == (401, True)


def test_device_tokens_expire_and_do_not_outlive_a_removal(client: Client, world: World) -> None:
    device, head = approved(client, world)
    poll = msgspec.json.encode(device.poll())
    assert client.post(f"{DEVICE}/poll", content=poll, headers=head).status_code == 200
    world.fleet.devices.remove("lab-1", by="test")
    assert client.post(f"{DEVICE}/poll", content=poll, headers=head).status_code == 404
    assert client.get(f"{DEVICE}/director/lab-1/timestamp.json", headers=head).status_code == 403
    world.now += DEVICE_TOKEN_MS + 1
    assert client.post(f"{DEVICE}/poll", content=poll, headers=head).status_code == 401
    again = make(world)
    assert enrol(client, again).json()["state"] == "pending"


@pytest.mark.parametrize("secret", ["", "nonsense", "a~b~c", "~~", "zz~lab-1~" + "0" * 64])
def test_forged_device_tokens(client: Client, secret: str) -> None:
    said = client.post(f"{DEVICE}/poll", content=b"{}", headers=bearer(secret) if secret else {})
    assert (said.status_code, set(said.json())) == (401, {"what", "where", "fix", "reason"})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 413),
        (b"[" * 9_000, 400),
        (b'{"format":"drupelet.enrol/9"}', 400),
        (b'{"format":"drupelet.enrol/1","device":"../etc"}', 400),
        (b"x" * (EnrolRequest.BYTES_MAX + 1), 413),
    ],
)
def test_bad_enrolments_are_problems(client: Client, body: bytes, status: int) -> None:
    said = client.post(f"{DEVICE}/enrol", content=body)
    assert said.status_code == status
    assert said.json()["what"]


def test_a_zip_bomb_is_refused(client: Client, world: World) -> None:
    _, head = approved(client, world)
    bomb = zlib.compress(b" " * (PollRequest.BYTES_MAX + 1))
    said = client.post(f"{DEVICE}/poll", content=bomb, headers={**head, "Content-Encoding": "deflate"})
    assert said.status_code == 413
    cut = zlib.compress(b"{}")[:-3]
    assert (
        client.post(f"{DEVICE}/poll", content=cut, headers={**head, "Content-Encoding": "deflate"}).status_code == 400
    )


def test_attempts_before_approval_are_counted_by_address(world: World) -> None:
    server = world.server(world.store, attempts_per_minute_max=3)
    with Client(server) as client:
        codes = [enrol(client, make(world, f"d-{i}")).status_code for i in range(5)]
        assert codes == [200, 200, 200, 429, 429]
        world.now += 60_001
        assert enrol(client, make(world, "d-9")).status_code == 200


def test_so_many_may_wait_and_no_more(client: Client, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PENDING_MAX > 2
    monkeypatch.setattr("drupelet.fleet.enrolment.PENDING_MAX", 2)
    assert [enrol(client, make(world, f"d-{i}")).status_code for i in range(3)] == [200, 200, 429]


# --- the management API -------------------------------------------------------------------------------------------

CALLS = [
    ("GET", "/overview", Scope.READ, 200),
    ("GET", "/audit", Scope.READ, 200),
    ("GET", "/devices", Scope.READ, 200),
    ("GET", "/devices/lab-1", Scope.READ, 200),
    ("GET", "/devices/lab-1/why", Scope.READ, 200),
    ("POST", "/devices/lab-1/approve", Scope.OPERATE, 200),
    ("POST", "/devices/lab-1/reject", Scope.OPERATE, 200),
    ("PATCH", "/devices/lab-1/labels", Scope.OPERATE, 200),
    ("DELETE", "/devices/lab-1", Scope.OPERATE, 204),
    ("GET", "/releases", Scope.READ, 200),
    ("GET", "/releases/kiosk/1.1", Scope.READ, 200),
    ("GET", "/releases/kiosk/1.1/manifest", Scope.READ, 200),
    ("POST", "/releases", Scope.RELEASE, 201),
    ("POST", "/releases/kiosk/1.1/condemn", Scope.RELEASE, 200),
    ("GET", "/rollouts", Scope.READ, 200),
    ("GET", "/rollouts/1", Scope.READ, 200),
    ("POST", "/rollouts", Scope.OPERATE, 409),
    ("POST", "/rollouts/1/pause", Scope.OPERATE, 202),
    ("POST", "/rollouts/1/resume", Scope.OPERATE, 409),
    ("POST", "/rollouts/1/abort", Scope.OPERATE, 202),
    ("POST", "/rollouts/1/rollback", Scope.OPERATE, 202),
    ("GET", "/tokens", Scope.ADMIN, 200),
    ("POST", "/tokens", Scope.ADMIN, 201),
    ("DELETE", "/tokens/read", Scope.ADMIN, 204),
]
BODIES = {
    "/releases": {"release": "kiosk/1.1"},
    "/rollouts": {"release": "kiosk/1.1"},
    "/tokens": {"name": "new", "scopes": ["read"]},
    "/devices/lab-1/labels": {"labels": {"site": "lab", "old": None}},
}


@pytest.mark.parametrize(("method", "path", "scope", "status"), CALLS, ids=[f"{m} {p}" for m, p, _, _ in CALLS])
def test_every_call_needs_its_scope(world: World, method: str, path: str, scope: Scope, status: int) -> None:
    first = world.release("1.1")
    world.add("lab-1")
    world.direct(first)
    secrets = {s: world.fleet.tokens.create(s.value, [s], by="test") for s in Scope}
    client = Client(world.fleet)  # no threads: nothing moves by itself

    def call(secret: str) -> Any:
        return client.request(
            method, f"/api/v1{path}", json=BODIES.get(path, {}) if method != "GET" else None, headers=bearer(secret)
        )

    assert client.request(method, f"/api/v1{path}").status_code == 401
    assert call("drup_wrong").status_code == 401
    for other, secret in secrets.items():
        if other not in (scope, Scope.ADMIN) and scope is not Scope.READ:
            assert call(secret).status_code == 403
    said = call(secrets[scope])
    assert said.status_code == status, said.text
    if said.status_code >= 400:
        assert set(said.json()) == {"what", "where", "fix", "reason"}


def test_every_documented_route_is_in_the_matrix(world: World) -> None:
    client = Client(world.fleet)
    document = client.get("/openapi.json").json()
    known = {
        (method, path.replace("lab-1", "{device}").replace("kiosk/1.1", "{family}/{version}"))
        for method, path, _, _ in CALLS
    }
    known = {
        (m, p.replace("/rollouts/1", "/rollouts/{number}").replace("/tokens/read", "/tokens/{name}")) for m, p in known
    }
    found = {
        (verb.upper(), path.removeprefix("/api/v1")) for path, verbs in document["paths"].items() for verb in verbs
    }
    assert found - {("GET", "/stream")} == known
    references = {
        line.partition('"')[0] for line in client.get("/openapi.json").text.split("#/components/schemas/")[1:]
    }
    assert references <= set(document["components"]["schemas"])
    page = client.get("/docs").text
    assert all(path in page for path in document["paths"])
    assert "http://" not in page
    assert "https://" not in page


def test_expired_and_revoked_tokens(world: World) -> None:
    client = Client(world.fleet)
    short = world.fleet.tokens.create("short", [Scope.READ], by="test", lifetime_ms=5_000)
    gone = world.fleet.tokens.create("gone", [Scope.READ], by="test")
    assert client.get("/api/v1/devices", headers=bearer(short)).status_code == 200
    world.now += 5_001
    said = client.get("/api/v1/devices", headers=bearer(short))
    assert (said.status_code, "expired" in said.json()["what"]) == (401, True)
    world.fleet.tokens.revoke("gone", by="test")
    assert client.get("/api/v1/devices", headers=bearer(gone)).status_code == 401


def test_the_cookie_is_believed_from_our_own_pages_only(world: World) -> None:
    world.add("lab-1", approve=False)
    client = Client(world.fleet, cookies={"drupelet_token": world.fleet.tokens.create("op", [Scope.ADMIN], by="t")})
    assert client.get("/api/v1/devices").status_code == 200
    for origin, status in (("", 403), ("http://evil.example", 403), ("http://testserver", 200)):
        headers = {"Origin": origin} if origin else {}
        assert client.post("/api/v1/devices/lab-1/approve", json={}, headers=headers).status_code == status


def test_anonymous_reading_is_reading_only(world: World) -> None:
    client = Client(world.server(world.store, anonymous_read=True))
    assert client.get("/api/v1/overview").status_code == 200
    assert client.post("/api/v1/rollouts", json={}).status_code == 401
    assert client.get("/api/v1/tokens").status_code == 401


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/rollouts", {"release": "kiosk/1.1", "selecter": "a=b"}, 400, "selecter"),
        ("/rollouts", {"release": "kiosk"}, 400, "family/version"),
        ("/rollouts", {"release": "kiosk/9.9"}, 404, "not registered"),
        ("/rollouts", {"release": "kiosk/1.1", "selector": "site=moon"}, 409, "no approved device"),
        ("/rollouts", {"release": "kiosk/1.1", "selector": "a b"}, 400, "not a condition"),
        ("/rollouts", {"release": "kiosk/1.1", "stages": ["3", "1"]}, 400, "fewer"),
        ("/rollouts", {"release": "kiosk/1.1", "stages": ["0"]}, 400, "stage"),
        ("/rollouts", {"release": "kiosk/1.1", "policy": {"trials": 1}}, 400, "trials"),
        ("/rollouts", {"release": "kiosk/1.1", "policy": {"variants": ["q2_k"]}}, 400, "no variant"),
        (
            "/rollouts",
            {"release": "kiosk/1.1", "policy": {"gate": {"total_alpha": 1e-9}}},
            400,
            "more than total_alpha",
        ),
        ("/releases", {"release": "kiosk/7.7"}, 422, "vouches"),
        ("/releases", {"release": "../../etc"}, 400, ""),
        ("/tokens", {"name": "x", "scopes": ["root"]}, 400, "scopes"),
        ("/devices/ghost/approve", {}, 404, "no device"),
        ("/rollouts/99/pause", {}, 404, "no rollout"),
        ("/rollouts/x/pause", {}, 400, "number"),
    ],
)
def test_bad_input_says_what_is_wrong(world: World, path: str, body: dict[str, Any], status: int, says: str) -> None:
    world.release("1.1")
    world.add("lab-1", "lab-2", "lab-3")
    client = Client(world.fleet)
    head = bearer(world.fleet.tokens.create("all", list(Scope), by="test"))
    said = client.post(f"/api/v1{path}", json=body, headers=head)
    assert said.status_code == status, said.text
    assert says in said.json()["what"]


def test_an_unforeseen_error_shows_no_trace(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(world.fleet.reader), "overview", lambda self: 1 // 0)
    client = Client(world.server(world.store, anonymous_read=True))
    said = client.get("/api/v1/overview")
    assert (said.status_code, "Traceback" in said.text, "Zero" in said.text) == (500, False, False)


def test_lists_are_paged(world: World) -> None:
    world.add(*(f"d-{i:02d}" for i in range(7)))
    reader = world.fleet.reader
    first = reader.devices(limit=4)
    rest = reader.devices(limit=4, after=first.next)
    assert [d.id for d in (*first.items, *rest.items)] == [f"d-{i:02d}" for i in range(7)]
    assert rest.next == ""
    log = reader.audit(limit=5)
    older = reader.audit(limit=100, before=int(log.next))
    assert len({row.id for row in (*log.items, *older.items)}) == 14
